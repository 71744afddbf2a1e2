"""What the rows of each class add up to: counts, numbers of rows, means."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fedcof.covariance.blocks import as_sequence, class_sums, classes_of_block, decode_block, row_blocks
from fedcof.statistics.class_means import ClassMeanRows


@dataclass(frozen=True, eq=False)
class ClassCounts:
    """How many samples and rows each class has.

    Attributes
    ----------
    counts : Tensor of shape (C,), float64
        Number of samples N_c; zero for a class that nobody has.
    rows : Tensor of shape (C,), float64
        Number of rows K_c.
    """

    counts: Tensor
    rows: Tensor

    @property
    def present(self) -> Tensor:
        """Which classes somebody has: shape (C,), bool."""
        return self.counts > 0

    @property
    def num_samples(self) -> float:
        """Number of samples N of all classes."""
        return float(self.counts.sum())

    @property
    def sample_degrees_of_freedom(self) -> Tensor:
        """N_c - 1, and zero for a class that nobody has: shape (C,), float64."""
        return (self.counts - 1).clamp(min=0)

    @property
    def row_degrees_of_freedom(self) -> Tensor:
        """K_c - 1, and zero for a class that nobody has: shape (C,), float64."""
        return (self.rows - 1).clamp(min=0)


@dataclass(frozen=True, eq=False)
class ClassTotals(ClassCounts):
    """What all rows of each class add up to.

    Attributes
    ----------
    means : Tensor of shape (C, d), float64
        Class means mu_c; zero for a class that nobody has.
    """

    means: Tensor

    @property
    def global_mean(self) -> Tensor:
        """Mean mu of all samples: shape (d,), float64."""
        return self.counts @ self.means / self.counts.sum()


def class_totals(uploads: ClassMeanRows | Sequence[ClassMeanRows], num_classes: int) -> ClassTotals:
    """Add the rows of each class up.

    Parameters
    ----------
    uploads : ClassMeans or EncodedClassMeans, or a sequence of them
        All rows, R of them.
    num_classes : int
        Number of classes C.

    Returns
    -------
    ClassTotals
        Counts, means and numbers of rows per class.
    """
    uploads = as_sequence(uploads)
    totals = class_counts(uploads, num_classes)
    sums = torch.zeros(num_classes, uploads[0].feature_dim, dtype=torch.float64)
    buffers: dict[torch.dtype, Tensor] = {}
    for block in row_blocks(uploads):
        sums += class_sums(decode_block(block, buffers), *classes_of_block(block), num_classes)
    return ClassTotals(counts=totals.counts, rows=totals.rows, means=sums / totals.counts.clamp(min=1)[:, None])


def class_counts(uploads: Sequence[ClassMeanRows], num_classes: int) -> ClassCounts:
    """Count the samples and rows of each class, without a look at the means.

    Parameters
    ----------
    uploads : sequence of ClassMeans or EncodedClassMeans
        All rows.
    num_classes : int
        Number of classes C.

    Returns
    -------
    ClassCounts
        Samples and rows per class.
    """
    ids = torch.cat([upload.class_ids for upload in uploads])
    counts = torch.cat([upload.counts for upload in uploads]).to(torch.float64)
    return ClassCounts(
        counts=torch.zeros(num_classes, dtype=torch.float64).index_add_(0, ids, counts),
        rows=torch.bincount(ids, minlength=num_classes).to(torch.float64),
    )
