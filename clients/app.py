"""The Flower ClientApp: what a client answers, from its own samples."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from flwr.app import Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from numpy.typing import NDArray
from torch import Tensor

from clients.act import Act
from clients.answers import Answer, Answers, Question
from clients.asked import asked, network_arrays, policy_of
from clients.first_look import question_of, record_of
from clients.fisher import empirical_fisher
from clients.hosting import answer, introduce
from clients.policy import NodePolicy
from clients.reply import arrays_record, reply_with
from clients.samples import Held, OwnSamples, held_here, images_here, new_here, with_own_samples
from clients.training import Inputs, LocalTraining, step_of_head, train
from clients.upload import samples_told, upload_of
from fedcof import UserError
from fedcof.data.problem import backbone_of, problem_of
from fedcof.embedding.device import AUTO, chosen_device, chosen_precision
from fedcof.embedding.trained import trained_fingerprint
from fedcof.heads.adapters import layers_of
from fedcof.heads.classifiers import classifier_of
from fedcof.heads.trainable import BACKBONE_PREFIX, Network
from fedcof.methods.chain import Outgoing
from fedcof.methods.method import Samples
from fedcof.run.config import RunConfig
from fedcof.run.protocol import (
    ARRAYS,
    CONFIG,
    FISHER,
    INTRODUCTION,
    METRICS,
    NAME,
    NUM_EXAMPLES,
    SERVER_ROUND,
    STATISTICS,
)

if TYPE_CHECKING:
    from fedcof.embedding.backbones import Backbone

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
        The server's request; its ``config`` record overrides the node's run-config, and the backbone of its
        ``network``, if there is one, embeds in place of the run's own. In a simulation that goes over several steps
        its round is the step, and the upload is of what the client has not had before.
    context : Context
        The node's context.

    Returns
    -------
    RecordDict
        One ArrayRecord, named after how it is written (``statistics.class-means.float32``), with the arrays that
        :mod:`fedcof.methods.chain` makes of the method's statistics.
        A node with data of its own adds a ``node`` record: its samples, the rows that its policy withheld, and the
        fingerprint of its backbone.

    Raises
    ------
    UserError
        If the client is one of those that the run-config has drop out, or its node's policy does not allow it.
    """
    config = asked(content, context, Act.STATISTICS)
    policy, name = policy_of(context), str(context.node_config.get(NAME, ""))
    seed = _node_seed(config.data.seed, name) if policy else _client_seed(config.data.seed, client)
    network = _network_sent(config, content)
    _drop_out(config, _training_seed(config.data.seed, _round_of(content), client) if network else seed)
    if policy:
        # Told before anything is read, so that what changes meanwhile shows the next time.
        question = question_of(config, context, policy, content)
        trained = _trained_backbone(config, network) if network else None
        return record_of(_answer_of_node(config, client, context, policy, question, seed, trained))
    if network:
        held = Held(*_features_of_network(config, client, context, network, held_out=False))
    elif config.data.in_steps:
        held = new_here(config, client, _round_of(content))
    else:
        held = held_here(config, client, context)
    upload = _upload(config, client, held, seed)
    return reply_with(upload.arrays, upload.tag)


def _answer_of_node(
    config: RunConfig,
    client: int,
    context: Context,
    policy: NodePolicy,
    question: Question,
    seed: int,
    trained: Backbone | None,
) -> Answer:
    """Repeat the node's first answer, or make it: nothing is embedded for one that is repeated or refused."""

    def first(samples: OwnSamples) -> Answer:
        def make() -> Answer:
            held = samples.held()
            upload = _upload(config, client, held, seed, policy)
            withheld = upload.withheld + held.withheld
            told = samples_told(config, upload)
            return Answer(upload.arrays, upload.tag, told, withheld, samples.fingerprint)

        digest = question.digest(samples.ids, samples.fingerprint)
        return Answers(policy).first(question, digest, config, make)

    return with_own_samples(config, context, policy, first, trained=trained)


def _upload(config: RunConfig, client: int, held: Held, seed: int, policy: NodePolicy | None = None) -> Outgoing:
    samples = Samples(held.features, held.labels, problem_of(config).num_classes, seed, held.cells)
    return upload_of(config, client, samples, policy)


def training_of_client(client: int, content: RecordDict, context: Context) -> RecordDict:
    """Train the server's network on one client's own samples.

    Parameters
    ----------
    client : int
        Client number.
    content : RecordDict
        The server's request: the arrays of a :class:`fedcof.heads.trainable.Network`, and a ``config`` record with
        the number of the round.
    context : Context
        The node's context.

    Returns
    -------
    RecordDict
        The trained arrays as ``arrays``, and ``metrics`` with ``loss`` (nats) and ``num-examples``; with a merge
        that asks for it ``fisher``, see :mod:`clients.fisher`.

    Raises
    ------
    UserError
        If the client drops out, has no sample, or its training diverges.
    """
    config = asked(content, context, Act.TRAINING)
    training_round = _round_of(content)
    seed = _training_seed(config.data.seed, training_round, client)
    _drop_out(config, seed)
    if policy := policy_of(context):
        Answers(policy).count(config)
    network = _network(config, {name: a.numpy() for name, a in content.array_records[ARRAYS].items()})
    inputs, labels = _training_samples(config, client, context)
    rate = step_of_head(config.training, network, inputs, len(labels))
    device = chosen_device(AUTO)
    loss = train(
        network,
        inputs,
        labels,
        LocalTraining.of(config.training, config.embedding.batch_size, training_round, rate),
        torch.Generator().manual_seed(seed),
        device,
        chosen_precision(AUTO, device),
    )
    metrics = MetricRecord({"loss": loss, NUM_EXAMPLES: len(labels)})
    reply = RecordDict({ARRAYS: arrays_record(network.to_arrays()), METRICS: metrics})
    if config.merging.needs_fisher:
        reply[FISHER] = arrays_record(empirical_fisher(network, inputs, labels, device))
    return reply


