"""Evaluation on the server's test split: which samples are right, their share, and that of each class."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from fedcof.data.problem import backbone_of, dataset_of, labels_of, split_features
from fedcof.embedding.transform import transformed
from fedcof.heads.classifier import Classifier
from fedcof.heads.trainable import Network
from fedcof.run.config import RunConfig


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
    if network is None or not config.training.fine_tunes:
        features = torch.tensor(split_features(config, "test").features[:])
    else:
        from fedcof.embedding.features import extract_features

        module = network.eval().backbone
        backbone = replace(backbone_of(config), module=module)
        with torch.no_grad():
            features = extract_features(backbone, dataset_of(config).test, config.embedding.batch_size)
    return classifier.predict(transformed(features, config.embedding.feature_transform)) == labels


def share(right: Tensor) -> float:
    """Give the accuracy, from 0 to 1, of marks of shape (n,)."""
    return float(right.double().mean())


def accuracy_by_class(right: Tensor, labels: Tensor, num_classes: int) -> list[float | None]:
    """Give the accuracy on each class.

    Parameters
    ----------
    right : Tensor of shape (n,), bool
        Which samples are classified rightly.
    labels : Tensor of shape (n,), int64
        Their classes.
    num_classes : int
        Number of classes C.

    Returns
    -------
    list of float or None
        From 0 to 1; None for a class without a sample.
    """
    samples = torch.bincount(labels, minlength=num_classes).tolist()
    hits = torch.bincount(labels[right], minlength=num_classes).tolist()
    return [hit / count if count else None for hit, count in zip(hits, samples, strict=True)]
