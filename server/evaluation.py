"""Evaluation on the server's test split: the features that a classifier sees there, and what it makes of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from fedcof.data.problem import backbone_of, dataset_of, labels_of, split_features
from fedcof.embedding.transform import transformed
from fedcof.heads.classifier import Classifier
from fedcof.heads.temperature import softmax_scale
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
    return classifier.predict(_test_features(config, network)) == labels


def predictions_of(
    classifier: Classifier,
    config: RunConfig,
    network: Network | None = None,
    class_means: Tensor | None = None,
) -> Predictions:
    """Predict the test samples.

    Parameters
    ----------
    classifier, config, network
        See :func:`rightly_classified`.
    class_means : Tensor of shape (C, d), floating point, optional
        Of a closed-form head, whose scores become logits by them alone (:mod:`fedcof.heads.temperature`); without,
        scores are logits, as those of a head that was trained.

    Returns
    -------
    Predictions
        With the probability of each.
    """
    labels = torch.tensor(labels_of(config, "test"))
    scale = 1.0 if class_means is None else softmax_scale(classifier, class_means)
    predicted, confidence = [labels[:0]], [torch.zeros(0)]
    for features in _blocks(_test_features(config, network)):
        scores = classifier.scores(features)
        predicted.append(scores.argmax(dim=1))
        confidence.append((scores * scale).softmax(dim=1).amax(dim=1))
    return Predictions(labels, torch.cat(predicted), torch.cat(confidence), classifier.num_classes)


def share(right: Tensor) -> float:
    """Give the accuracy, from 0 to 1, of marks of shape (n,)."""
    return float(right.double().mean())


def _blocks(features: Tensor) -> Iterator[Tensor]:
    if len(features):
        yield from torch.split(features, SAMPLES_PER_BLOCK)


def _test_features(config: RunConfig, network: Network | None) -> Tensor:
    if network is None or not config.training.fine_tunes:
        features = torch.tensor(split_features(config, "test").features[:])
        return transformed(features, config.embedding.feature_transform)
    from fedcof.embedding.features import extract_features

    module = network.eval().backbone
    backbone = replace(backbone_of(config), module=module)
    with torch.no_grad():
        features = extract_features(backbone, dataset_of(config).test, config.embedding.batch_size)
    return transformed(features, config.embedding.feature_transform)
