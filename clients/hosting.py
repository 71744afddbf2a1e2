"""One node may answer for many clients: each on its own, and a failure of one leaves the others whole."""

from __future__ import annotations

from collections.abc import Callable
from logging import getLogger
from typing import cast

from flwr.app import ConfigRecord, Context, Error, Message, RecordDict
from flwr.common.constant import ErrorCode

from clients.data_state import own_data_state
from clients.refusal import told
from fedcof.errors import UserError
from fedcof.run.protocol import (
    CLIENTS,
    DATA,
    DATA_STATE,
    ERROR,
    HOSTED,
    NAME,
    NODE,
    NUM_PARTITIONS,
    PARTITION_ID,
    REASON,
    hosted_key,
)

logger = getLogger(__name__)

Handler = Callable[[int, RecordDict, Context], RecordDict]


def introduce(message: Message, context: Context) -> Message:
    """Say which partition this node is, and of how many; or its name, if it has data of its own.

    Parameters
    ----------
    message : Message
        The server's question.
    context : Context
        The node's context; a node-config without these keys gives a reply without them.

    Returns
    -------
    Message
        A ``node`` record with ``partition-id`` and ``num-partitions``, or with ``name`` and ``data-state``.
    """
    if DATA in context.node_config:
        return _or_what_may_be_told(_introduction_by_name, message, context)
    keys = [key for key in (PARTITION_ID, NUM_PARTITIONS) if key in context.node_config]
    node = ConfigRecord({key: int(context.node_config[key]) for key in keys})
    return Message(RecordDict({NODE: node}), reply_to=message)


def _introduction_by_name(message: Message, context: Context) -> Message:
    state = own_data_state(context.node_config)
    record = ConfigRecord({NAME: str(context.node_config.get(NAME, "")), DATA_STATE: state})
    return Message(RecordDict({NODE: record}), reply_to=message)


def answer(handler: Handler, message: Message, context: Context) -> Message:
    """Answer a message for every client that it is for.

    Parameters
    ----------
    handler : callable
        Takes a client number, the message's content and the node's context; gives the client's reply.
    message : Message
        The server's message. Without a ``hosted`` record it is for the node's own partition.
    context : Context
        The node's context.

    Returns
    -------
    Message
        The client's records; or those of all hosted clients, each under its client's number.
    """
    if HOSTED not in message.content:
        return _answer_for_itself(handler, message, context)
    clients = cast(list[int], message.content.config_records[HOSTED][CLIENTS])
    replies = RecordDict()
    # A node with data of its own is one client, whatever the message says.
    for client in clients[:1] if DATA in context.node_config else clients:
        for key, record in _reply_or_reason(handler, client, message.content, context).items():
            replies[hosted_key(client, key)] = record
    return Message(replies, reply_to=message)


def _answer_for_itself(handler: Handler, message: Message, context: Context) -> Message:
    client = int(context.node_config.get(PARTITION_ID, 0))

    def reply(message: Message, context: Context) -> Message:
        return Message(_within_limits(handler, client, message.content, context), reply_to=message)

    if DATA not in context.node_config:
        return reply(message, context)
    return _or_what_may_be_told(reply, message, context)


def _or_what_may_be_told(
    reply: Callable[[Message, Context], Message], message: Message, context: Context
) -> Message:
    """Reply, or say why not; Flower would send an exception's own words, with what they quote."""
    try:
        return reply(message, context)
    except Exception as error:
        logger.exception("Not answered")
        return Message(Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, told(error)), reply_to=message)


def _within_limits(handler: Handler, client: int, content: RecordDict, context: Context) -> RecordDict:
    if DATA not in context.node_config:
        return handler(client, content, context)
    # What reads policies takes a while to import, which one that only says its name need not wait for.
    from clients.asked import policy_of
    from clients.limits import within_limits

    policy = policy_of(context)
    assert policy is not None
    with within_limits(policy):
        return handler(client, content, context)


def _reply_or_reason(handler: Handler, client: int, content: RecordDict, context: Context) -> RecordDict:
    try:
        return _within_limits(handler, client, content, context)
    except Exception as error:
        reason = _reason(client, error, DATA in context.node_config)
    return RecordDict({ERROR: ConfigRecord({REASON: reason})})


def _reason(client: int, error: Exception, on_own_data: bool) -> str:
    """Say why there is no answer: to the owner's log all of it, to the server what it may know."""
    if on_own_data or not isinstance(error, UserError):
        logger.error("Client %d has no answer", client, exc_info=error)
    if on_own_data:
        return told(error)
    return str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