def evaluation_of_client(client: int, content: RecordDict, context: Context) -> RecordDict:
    """Evaluate a classifier on the samples that one client keeps for it, or on all its own if it keeps none.

    Parameters
    ----------
    client : int
        Client number.
    content : RecordDict
        The server's request, with the arrays of a classifier (``weight`` (C, d), ``bias`` (C,), ``present`` (C,))
        or of a :class:`fedcof.heads.trainable.Network`; that of trained features has a ``network`` beside it.
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
    config = asked(content, context, Act.EVALUATION)
    if config.privacy.epsilon:
        return RecordDict({METRICS: MetricRecord({"accuracy": 0.0, NUM_EXAMPLES: 0})})
    if policy := policy_of(context):
        Answers(policy).count(config)
    arrays = {name: array.numpy() for name, array in content.array_records[ARRAYS].items()}
    if "present" in arrays:
        if network := _network_sent(config, content):
            features, labels = _features_of_network(config, client, context, network)
        else:
            held = held_here(config, client, context, held_out=True)
            features, labels = held.features, held.labels
        classifier = classifier_of({name: torch.from_numpy(array) for name, array in arrays.items()})
    else:
        network = _network(config, arrays)
        classifier = network.classifier(torch.ones(network.head.out_features, dtype=torch.bool))
        features, labels = _features_of_network(config, client, context, network)
    right = int((classifier.predict(features) == labels).sum())
    accuracy = right / max(len(labels), 1)
    return RecordDict({METRICS: MetricRecord({"accuracy": accuracy, NUM_EXAMPLES: len(labels)})})


HANDLERS = {
    Act.STATISTICS: statistics_of_client,
    Act.TRAINING: training_of_client,
    Act.EVALUATION: evaluation_of_client,
}


def _network(config: RunConfig, arrays: Mapping[str, NDArray[Any]]) -> Network:
    """Make the network that has been sent."""
    problem, adapters = problem_of(config), config.training.adapters(config.data.seed)
    backbone = backbone_of(config).module if config.training.trains_backbone else None
    if adapters:
        adapters = replace(adapters, layers=layers_of(arrays, BACKBONE_PREFIX))
    return Network(problem.num_classes, problem.feature_dim, backbone, adapters).load_arrays(arrays)


def _network_sent(config: RunConfig, content: RecordDict) -> Network | None:
    """Load the trained network whose features are asked about; None where the run's own backbone is meant."""
    arrays = network_arrays(content)
    if not arrays:
        return None
    if not config.training.trains_backbone:
        raise UserError("A trained network came along, but no backbone trains: set continue to fine-tune.")
    return _network(config, arrays)


def _trained_backbone(config: RunConfig, network: Network) -> Backbone:
    frozen = backbone_of(config)
    fingerprint = trained_fingerprint(frozen.fingerprint, network.to_arrays())
    return replace(frozen, module=network.backbone.eval().requires_grad_(False), fingerprint=fingerprint)


def _training_samples(config: RunConfig, client: int, context: Context) -> tuple[Inputs, Tensor]:
    """Give what the network takes of sample numbers, and all labels: features, or images read when needed."""
    if not config.training.trains_backbone:
        held = held_here(config, client, context)
        return held.features.__getitem__, held.labels
    from fedcof.embedding.images import rgb_images

    images, labels = images_here(config, client, context)
    transform = backbone_of(config).transform

    def inputs(numbers: Tensor) -> Tensor:
        return torch.stack([transform(image) for image in rgb_images(images, numbers.tolist())])

    return inputs, labels


def _features_of_network(
    config: RunConfig, client: int, context: Context, network: Network, held_out: bool = True
) -> tuple[Tensor, Tensor]:
    """Embed with the backbone that has been trained, where one has."""
    if not config.training.trains_backbone:
        held = held_here(config, client, context, held_out)
        return held.features, held.labels
    from fedcof.embedding.features import extract_features

    images, labels = images_here(config, client, context, held_out)
    backbone = replace(backbone_of(config), module=network.backbone.eval().requires_grad_(False))
    return extract_features(backbone, images, config.embedding.batch_size), labels


def _round_of(content: RecordDict) -> int:
    return int(str(content.config_records[CONFIG][SERVER_ROUND]))


def _drop_out(config: RunConfig, seed: int) -> None:
    if config.participation.dropout and random.Random(seed).random() < config.participation.dropout:
        raise UserError(f"it dropped out, as every client does with probability {config.participation.dropout:g}")


def _client_seed(seed: int, client: int) -> int:
    """Make a seed of 32 bits that no two clients of a run share."""
    return (seed * 1_000_003 + client) % 2**32


def _node_seed(seed: int, name: str) -> int:
    """Make a seed of 32 bits of a node's name: its number among the others changes as they join and leave."""
    return int.from_bytes(hashlib.sha256(f"{seed} {name}".encode()).digest()[:4], "big")


def _training_seed(seed: int, training_round: int, client: int) -> int:
    """Make a seed of 32 bits, which is all that torch's generator looks at, for a client's round."""
    return int(np.random.SeedSequence([seed, training_round, client]).generate_state(1)[0])
