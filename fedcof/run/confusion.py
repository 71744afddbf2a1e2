"""Which classes were taken for which: kept beside a run's classifier, and only the pairs that occur."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from fedcof.files import whole_file

CONFUSION_FILE_NAME = "confusion.npz"


@dataclass(frozen=True, eq=False)
class Confusion:
    """How many test samples of each class were taken for each: pairs, because few of C x C occur where C is large.

    Attributes
    ----------
    true, predicted : ndarray of shape (P,), int64
        Class of the samples, and what they were taken for; each pair once.
    counts : ndarray of shape (P,), int64
        Samples of each pair, at least 1.
    num_classes : int
        Number of classes C.
    """

    true: NDArray[np.int64]
    predicted: NDArray[np.int64]
    counts: NDArray[np.int64]
    num_classes: int

    @staticmethod
    def of(labels: NDArray[Any], predicted: NDArray[Any], num_classes: int) -> Confusion:
        """Count the pairs.

        Parameters
        ----------
        labels, predicted : ndarray of shape (n,), int
            Class of each sample, and what it was taken for.
        num_classes : int
            Number of classes C.

        Returns
        -------
        Confusion
            Of all of them.
        """
        pairs, counts = np.unique(np.int64(num_classes) * labels + predicted, return_counts=True)
        return Confusion(pairs // num_classes, pairs % num_classes, counts.astype(np.int64), num_classes)

    def with_counts_of(self, other: Confusion) -> Confusion:
        """Add the counts of another run of the same classes, of another seed say."""
        pairs = np.concatenate([c.true * self.num_classes + c.predicted for c in (self, other)])
        occurring, places = np.unique(pairs, return_inverse=True)
        counts = np.zeros(len(occurring), dtype=np.int64)
        np.add.at(counts, places, np.concatenate([self.counts, other.counts]))
        return Confusion(occurring // self.num_classes, occurring % self.num_classes, counts, self.num_classes)

    @property
    def samples(self) -> NDArray[np.int64]:
        """Samples of each class: shape (C,)."""
        samples = np.zeros(self.num_classes, dtype=np.int64)
        np.add.at(samples, self.true, self.counts)
        return samples

    def blocks(self, most: int) -> NDArray[np.int64]:
        """Put neighbouring classes together until there are few enough to look at.

        Parameters
        ----------
        most : int
            Most blocks.

        Returns
        -------
        ndarray of shape (B, B), int64
            Samples by the block of their class and of what they were taken for; B is C where that is few enough.
        """
        size = -(-self.num_classes // most)
        blocks = np.zeros((-(-self.num_classes // size),) * 2, dtype=np.int64)
        np.add.at(blocks, (self.true // size, self.predicted // size), self.counts)
        return blocks

    def most_confused(self, most: int) -> list[tuple[int, int, int]]:
        """List the pairs of different classes of most samples.

        Parameters
        ----------
        most : int
            Most pairs.

        Returns
        -------
        list of (int, int, int)
            Class, what its samples were taken for, and how many, the most first.
        """
        wrong = np.flatnonzero(self.true != self.predicted)
        order = wrong[np.argsort(-self.counts[wrong], kind="stable")][:most]
        return [(int(self.true[i]), int(self.predicted[i]), int(self.counts[i])) for i in order]

    def save(self, folder: Path) -> None:
        """Write it into a run's folder, which is there."""
        pairs = np.stack([self.true, self.predicted]).astype(np.int32)
        with whole_file(folder / CONFUSION_FILE_NAME) as unfinished:
            np.savez_compressed(unfinished, pairs=pairs, counts=self.counts, classes=self.num_classes)

    @staticmethod
    def load(folder: Path) -> Confusion | None:
        """Read it from a run's folder; None where there is none that can be used, as of earlier versions."""
        try:
            with np.load(folder / CONFUSION_FILE_NAME) as arrays:
                pairs, counts, classes = arrays["pairs"], arrays["counts"], int(arrays["classes"])
            true, predicted = pairs.astype(np.int64)
            whole = pairs.dtype.kind in "iu" and counts.dtype.kind in "iu"
            fits = counts.shape == true.shape and pairs.size > 0 and pairs.min() >= 0 and pairs.max() < classes
            return Confusion(true, predicted, counts.astype(np.int64), classes) if whole and fits else None
        except (OSError, KeyError, ValueError, TypeError, EOFError, BadZipFile):
            return None
