"""How the classes' scatter is put together: the weight of each class's rows."""

from __future__ import annotations

import torch
from torch import Tensor

from fedcof.covariance.choices import ESTIMATORS
from fedcof.covariance.totals import ClassCounts
from fedcof.errors import unknown_name


def class_weights_of(totals: ClassCounts, estimator: str) -> Tensor:
    """Weight of the rows of each class, shape (C,): W = sum_r weight_c n_r (m_r - mu_c)(m_r - mu_c)^T."""
    row_degrees = totals.row_degrees_of_freedom
    sample_degrees = totals.sample_degrees_of_freedom
    if estimator == "per-class":
        return torch.where(row_degrees > 0, sample_degrees / row_degrees.clamp(min=1), 0.0)
    if estimator == "pooled":
        return torch.full_like(row_degrees, float(sample_degrees.sum() / row_degrees.sum().clamp(min=1)))
    raise unknown_name("estimator", estimator, ESTIMATORS)


def row_weights_of(estimator: str, class_weights: Tensor) -> Tensor | None:
    """Weights known before the sum; the one weight of ``pooled`` is put on at its end."""
    return None if estimator == "pooled" else class_weights
