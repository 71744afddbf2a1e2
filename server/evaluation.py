"""Evaluation on the server's test split: the features that a classifier sees there, and what it makes of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedcof.data.few_samples import held_samples
from fedcof.data.problem import backbone_of, dataset_of, labels_of, split_features
from fedcof.embedding.transform import transformed
from fedcof.heads.classifier import Classifier
from fedcof.heads.trainable import Network
from fedcof.run.config import RunConfig
from server.quality import Predictions

# Scores of so many samples are held at once.
SAMPLES_PER_BLOCK = 4096


def rightly_classified(classifier: Classifier, config: RunConfig, network: Network | None = None) -> Tensor:
    """Say which test samples a classifier gets right.

    Parameters
    ----------
    classifier : Classifier
        The head.
    config : RunConfig
        The run.
    network : Network, optional
        Whose backbone embeds the test images; without one, or one without a backbone, the run's frozen one does.

    Returns
    -------
    Tensor of shape (n,), bool
        One mark a sample.
    """
    labels = torch.tensor(labels_of(config, "test"))
    return classifier.predict(features_of(config, network)) == labels


def predictions_of(classifier: Classifier, config: RunConfig, features: Tensor, nats: float) -> Predictions:
    """Predict the test samples.

    Parameters
    ----------
    classifier, config
        See :func:`rightly_classified`.
    features : Tensor of shape (n, d)
        As :func:`features_of` gives them.
    nats : float
        What scores are multiplied by to be logits, see :func:`fedcof.heads.temperature.softmax_scale`; 1 for those
        of a head that was trained.

    Returns
    -------
    Predictions
        With the probability of each.
    """
    labels = torch.tensor(labels_of(config, "test"))
    predicted, confidence = [labels[:0]], [torch.zeros(0)]
    for block in _blocks(features):
        scores = classifier.scores(block)
        predicted.append(scores.argmax(dim=1))
        confidence.append((scores * nats).softmax(dim=1).amax(dim=1))
    return Predictions(labels, torch.cat(predicted), torch.cat(confidence), classifier.num_classes)


def share(right: Tensor) -> float:
    """Give the accuracy, from 0 to 1, of marks of shape (n,)."""
    return float(right.double().mean())


def _blocks(features: Tensor) -> Iterator[Tensor]:
    if len(features):
        yield from torch.split(features, SAMPLES_PER_BLOCK)


def scores_of(classifier: Classifier, features: Tensor) -> NDArray[np.float32]:
    """Score features (n, d) in blocks: shape (n, C), float32."""
    scores = [classifier.scores(block).cpu() for block in _blocks(features)]
    return torch.cat([torch.zeros(0, classifier.num_classes), *scores]).numpy()


def training_set(config: RunConfig) -> tuple[Tensor, Tensor]:
    """Give all training samples that the federation has, in one place.

    Parameters
    ----------
    config : RunConfig
        A simulation.

    Returns
    -------
    tuple of Tensor
        Features (n, d) float32, with the run's transform, and labels (n,) int64.
    """
    samples, labels = held_samples(config), labels_of(config, "train")
    features = features_of(config, split="train", samples=samples)
    return features, torch.tensor(labels if samples is None else labels[samples])


def features_of(
    config: RunConfig,
    network: Network | None = None,
    split: str = "test",
    samples: NDArray[np.int64] | None = None,
) -> Tensor:
    """Give the features by which samples are classified.

    Parameters
    ----------
    config, network
        See :func:`rightly_classified`.
    split : {"test", "train"}
        Of the server's dataset.
    samples : ndarray of shape (n,), int64, optional
        Which of the split's samples; all of them unless given.

    Returns
    -------
    Tensor of shape (n, d), float32
        With the run's transform.
    """
    if network is None or not config.training.trains_backbone:
        table = split_features(config, split).features
        features = torch.tensor(table[:] if samples is None else table[samples])
        return transformed(features, config.embedding.feature_transform)
    from fedcof.embedding.features import extract_features

    dataset = dataset_of(config)
    images = dataset.test if split == "test" else dataset.train
    images = images if samples is None else images.select(samples)
    backbone = replace(backbone_of(config), module=network.eval().backbone)
    with torch.no_grad():
        features = extract_features(backbone, images, config.embedding.batch_size)
    return transformed(features, config.embedding.feature_transform)
