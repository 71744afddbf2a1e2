"""What each client of a simulation gets: accuracy on its own kind of samples, with what it knows of its classes.

The server of a simulation knows who holds what. Without samples that clients keep for evaluation, a client is
evaluated on the test split as if it were dealt as the training samples are: a test sample of class c counts
p_k(c) / n_test(c), where p_k(c) is the client's share of class c and n_test(c) the number of its test samples. Only
test samples of classes that it holds count, so what is looked at are as many scores as there are such samples and
such classes, client by client.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fedcof.data.partitioning import describe_partition
from fedcof.data.problem import labels_of
from fedcof.data.virtual_clients import client_indices, held_out_part
from fedcof.heads.classifier import Classifier
from fedcof.heads.trainable import Network
from fedcof.run.client_accuracy import ClientAccuracy, Spread
from fedcof.run.config import RunConfig
from server.evaluation import features_of, scores_of

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Counts = NDArray[np.int64]

# Scores of a client's samples that are looked at in one piece.
MOST_SCORES = 4_000_000
# Samples that clients keep for their evaluation that are scored at once.
MOST_SAMPLES = 16_384


class OwnSamples(NamedTuple):
    """What one client is evaluated on, as scored by the classifier that all share.

    Attributes
    ----------
    scores : ndarray of shape (n, C), float32
        Minus infinity for classes that are never predicted.
    predicted : ndarray of shape (n,), int64
        The best class of each.
    rows : ndarray of shape (m,), int64
        Which of the samples are the client's.
    labels : ndarray of shape (m,), int64
        Their classes.
    weights : ndarray of shape (m,), float64
        What each counts; they add up to 1.
    counts : ndarray of shape (C,), int64
        The client's training samples by class.
    """

    scores: Floats
    predicted: Counts
    rows: Counts
    labels: Counts
    weights: Doubles
    counts: Counts


def accuracy_of_clients(
    classifier: Classifier, config: RunConfig, nats: float, test_features: Tensor, network: Network | None = None
) -> ClientAccuracy | None:
    """Evaluate a simulation's classifier as each of its clients would use it.

    Parameters
    ----------
    classifier : Classifier
        The head.
    config : RunConfig
        The run; where its clients keep samples for evaluation, these are what they are evaluated on.
    nats : float
        See :func:`client_accuracy`.
    test_features : Tensor of shape (n, d), float32
        Those of the test split.
    network : Network, optional
        See :func:`server.evaluation.features_of`.

    Returns
    -------
    ClientAccuracy or None
        None where the server does not know who holds what, or there is nothing to evaluate on.
    """
    if config.data.on_nodes:
        return None
    held, labels = client_indices(config), labels_of(config, "train")
    learnt = [held_out_part(samples, config, client, held_out=False) for client, samples in enumerate(held)]
    counts = describe_partition(learnt, labels, classifier.num_classes)
    if not config.data.client_test_share:
        scores = scores_of(classifier, test_features)
        return client_accuracy(of_test_split(scores, labels_of(config, "test"), counts), nats)
    kept = [held_out_part(samples, config, client, held_out=True) for client, samples in enumerate(held)]

    def own_samples() -> Iterator[OwnSamples]:
        for group in _groups([len(samples) for samples in kept]):
            together = np.concatenate(kept[group])
            ends = np.cumsum([len(samples) for samples in kept[group]])
            owners = np.split(np.arange(len(together)), ends[:-1])
            scores = scores_of(classifier, features_of(config, network, "train", together))
            yield from of_own_samples(scores, labels[together], owners, counts[group])

    return client_accuracy(own_samples(), nats)


def _groups(sizes: list[int]) -> Iterator[slice]:
    """Cut clients into runs of so many samples as are scored at once, or a single client with more."""
    start = samples = 0
    for client, size in enumerate(sizes):
        if samples and samples + size > MOST_SAMPLES:
            yield slice(start, client)
            start, samples = client, 0
        samples += size
    if samples:
        yield slice(start, len(sizes))


def client_accuracy(clients: Iterable[OwnSamples], nats: float) -> ClientAccuracy | None:
    """Evaluate a classifier as each client would use it.

    Parameters
    ----------
    clients : iterable of OwnSamples
        One each; those without a sample to evaluate on are not counted.
    nats : float
        What scores are multiplied by to be in nats, see :func:`fedcof.heads.temperature.softmax_scale`.

    Returns
    -------
    ClientAccuracy or None
        None if no client counts.
    """
    found = [_accuracies(client, nats) for client in clients if len(client.rows)]
    if not found:
        return None
    everything, held, prior = (Spread.of(accuracies) for accuracies in zip(*found, strict=True))
    return ClientAccuracy(len(found), everything, held, prior)


def of_own_samples(
    scores: Floats, labels: Counts, owners: Iterable[Counts], counts: Counts
) -> Iterator[OwnSamples]:
    """Take the samples that each client keeps for its evaluation.

    Parameters
    ----------
    scores : ndarray of shape (n, C), float32
        Of all samples that any client keeps.
    labels : ndarray of shape (n,), int64
        Their classes.
    owners : iterable of ndarray, int64
        For each client which of them are its own.
    counts : ndarray of shape (K, C), int64
        Training samples of each class on each client.

    Yields
    ------
    OwnSamples
        One a client.
    """
    predicted = scores.argmax(axis=1)
    for rows, own in zip(owners, counts, strict=True):
        yield OwnSamples(scores, predicted, rows, labels[rows], np.full(len(rows), 1 / max(len(rows), 1)), own)


def of_test_split(scores: Floats, labels: Counts, counts: Counts) -> Iterator[OwnSamples]:
    """Weigh a test split for each client so that it has the client's frequencies of classes.

    Parameters
    ----------
    scores : ndarray of shape (n, C), float32
        Of the test samples.
    labels : ndarray of shape (n,), int64
        Their classes.
    counts : ndarray of shape (K, C), int64
        Training samples of each class on each client.

    Yields
    ------
    OwnSamples
        One a client; a class without a test sample is left out of its frequencies.
    """
    by_class = np.argsort(labels, kind="stable")
    tested = np.bincount(labels, minlength=counts.shape[1])
    ends = np.cumsum(tested)
    predicted = scores.argmax(axis=1)
    for own in counts:
        classes = np.flatnonzero((own > 0) & (tested > 0))
        parts = [by_class[ends[c] - tested[c] : ends[c]] for c in classes]
        rows = np.concatenate(parts) if parts else np.empty(0, np.int64)
        shares = own[classes] / max(int(own[classes].sum()), 1)
        weights = np.repeat(shares / tested[classes], tested[classes])
        yield OwnSamples(scores, predicted, rows, np.repeat(classes, tested[classes]), weights, own)


def _accuracies(client: OwnSamples, nats: float) -> tuple[float, float, float]:
    """Give a client's accuracy with all classes, with those that it holds, and with its frequencies as prior."""
    held = np.flatnonzero(client.counts)
    logarithms = (np.log(client.counts[held] / client.counts.sum()) / nats).astype(np.float32)
    total = np.zeros(3)
    total[0] = client.weights[client.predicted[client.rows] == client.labels].sum()
    size = max(1, MOST_SCORES // max(len(held), 1))
    for start in range(0, len(client.rows), size):
        part = slice(start, start + size)
        labels, weights = client.labels[part], client.weights[part]
        scores = client.scores[np.ix_(client.rows[part], held)]
        total[1] += weights[_right(scores, held, labels)].sum()
        total[2] += weights[_right(scores + logarithms, held, labels)].sum()
    return float(total[0]), float(total[1]), float(total[2])


def _right(scores: Floats, classes: Counts, labels: Counts) -> NDArray[np.bool_]:
    """Mark the samples of which the best class is theirs, and can be predicted at all."""
    if not len(classes):
        return np.zeros(len(labels), dtype=bool)
    best = scores.argmax(axis=1)
    possible = np.isfinite(scores[np.arange(len(scores)), best])
    marks: NDArray[np.bool_] = (classes[best] == labels) & possible
    return marks
