"""One node may answer for many clients: each on its own, and a failure of one leaves the others whole."""

from __future__ import annotations

from collections.abc import Callable
from logging import getLogger
from typing import cast

from flwr.app import ConfigRecord, Context, Message, RecordDict

from fedcof.errors import UserError
from fedcof.run.protocol import (
    CLIENTS,
    DATA,
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
        A ``node`` record with ``partition-id`` and ``num-partitions``, or with ``name``.
    """
    if DATA in context.node_config:
        record = ConfigRecord({NAME: str(context.node_config.get(NAME, ""))})
        return Message(RecordDict({NODE: record}), reply_to=message)
    keys = [key for key in (PARTITION_ID, NUM_PARTITIONS) if key in context.node_config]
    node = ConfigRecord({key: int(context.node_config[key]) for key in keys})
    return Message(RecordDict({NODE: node}), reply_to=message)


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
        client = int(context.node_config.get(PARTITION_ID, 0))
        return Message(handler(client, message.content, context), reply_to=message)
    replies = RecordDict()
    for client in cast(list[int], message.content.config_records[HOSTED][CLIENTS]):
        for key, record in _reply_or_reason(handler, client, message.content, context).items():
            replies[hosted_key(client, key)] = record
    return Message(replies, reply_to=message)


def _reply_or_reason(handler: Handler, client: int, content: RecordDict, context: Context) -> RecordDict:
    try:
        return handler(client, content, context)
    except UserError as error:
        reason = str(error)
    except Exception as error:
        logger.exception("Client %d failed", client)
        reason = f"{type(error).__name__}: {error}"
    return RecordDict({ERROR: ConfigRecord({REASON: reason})})
