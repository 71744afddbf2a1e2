"""How a federation that changes over steps went: accuracy on old and new classes, forgetting, and bytes so far."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class StepResult:
    """What a federation came to after one of its steps. Accuracies are on the test split, from 0 to 1.

    Attributes
    ----------
    step : int
        Number of the step, from 1.
    clients : int
        Clients whose rows are in the classifier.
    uploads : int
        Uploads that were taken in at this step.
    left : int
        Clients that are gone since the step before, with what they sent.
    classes, new_classes : int
        Classes of which somebody has sent a row until now, and those of them of which nobody had before.
    accuracy, old_accuracy, new_accuracy : float or None
        On all of these classes, and on the old and the new ones apart, each sample being classified among all
        classes that are in the classifier; None where there is no test sample of them.
    average_accuracy : float or None
        Average incremental accuracy: the mean of ``accuracy`` over the steps until now (Rebuffi et al., iCaRL,
        arXiv 1611.07725).
    forgetting : float or None
        By how much the accuracy on an old class is below its highest after an earlier step, as the mean over the
        old classes (Chaudhry et al., arXiv 1801.10112, section 3); below 0 where they have become better.
    uplink_bytes, downlink_bytes : int
        Bytes of all messages so far.
    """

    step: int
    clients: int
    uploads: int
    left: int
    classes: int
    new_classes: int
    accuracy: float | None
    old_accuracy: float | None
    new_accuracy: float | None
    average_accuracy: float | None
    forgetting: float | None
    uplink_bytes: int
    downlink_bytes: int


@dataclass(frozen=True)
class Turnover:
    """Who came and went at a step, and what that cost so far; see :class:`StepResult`."""

    clients: int
    uploads: int
    left: int
    uplink_bytes: int
    downlink_bytes: int


class StepCourse:
    """Accuracies over steps, put together as they come.

    Parameters
    ----------
    labels : ndarray of shape (n,), int64
        Class of each test sample.
    num_classes : int
        Number of classes C.

    Attributes
    ----------
    results : list of StepResult
        The steps so far.
    """

    def __init__(self, labels: NDArray[np.int64], num_classes: int) -> None:
        self.results: list[StepResult] = []
        self._labels = labels
        self._sizes = np.bincount(labels, minlength=num_classes)
        self._seen = np.zeros(num_classes, bool)
        # Below any accuracy, for classes that were not seen yet.
        self._highest = np.full(num_classes, -np.inf)

    def add(self, right: NDArray[np.bool_], present: NDArray[np.bool_], turnover: Turnover) -> StepResult:
        """Add a step.

        Parameters
        ----------
        right : ndarray of shape (n,), bool
            Which test samples are classified rightly.
        present : ndarray of shape (C,), bool
            Classes that are in the classifier.
        turnover : Turnover
            Who came and went.

        Returns
        -------
        StepResult
            Also found at the end of ``results``.
        """
        hits = np.bincount(self._labels[right], minlength=len(self._sizes))
        old, new = self._seen.copy(), present & ~self._seen
        self._seen |= present
        accuracy = self._accuracy(hits, self._seen)
        known = [one.accuracy for one in self.results if one.accuracy is not None]
        known += [] if accuracy is None else [accuracy]
        by_class = hits / np.maximum(self._sizes, 1)
        compared = old & (self._sizes > 0)
        forgotten = self._highest[compared] - by_class[compared]
        result = StepResult(
            step=len(self.results) + 1,
            clients=turnover.clients,
            uploads=turnover.uploads,
            left=turnover.left,
            classes=int(self._seen.sum()),
            new_classes=int(new.sum()),
            accuracy=accuracy,
            old_accuracy=self._accuracy(hits, old),
            new_accuracy=self._accuracy(hits, new),
            average_accuracy=float(np.mean(known)) if known else None,
            forgetting=float(forgotten.mean()) if len(forgotten) else None,
            uplink_bytes=turnover.uplink_bytes,
            downlink_bytes=turnover.downlink_bytes,
        )
        self._highest = np.where(self._seen, np.maximum(self._highest, by_class), self._highest)
        self.results.append(result)
        return result

    def _accuracy(self, hits: NDArray[np.int64], classes: NDArray[np.bool_]) -> float | None:
        samples = int(self._sizes[classes].sum())
        return float(hits[classes].sum() / samples) if samples else None
