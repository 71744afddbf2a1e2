"""How the classes' scatter is put together: the weight of each class's rows."""

from __future__ import annotations

import torch
from torch import Tensor

from fedcof.covariance.choices import ESTIMATORS, PER_CLASS, POOLED
from fedcof.covariance.totals import ClassCounts
from fedcof.errors import unknown_name


def class_weights_of(totals: ClassCounts, estimator: str) -> Tensor:
    """Give the weight of each class's rows in W = sum_r weight_c n_r (m_r - mu_c)(m_r - mu_c)^T.

    A class with one row has no scatter to show. ``paper`` counts its samples all the same, as if they had none;
    ``per-class`` takes it to scatter as the other classes do in the mean.

    Parameters
    ----------
    totals : ClassCounts
        Samples N_c and rows K_c of each class.
    estimator : {"per-class", "pooled", "paper"}
        How the classes' scatter is put together.

    Returns
    -------
    Tensor of shape (C,), float64
        ``paper``: (N_c - 1) / (K_c - 1). ``per-class``: the same, times sum (N_c - 1) over all classes, over the
        same sum over classes with two rows. ``pooled``: sum (N_c - 1) / sum (K_c - 1). Zero where K_c is 1.

    Raises
    ------
    UserError
        If there is no such estimator.
    """
    row_degrees = totals.row_degrees_of_freedom
    sample_degrees = totals.sample_degrees_of_freedom
    if estimator == POOLED:
        return torch.full_like(row_degrees, float(sample_degrees.sum() / row_degrees.sum().clamp(min=1)))
    if estimator not in ESTIMATORS:
        raise unknown_name("estimator", estimator, ESTIMATORS)
    weights = torch.where(row_degrees > 0, sample_degrees / row_degrees.clamp(min=1), 0.0)
    if estimator == PER_CLASS:
        # Sums of whole numbers, so the ratio is 1 to the last bit where every class has two rows.
        weights *= sample_degrees.sum() / sample_degrees[row_degrees > 0].sum().clamp(min=1)
    return weights


def row_weights_of(estimator: str, class_weights: Tensor) -> Tensor | None:
    """Weights known before the sum; the one weight of ``pooled`` is put on at its end."""
    return None if estimator == POOLED else class_weights
