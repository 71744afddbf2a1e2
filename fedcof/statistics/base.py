"""Rows of class means, in whatever form they are held."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor


class ClassMeanRows(Protocol):
    """Rows of class means, in whatever form they are held; the fields are those of :class:`ClassMeans`."""

    @property
    def class_ids(self) -> Tensor:
        """Class of each row: shape (R,), int64."""

    @property
    def counts(self) -> Tensor:
        """Number of samples behind each row: shape (R,), int64."""

    @property
    def noise(self) -> Tensor | None:
        """Variance of known noise in every coordinate of each row: shape (R,), floating point."""

    @property
    def means(self) -> Tensor:
        """Mean feature vectors, decoded all at once: shape (R, d), floating point."""

    @property
    def dtype(self) -> torch.dtype:
        """Type of the decoded means."""

    @property
    def num_rows(self) -> int:
        """Number of rows R."""

    @property
    def feature_dim(self) -> int:
        """Dimension d of the feature vectors."""

    def rows(self, block: slice) -> Tensor:
        """Decode the means of some rows alone: shape (rows of the block, d)."""

    def check_fits(self, num_classes: int, feature_dim: int) -> None:
        """Check the rows against the problem they are meant for."""
