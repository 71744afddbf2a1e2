"""What a server asks of this node, read by the node's own rules: its own data, its own files, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flwr.app import ArrayRecord, Context, RecordDict
from numpy.typing import NDArray

from clients.act import Act
from clients.policy import NodePolicy
from clients.refusal import Refusal
from fedcof.data.class_list import classes_text, listed_names
from fedcof.data.section import NODES, check_encoder
from fedcof.embedding.section import place_of_weights
from fedcof.run.config import RunConfig
from fedcof.run.protocol import CONFIG, DATA, ENCODER, NETWORK

WEIGHTS = "weights"


def encoder_of(node_config: Mapping[str, object]) -> str:
    """Read what computed a node's features, as its owner declares it.

    Parameters
    ----------
    node_config : mapping
        With ``encoder``, if the node's data are features.

    Returns
    -------
    str
        Empty where they are images.

    Raises
    ------
    UserError
        If it is no line of text.
    """
    encoder = str(node_config.get(ENCODER, ""))
    check_encoder(encoder)
    return encoder


def policy_of(context: Context) -> NodePolicy | None:
    """Read the policy of a node with data of its own; simulated clients have none.

    Parameters
    ----------
    context : Context
        The node's context.

    Returns
    -------
    NodePolicy or None
        What its owner allows.

    Raises
    ------
    UserError
        If the node-config has a value that is none.
    """
    return NodePolicy.of(context.node_config) if DATA in context.node_config else None


def asked(content: RecordDict, context: Context, act: Act) -> RunConfig:
    """Read a request, and let it pass if the node's owner does.

    Parameters
    ----------
    content : RecordDict
        The server's message, whose ``config`` record goes before the Flower run's own run-config. Of both only the
        keys are read that act on clients.
    context : Context
        The node's context.
    act : Act
        What the message asks for.

    Returns
    -------
    RunConfig
        What to do. On a node with data of its own no key names a place of the server's choice.

    Raises
    ------
    UserError
        If a value has the wrong type or is out of range; a :class:`Refusal` if it is not allowed here.
    """
    # A strategy may put keys of its own beside ours.
    config = RunConfig.of_message({**context.run_config, **content.config_records.get(CONFIG, {})})
    policy = policy_of(context)
    if policy is None:
        return config
    config = _with_own_places(config, context.node_config)
    policy.admit(act, config)
    if act is Act.STATISTICS and NETWORK in content.array_records:
        # Features of any network whatever are the server's choice: as in training, and only for who trains.
        policy.admit(Act.TRAINING, config)
    return config


def network_arrays(content: RecordDict) -> dict[str, NDArray[Any]]:
    """Read the trained network that a request is to be answered with.

    Parameters
    ----------
    content : RecordDict
        The server's message.

    Returns
    -------
    dict of str to ndarray
        What trains, as :meth:`fedcof.heads.trainable.Network.to_arrays` names it; empty where the run's own
        backbone is meant.
    """
    return {name: array.numpy() for name, array in content.array_records.get(NETWORK, ArrayRecord()).items()}


def _with_own_places(config: RunConfig, node_config: Mapping[str, object]) -> RunConfig:
    if config.data.dataset != NODES:
        raise Refusal("it answers for its own data alone, but another dataset was asked for")
    _check_encoder(config, encoder_of(node_config))
    weights = config.embedding.weights
    if WEIGHTS in node_config:
        weights = str(node_config[WEIGHTS])
    elif place_of_weights(weights):
        raise Refusal(f"weights from a file were asked for, but its node-config names no {WEIGHTS}")
    # Read as names here, so that nobody takes them for a file's.
    classes = classes_text(listed_names(config.data.classes))
    return config.replaced(classes=classes, weights=weights, test_data="")


def _check_encoder(config: RunConfig, declared: str) -> None:
    """Let nothing be asked of features that is for images, or for those of another encoder."""
    asked = config.data.encoder
    if asked == declared:
        if declared and config.training.trains_backbone:
            raise Refusal(f"continue={config.training.kind} needs images, but it has features")
        return
    if not asked:
        raise Refusal(f"it has features, of the encoder {declared!r}, but images were asked for")
    if not declared:
        raise Refusal(
            f"features of the encoder {asked!r} were asked for, but its node-config declares no {ENCODER}"
        )
    raise Refusal(f"its features are of the encoder {declared!r}, but those of {asked!r} were asked for")
