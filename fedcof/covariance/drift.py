"""Drift: how far the means of clients that are gone have moved with the features, as the other clients measure.

After Magistri et al., "Elastic Feature Consolidation" (ICLR 2024) and EFC++ (arXiv 2503.10439), whose old classes
are here the rows of clients that no longer answer. A mean mu moves by the average of what samples near it moved,

    mu + sum_j w_j (new_j - old_j) / sum_j w_j        w_j = exp(-s_j / (2 sigma^2))

where s_j is (old_j - mu)^T E (old_j - mu), scaled so that over the whole table of all means and all samples the
least is 0 and the largest 1: as their published code does it, the distances are scaled and not the weights. E is
the empirical feature matrix of a linear head with softmax: only what moves its scores counts as distance.

All of it is sums over samples, or the least and largest of them: clients can make it in three rounds of numbers
(:func:`score_curvature`; :func:`distances`, of which the ends; :func:`measured_drift`), and no sample is sent.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fedcof.errors import UserError

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
