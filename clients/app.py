"""The Flower ClientApp: what a client answers, from its own samples."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from torch import Tensor

from clients.hosting import answer, introduce
from clients.policy import CLASS_MEANS, DATA, GRAM, NodePolicy
from clients.samples import features_here, images_here
from clients.training import Inputs, LocalTraining, train
from clients.uploads import Client
from fedcof import LinearClassifier, UserError
from fedcof.data.virtual_clients import backbone_of, problem_of
from fedcof.embedding.device import AUTO, chosen_device, chosen_precision
from fedcof.heads.trainable import Network
from fedcof.run.config import FINE_TUNE, RunConfig
from fedcof.run.protocol import (
    ARRAYS,
    CONFIG,
    FINGERPRINT,
    INTRODUCTION,
    METRICS,
    NODE,
    NUM_EXAMPLES,
    SAMPLES,
    SERVER_ROUND,
    STATISTICS,
    WITHHELD,
)

app = ClientApp()
app.query(INTRODUCTION)(introduce)


@app.query(STATISTICS)
def send_statistics(message: Message, context: Context) -> Message:
    """Send the class means of this node's client, or of each client it hosts."""
    return answer(statistics_of_client, message, context)


@app.train()
def train_here(message: Message, context: Context) -> Message:
    """Train on the samples of this node's client, or of each client it hosts."""
    return answer(training_of_client, message, context)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Evaluate the classifier on the samples of this node's client, or of each client it hosts."""
    return answer(evaluation_of_client, message, context)


def statistics_of_client(client: int, content: RecordDict, context: Context) -> RecordDict:
    """Compute what one client uploads.

    Parameters
    ----------
    client : int
        Client number.
    content : RecordDict
        The server's request; its ``config`` record overrides the node's run-config.
    context : Context
        The node's context.

    Returns
    -------
    RecordDict
        One ArrayRecord ``statistics`` with the arrays that :mod:`fedcof.encoding` makes of the method's statistics.
        A node with data of its own adds a ``node`` record: its samples, the rows that its policy withheld, and the
        fingerprint of its backbone.

    Raises
    ------
    UserError
        If the client is one of those that the run-config has drop out, or its node's policy does not allow it.
    """
    config = _run_config(content, context)
    seed = _client_seed(config.seed, client)
    _drop_out(config, seed)
    if policy := _policy(context):
        policy.check_backbone(config.backbone)
        policy.check_statistics(GRAM if config.method == "fed3r" else CLASS_MEANS)
        policy.check_privacy(config.epsilon, config.delta)
        policy.note_answer()
    features, labels = features_here(config, client, context)
    upload = Client(config, client, seed, problem_of(config).num_classes, features, labels, policy).upload()
    record = ArrayRecord({name: Array(array) for name, array in upload.arrays.items()})
    if not policy:
        return RecordDict({STATISTICS: record})
    fingerprint = backbone_of(config).fingerprint
    node = ConfigRecord({SAMPLES: upload.samples, WITHHELD: upload.withheld, FINGERPRINT: fingerprint})
    return RecordDict({STATISTICS: record, NODE: node})


def training_of_client(client: int, content: RecordDict, context: Context) -> RecordDict:
    """Train the server's network on one client's own samples.

    Parameters
    ----------
    client : int
        Client number.
    content : RecordDict
        The server's request: the arrays of a :class:`fedcof.network.Network`, and a ``config`` record with the
        number of the round.
    context : Context
        The node's context.

    Returns
    -------
    RecordDict
        The trained arrays as ``arrays``, and ``metrics`` with ``loss`` (nats) and ``num-examples``.

    Raises
    ------
    UserError
        If the client drops out, has no sample, or its training diverges.
    """
    config = _run_config(content, context)
    training_round = int(str(content.config_records[CONFIG][SERVER_ROUND]))
    seed = _training_seed(config.seed, training_round, client)
    _drop_out(config, seed)
    if policy := _policy(context):
        policy.check_backbone(config.backbone)
        policy.check_training()
        policy.note_answer()
    network = _network(config).load_arrays({name: a.numpy() for name, a in content.array_records[ARRAYS].items()})
    inputs, labels = _training_samples(config, client, context)
    device = chosen_device(AUTO)
    loss = train(
        network,
        inputs,
        labels,
        LocalTraining.of(config, training_round),
        torch.Generator().manual_seed(seed),
        device,
        chosen_precision(AUTO, device),
    )
    arrays = ArrayRecord({name: Array(array) for name, array in network.to_arrays().items()})
    return RecordDict({ARRAYS: arrays, METRICS: MetricRecord({"loss": loss, NUM_EXAMPLES: len(labels)})})


