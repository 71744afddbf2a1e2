"""Class means of which the server lets some count for fewer samples, or more, than their client has said."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fedcof.statistics.class_means import ClassMeanRows


@dataclass(frozen=True, eq=False)
class ReweightedRows(ClassMeanRows):
    """Rows of an upload with effective counts in the place of its own.

    Parameters
    ----------
    class_ids : Tensor of shape (R,), int64
        Class of each row.
    counts : Tensor of shape (R,), float64
        Effective number of samples behind each row, above 0: the row is taken for a mean of so many.
    upload : ClassMeanRows
        What was sent, from which the means are read.
    """

    upload: ClassMeanRows

    @staticmethod
    def of(upload: ClassMeanRows, counts: Tensor) -> ReweightedRows:
        """Give an upload other counts (R,); of one that has been given some, those are replaced."""
        own = upload.upload if isinstance(upload, ReweightedRows) else upload
        return ReweightedRows(upload.class_ids, counts.to(torch.float64), own)

    @property
    def feature_dim(self) -> int:
        """Dimension d of the feature vectors."""
        return self.upload.feature_dim

    @property
    def dtype(self) -> torch.dtype:
        """Type of the decoded means."""
        return self.upload.dtype

    @property
    def means(self) -> Tensor:
        """All means, decoded: shape (R, d)."""
        return self.upload.means

    @property
    def noise(self) -> Tensor | None:
        """Variance of known noise in every coordinate of each row; None where there is none."""
        return self.upload.noise

    def rows(self, block: slice) -> Tensor:
        """Decode the means of some rows; see :meth:`ClassMeanRows.rows`."""
        return self.upload.rows(block)
