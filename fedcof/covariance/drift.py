"""Drift: how far the means of clients that are gone have moved with the features, as the other clients measure.

After Magistri et al., "Elastic Feature Consolidation" (ICLR 2024) and EFC++ (arXiv 2503.10439), whose old classes
are here the rows of clients that no longer answer. A mean mu moves by the average of what samples near it moved,

    mu + sum_j w_j (new_j - old_j) / sum_j w_j        w_j = exp(-s_j / (2 sigma^2))

where s_j is (old_j - mu)^T E (old_j - mu), scaled so that over the whole table of all means and all samples the
least is 0 and the largest 1: as their published code does it, the distances are scaled and not the weights. E is
the empirical feature matrix of a linear head with softmax: only what moves its scores counts as distance.

All of it is sums over samples, or the least and largest of them: clients can make it in three rounds of numbers
(:func:`score_curvature`; :func:`distances`, of which the ends; :func:`measured_drift`), and no sample is sent.

What a run does asks for nothing more than it has: :func:`class_moves`, the average of what the means of each class
moved by, which took off as much of the error of old rows where both were measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fedcof.covariance.blocks import class_sums
from fedcof.errors import UserError
from fedcof.statistics.class_means import ClassMeanRows

SIGMA = 0.2


@dataclass(frozen=True, eq=False)
class Drift:
    """What samples say of how far each of some means has moved; what several clients say adds up.

    Attributes
    ----------
    moves : Tensor of shape (M, d), float64
        For each mean the weighted sum of what samples moved by.
    weights : Tensor of shape (M,), float64
        The sum of the weights.
    """

    moves: Tensor
    weights: Tensor

    def __add__(self, other: Drift) -> Drift:
        return Drift(self.moves + other.moves, self.weights + other.weights)

    def applied_to(self, means: Tensor) -> Tensor:
        """Move means.

        Parameters
        ----------
        means : Tensor of shape (M, d), floating point
            Those that it was measured for.

        Returns
        -------
        Tensor of shape (M, d), of the means' type
            Where they are now; unmoved where no sample says anything.
        """
        known = self.weights > 0
        average = self.moves / torch.where(known, self.weights, 1.0)[:, None]
        return (means.double() + average).to(means.dtype)


def score_curvature(features: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Sum the curvature of the cross-entropy in the scores over samples.

    Parameters
    ----------
    features : Tensor of shape (n, d), floating point
        Old features.
    weight : Tensor of shape (C, d), floating point
        Of the head, whose scores are in nats.
    bias : Tensor of shape (C,), floating point
        Of the head.

    Returns
    -------
    Tensor of shape (C, C), float64
        sum_j (diag p_j - p_j p_j^T), with p_j the softmax of a sample's scores. Those of several clients add up.
    """
    shares = (features.double() @ weight.double().T + bias.double()).softmax(dim=1)
    return shares.sum(dim=0).diag() - shares.T @ shares


def feature_matrix(curvature: Tensor, num_samples: int, weight: Tensor) -> Tensor:
    """Give the empirical feature matrix of a head.

    Parameters
    ----------
    curvature : Tensor of shape (C, C)
        Of all samples, see :func:`score_curvature`.
    num_samples : int
        How many these are.
    weight : Tensor of shape (C, d)
        Of the head.

    Returns
    -------
    Tensor of shape (d, d), float64
        E = W^T mean_j (diag p_j - p_j p_j^T) W, positive semidefinite.

    Raises
    ------
    UserError
        If there is no sample.
    """
    if num_samples < 1:
        raise UserError("There is no sample to measure drift by: keep some clients that hold samples.")
    return weight.double().T @ (curvature / num_samples) @ weight.double()


def distances(means: Tensor, old: Tensor, matrix: Tensor) -> Tensor:
    """Measure how far samples are from means, as the head sees it.

    Parameters
    ----------
    means : Tensor of shape (M, d), floating point
        Old means.
    old : Tensor of shape (n, d), floating point
        Old features.
    matrix : Tensor of shape (d, d)
        See :func:`feature_matrix`.

    Returns
    -------
    Tensor of shape (M, n), float64
        (old_j - mu_i)^T E (old_j - mu_i).
    """
    # Around one point, so that what both have in common does not cancel.
    centre = means.double().mean(dim=0)
    rows, samples = means.double() - centre, old.double() - centre
    squares = [((part @ matrix) * part).sum(dim=1) for part in (rows, samples)]
    found = squares[0][:, None] + squares[1][None, :] - 2 * rows @ matrix @ samples.T
    return found.clamp(min=0.0)


def measured_drift(
    means: Tensor,
    old: Tensor,
    new: Tensor,
    matrix: Tensor,
    ends: tuple[float, float],
    sigma: float = SIGMA,
) -> Drift:
    """Measure on some samples how far means have moved.

    Parameters
    ----------
    means : Tensor of shape (M, d), floating point
        Old means.
    old, new : Tensor of shape (n, d), floating point
        The same samples' features before and after.
    matrix : Tensor of shape (d, d)
        See :func:`feature_matrix`.
    ends : tuple of float
        The least and the largest of :func:`distances` of these means to all clients' samples.
    sigma : float
        How far a sample's say reaches, where the largest distance of the table is 1.

    Returns
    -------
    Drift
        To be added to the other clients'.
    """
    least, largest = ends
    scaled = distances(means, old, matrix) - least
    if largest > least:
        scaled = scaled / (largest - least)
    weights = torch.exp(-scaled / (2 * sigma**2))
    return Drift(weights @ (new.double() - old.double()), weights.sum(dim=1))


def class_moves(before: Sequence[ClassMeanRows], after: Sequence[ClassMeanRows], num_classes: int) -> Tensor:
    """Average how far the means of each class have moved, over clients that measured it twice.

    Parameters
    ----------
    before, after : sequence of ClassMeanRows
        The same clients' rows, of d numbers, of the old and of the new features, in the same order; one client at
        least has any.
    num_classes : int
        Number of classes C.

    Returns
    -------
    Tensor of shape (C, d), float64
        sum_k n_kc (new_kc - old_kc) / sum_k n_kc over the clients k that sent both, n_kc their samples before; for
        a class that nobody sent twice the average over all classes, 0 if there is none.
    """
    dim = next(rows.means.shape[1] for rows in before if rows.num_rows)
    moves = torch.zeros(num_classes, dim, dtype=torch.float64)
    samples = torch.zeros(num_classes, dtype=torch.float64)
    for old, new in zip(before, after, strict=True):
        if not old.num_rows or not new.num_rows:
            continue
        (old_sums, old_counts), (new_sums, new_counts) = _sums(old, num_classes), _sums(new, num_classes)
        shared = (old_counts > 0) & (new_counts > 0)
        counts = old_counts[shared]
        old_means, new_means = old_sums[shared] / counts[:, None], new_sums[shared] / new_counts[shared][:, None]
        moves[shared] += counts[:, None] * (new_means - old_means)
        samples[shared] += counts
    everywhere = moves.sum(dim=0) / samples.sum().clamp(min=1)
    return torch.where(samples[:, None] > 0, moves / samples.clamp(min=1)[:, None], everywhere)


def _sums(rows: ClassMeanRows, num_classes: int) -> tuple[Tensor, Tensor]:
    """Sum a client's samples by class, and count them: shapes (C, d) and (C,), float64."""
    counts = torch.bincount(rows.class_ids, rows.counts.double(), minlength=num_classes)
    return class_sums(rows.means.double(), rows.class_ids, rows.counts, num_classes), counts
