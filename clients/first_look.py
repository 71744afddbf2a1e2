"""What a node settles before it reads a sample or imports a framework: refusals, limits, and repeated answers."""

from __future__ import annotations

import hashlib

from flwr.app import Context, RecordDict

from clients.act import Act
from clients.answers import Answer, Answers, Question
from clients.asked import asked, network_arrays, policy_of
from clients.data_state import own_data_state
from clients.policy import NodePolicy
from clients.reply import NodeRecord, reply_with
from fedcof.data.unchanged import stamp_of
from fedcof.embedding.trained import digest_of_arrays
from fedcof.run.config import RunConfig


def first_look(act: Act, content: RecordDict, context: Context) -> RecordDict | None:
    """Answer what can be answered at once.

    Parameters
    ----------
    act : Act
        What the message asks for.
    content : RecordDict
        The server's message.
    context : Context
        The context of a node with data of its own.

    Returns
    -------
    RecordDict or None
        An answer that has been given before; None where the node has to look at its samples.

    Raises
    ------
    UserError
        If the request makes no sense; a :class:`clients.refusal.Refusal` if it is not allowed, or one too many.
    """
    config, policy = asked(content, context, act), policy_of(context)
    assert policy is not None
    if act is Act.STATISTICS:
        # Who drops out of a run does not repeat an answer either.
        if config.participation.dropout:
            return None
        question = question_of(config, context, policy, content)
        if (known := Answers(policy).repeated(question)) is not None:
            return record_of(known)
        Answers(policy).check_room(config, question)
    elif act is Act.TRAINING or not config.privacy.epsilon:
        Answers(policy).check_room(config)
    return None


def question_of(config: RunConfig, context: Context, policy: NodePolicy, content: RecordDict) -> Question:
    """Tell a question from others, as far as that can be done without reading a sample or loading a backbone.

    Parameters
    ----------
    config : RunConfig
        What is asked.
    context : Context
        The node's context.
    policy : NodePolicy
        What its owner allows.
    content : RecordDict
        The server's message.

    Returns
    -------
    Question
        Equal for equal questions about the same data.
    """
    states = own_data_state(context.node_config), stamp_of(config)
    seen = hashlib.sha256(" ".join(states).encode()).hexdigest() if all(states) else ""
    network = ""
    if arrays := network_arrays(content):
        # By what adapters are multiplied is none of their arrays.
        network = f"{config.training.kind} {config.training.adapter_alpha:g} {digest_of_arrays(arrays)}"
    return Question.of(config, policy, seen, network)


def record_of(answer: Answer) -> RecordDict:
    """Write an answer as the message that a node with data of its own sends.

    Parameters
    ----------
    answer : Answer
        Statistics, and what is said of them.

    Returns
    -------
    RecordDict
        Their record, and the ``node`` record.
    """
    node = NodeRecord(answer.samples, answer.withheld, answer.fingerprint)
    return reply_with(answer.arrays, answer.tag, node)
