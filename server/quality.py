"""How good predictions on the test split are, beyond the share that is right."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedcof.run.sample_groups import MOST_OF_FEW, AccuracyBySamples, GroupAccuracy

CONFIDENCE_BINS = 15


@dataclass(frozen=True, eq=False)
class Predictions:
    """What a classifier makes of the test split.

    Attributes
    ----------
    labels, predicted : Tensor of shape (n,), int64
        Class of each sample, and what it was taken for.
    confidence : Tensor of shape (n,), float32
        Probability that the classifier gives its prediction, from 0 to 1.
    num_classes : int
        Number of classes C.
    """

    labels: Tensor
    predicted: Tensor
    confidence: Tensor
    num_classes: int

    @property
    def right(self) -> Tensor:
        """Which samples are classified rightly: shape (n,), bool."""
        return self.predicted == self.labels

    @property
    def accuracy(self) -> float | None:
        """Share of the samples that is classified rightly, from 0 to 1; None without a sample."""
        return float(self.right.double().mean()) if len(self.labels) else None

    def accuracy_by_class(self) -> list[float | None]:
        """Give the accuracy on each class, from 0 to 1; None for a class without a sample."""
        samples = torch.bincount(self.labels, minlength=self.num_classes).tolist()
        hits = torch.bincount(self.labels[self.right], minlength=self.num_classes).tolist()
        return [hit / count if count else None for hit, count in zip(hits, samples, strict=True)]

    def balanced_accuracy(self) -> float | None:
        """Average the accuracy over the classes that have a sample; None without one."""
        known = [accuracy for accuracy in self.accuracy_by_class() if accuracy is not None]
        return sum(known) / len(known) if known else None

    def accuracy_by_samples(self, samples: NDArray[np.int64]) -> AccuracyBySamples:
        """Give the accuracy on classes with no, few and many training samples.

        Parameters
        ----------
        samples : ndarray of shape (C,), int64
            Training samples of each class.

        Returns
        -------
        AccuracyBySamples
            Unknown for a group of classes without a test sample.
        """
        members = (samples == 0, (samples > 0) & (samples <= MOST_OF_FEW), samples > MOST_OF_FEW)
        return AccuracyBySamples(*map(self._of_classes, members))

    def _of_classes(self, members: NDArray[np.bool_]) -> GroupAccuracy:
        right = self.right[torch.from_numpy(members)[self.labels]]
        return GroupAccuracy(int(members.sum()), float(right.double().mean()) if len(right) else None)

    def macro_f1(self) -> float | None:
        """Average the F1 score over the classes that occur, as samples or as predictions; None without a sample."""
        if not len(self.labels):
            return None
        from sklearn.metrics import f1_score

        return float(f1_score(self.labels.numpy(), self.predicted.numpy(), average="macro", zero_division=0.0))

    def calibration_error(self) -> float | None:
        """Give the expected calibration error of the predictions (Guo et al., ICML 2017).

        Returns
        -------
        float or None
            Mean distance, from 0 to 1, of confidence and accuracy over 15 equal bins of confidence, each weighing
            as its samples; None without a sample.
        """
        if not len(self.labels):
            return None
        confidence = self.confidence.double().numpy()
        bins = _bins_of(confidence)
        distance = np.bincount(bins, weights=confidence - self.right.numpy(), minlength=CONFIDENCE_BINS)
        return math.fsum(np.abs(distance)) / len(bins)


def _bins_of(confidence: NDArray[np.float64]) -> NDArray[np.int64]:
    """Give each sample's bin, from 0; a bin has its upper end."""
    bins = np.ceil(confidence * CONFIDENCE_BINS).astype(np.int64) - 1
    return bins.clip(0, CONFIDENCE_BINS - 1)