def evaluation_of_client(client: int, content: RecordDict, context: Context) -> RecordDict:
    """Evaluate a classifier on the samples that one client keeps for it, or on all its own if it keeps none.

    Parameters
    ----------
    client : int
        Client number.
    content : RecordDict
        The server's request, with the arrays of a classifier (``weight`` (C, d), ``bias`` (C,), ``present`` (C,))
        or of a :class:`fedcof.network.Network`.
    context : Context
        The node's context.

    Returns
    -------
    RecordDict
        One MetricRecord ``metrics`` with ``accuracy`` (0 to 1) and ``num-examples``; both are 0 in a run with
        privacy, because what is right on a client's samples would tell of them.

    Raises
    ------
    UserError
        If its node's policy does not allow it.
    """
    config = _run_config(content, context)
    if policy := _policy(context):
        policy.check_privacy(config.epsilon, config.delta)
    if config.epsilon:
        return RecordDict({METRICS: MetricRecord({"accuracy": 0.0, NUM_EXAMPLES: 0})})
    arrays = {name: array.numpy() for name, array in content.array_records[ARRAYS].items()}
    if "present" in arrays:
        features, labels = features_here(config, client, context, held_out=True)
        weight, bias, present = (torch.from_numpy(arrays[name]) for name in ("weight", "bias", "present"))
        classifier = LinearClassifier(weight, bias, present)
    else:
        network = _network(config).load_arrays(arrays)
        classifier = network.classifier(torch.ones(network.head.out_features, dtype=torch.bool))
        features, labels = _features_of_network(config, client, context, network)
    right = int((classifier.predict(features) == labels).sum())
    accuracy = right / max(len(labels), 1)
    return RecordDict({METRICS: MetricRecord({"accuracy": accuracy, NUM_EXAMPLES: len(labels)})})


def _network(config: RunConfig) -> Network:
    problem = problem_of(config)
    backbone = backbone_of(config).module if config.continue_ == FINE_TUNE else None
    return Network(problem.num_classes, problem.feature_dim, backbone)


def _training_samples(config: RunConfig, client: int, context: Context) -> tuple[Inputs, Tensor]:
    """Give what the network takes of sample numbers, and all labels: features, or images read when needed."""
    if config.continue_ != FINE_TUNE:
        features, labels = features_here(config, client, context)
        return features.__getitem__, labels
    from fedcof.embedding.images import rgb_images

    images, labels = images_here(config, client, context)
    transform = backbone_of(config).transform

    def inputs(numbers: Tensor) -> Tensor:
        return torch.stack([transform(image) for image in rgb_images(images, numbers.tolist())])

    return inputs, labels


def _features_of_network(
    config: RunConfig, client: int, context: Context, network: Network
) -> tuple[Tensor, Tensor]:
    """Embed with the backbone that has been trained, where one has."""
    if config.continue_ != FINE_TUNE:
        return features_here(config, client, context, held_out=True)
    from fedcof.embedding.features import extract_features

    images, labels = images_here(config, client, context, held_out=True)
    backbone = replace(backbone_of(config), module=network.backbone.eval().requires_grad_(False))
    return extract_features(backbone, images, config.batch_size), labels


def _policy(context: Context) -> NodePolicy | None:
    """Read the policy of a node with data of its own; simulated clients have none."""
    return NodePolicy.of(context.node_config) if DATA in context.node_config else None


def _drop_out(config: RunConfig, seed: int) -> None:
    if config.dropout and random.Random(seed).random() < config.dropout:
        raise UserError(f"it dropped out, as every client does with probability {config.dropout:g}")


def _run_config(content: RecordDict, context: Context) -> RunConfig:
    """Take the keys that are ours: a strategy may put keys of its own beside them."""
    values = {**context.run_config, **content.config_records.get(CONFIG, {})}
    known = RunConfig.defaults()
    return RunConfig.from_mapping({key: value for key, value in values.items() if key in known})


def _client_seed(seed: int, client: int) -> int:
    """Make a seed of 32 bits that no two clients of a run share."""
    return (seed * 1_000_003 + client) % 2**32


def _training_seed(seed: int, training_round: int, client: int) -> int:
    """Make a seed of 32 bits, which is all that torch's generator looks at, for a client's round."""
    return int(np.random.SeedSequence([seed, training_round, client]).generate_state(1)[0])
