"""Feature moments: class sums and the Gram matrix of all features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from fedcof.statistics.base import Statistics
from fedcof.statistics.inputs import (
    Numbers,
    as_samples,
    as_tensor,
    as_whole_numbers,
    in_float64,
    on_cpu,
    type_to_keep,
)
from fedcof.statistics.kinds import GRAM
from fedcof.statistics.validation import check_classes, check_vectors, require


@dataclass(frozen=True, eq=False)
class FeatureMoments(Statistics):
    """The second-order statistics of one client (Fed3R, ICML 2024): class sums and the Gram matrix.

    Arrays and lists are taken for tensors, and all are brought to the CPU.

    Parameters
    ----------
    class_ids : Tensor of shape (R,), int64
        Classes that the client holds, counted from 0, each once.
    counts : Tensor of shape (R,), int64
        Number of samples of each, at least 1.
    sums : Tensor of shape (R, d), floating point
        Sum of the feature vectors of each class.
    gram : Tensor of shape (d (d + 1) / 2,), floating point
        Upper triangle, row by row, of the Gram matrix F^T F of all the client's feature vectors.

    Raises
    ------
    UserError
        If a field has the wrong shape or type or holds what it cannot. The message names the field.
    """

    KIND: ClassVar[str] = GRAM
    VECTORS: ClassVar[str] = "sums"
    MIXES_CLASSES: ClassVar[bool] = True

    sums: Tensor
    gram: Tensor

    def __post_init__(self) -> None:
        for field in ("class_ids", "counts"):
            object.__setattr__(self, field, as_whole_numbers(getattr(self, field), field))
        for field in ("sums", "gram"):
            object.__setattr__(self, field, on_cpu(as_tensor(getattr(self, field), field)))
        check_classes(self.class_ids, self.counts)
        check_vectors("sums", self.sums, len(self.class_ids))
        require(self.gram.is_floating_point(), "gram", "a floating-point type", self.gram.dtype)
        entries = self.feature_dim * (self.feature_dim + 1) // 2
        require(self.gram.shape == (entries,), "gram", f"{entries} entries", self.gram.shape)
        require(bool(self.gram.isfinite().all()), "gram", "finite numbers", "NaN or infinity")

    @property
    def feature_dim(self) -> int:
        """Dimension d of the feature vectors."""
        return self.sums.shape[1]

    def withhold(self, smallest_count: int) -> tuple[FeatureMoments, int]:
        """Leave out the sums of classes of few samples; see :meth:`Statistics.withhold`.

        The Gram matrix stays whole, which is why their samples have to be left out before it is measured.
        """
        enough = self.counts >= smallest_count
        kept = FeatureMoments(self.class_ids[enough], self.counts[enough], self.sums[enough], self.gram)
        return kept, int((~enough).sum())

    def sum_of_squares(self) -> float:
        """Trace of the Gram matrix; see :meth:`Statistics.sum_of_squares`."""
        ends = torch.arange(self.feature_dim, 0, -1).cumsum(0)
        starts = torch.cat([torch.zeros(1, dtype=torch.int64), ends[:-1]])
        return float(self.gram[starts].to(torch.float64).sum())


def feature_moments(features: Numbers, labels: Numbers) -> FeatureMoments:
    """Compute a client's class sums and Gram matrix (Fed3R, Fani et al., ICML 2024).

    Parameters
    ----------
    features : Tensor, ndarray or sequence of shape (n, d)
        Feature vectors of the client's samples.
    labels : Tensor, ndarray or sequence of shape (n,)
        Class of each sample, counted from 0; whole numbers of any type.

    Returns
    -------
    FeatureMoments
        Summed in float64 on the features' device; on the CPU in float32, or in float64 for float64 features.

    Raises
    ------
    UserError
        If the shapes do not belong together, a label is no whole number from 0, or a feature is not finite.
    """
    features, labels = as_samples(features, labels)
    exact, kept = in_float64(features), type_to_keep(features)
    class_ids, row_of_sample, counts = torch.unique(labels, return_inverse=True, return_counts=True)
    sums = torch.zeros(len(class_ids), exact.shape[1], dtype=torch.float64, device=exact.device)
    sums.index_add_(0, row_of_sample.to(exact.device), exact)
    rows, columns = torch.triu_indices(exact.shape[1], exact.shape[1])
    gram = (exact.T @ exact).cpu()[rows, columns]
    return FeatureMoments(class_ids, counts, sums.to(kept), gram.to(kept))
