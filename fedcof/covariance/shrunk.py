"""The finished within-class scatter: weighed, shrunk, and without the noise that is known."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from fedcof.covariance.backbone_scores import BackboneScores
from fedcof.covariance.choices import POOLED
from fedcof.covariance.estimators import class_weights_of
from fedcof.covariance.label_correlation import label_correlation
from fedcof.covariance.scatter import ScatterSum
from fedcof.covariance.shrinkage import ChosenShrinkage, Evidence, chosen_shrinkage
from fedcof.covariance.totals import ClassTotals
from fedcof.covariance.unseen import is_unseen, scatter_of_sphere

MOST_HALVINGS = 8


@dataclass(frozen=True, eq=False)
class ShrunkScatter:
    """A finished within-class scatter, and what was seen of it on the way.

    Attributes
    ----------
    scatter : Tensor of shape (d, d), float64
        The scatter W, symmetric.
    amount : float
        How much it was shrunk: gamma as given, or the estimated delta, from 0 to 1; 1 where the rows are too few
        for an estimate, see :mod:`fedcof.covariance.unseen`.
    look : callable
        Gives what the statistics say of the features.
    """

    scatter: Tensor
    amount: float
    look: Callable[[], BackboneScores] = BackboneScores

    @cached_property
    def scores(self) -> BackboneScores:
        """What the statistics say of the features, computed when somebody asks: a solve does not wait for it."""
        return self.look()


def shrunk_scatter(scatter_sum: ScatterSum, estimator: str, shrinkage: float | str) -> ShrunkScatter:
    """Finish the within-class scatter: weigh it, shrink it and take known noise off.

    Parameters
    ----------
    scatter_sum : ScatterSum
        All rows, weighted by class for ``per-class`` and ``paper`` and unweighted for ``pooled``. For
        ``ledoit-wolf`` it must have been centred on the class means.
    estimator : {"per-class", "pooled", "paper"}
        How the classes' scatter is put together. ``paper`` is the paper's, W = sum_c (N_c - 1)(S_c + gamma I)
        (arXiv 2412.14326), in which a class with one row has gamma alone. ``per-class`` takes the mean of the S_c
        weighted by N_c - 1, over the classes that have two rows, for all. ``pooled`` takes one covariance of all
        rows, so that classes with many rows speak for those with few.
    shrinkage : float or {"leave-one-out", "ledoit-wolf", "oas"}
        Gamma, in squared feature units; or an estimator of the amount from the rows themselves.

    Returns
    -------
    ShrunkScatter
        Its amount is 1 where the rows are too few for an estimate.
    """
    totals = scatter_sum.totals()
    if is_unseen(totals, shrinkage):
        return ShrunkScatter(scatter_of_sphere(totals), 1.0)
    class_weights = class_weights_of(totals, estimator)
    scale = float(class_weights[0]) if estimator == POOLED else 1.0
    scatter = scatter_sum.scatter().mul_(scale)
    noise = scatter_sum.noise_on_diagonal(class_weights)
    if isinstance(shrinkage, str):
        fourth_moment = scatter_sum.fourth_moment * scale**2
        evidence = _evidence(totals, class_weights, fourth_moment, scatter_sum.exact)
        correlation = label_correlation(scatter, totals, noise)
        chosen = _shrink(scatter, float(class_weights @ totals.row_degrees_of_freedom), evidence, shrinkage)
        likelihood = _without_units(chosen.log_likelihood, scatter, totals)
        if noise > 0:
            _subtract_noise(scatter, noise)

        def look() -> BackboneScores:
            return BackboneScores(correlation, likelihood, class_information(scatter, totals))

        return ShrunkScatter(scatter, chosen.amount, look)
    added = shrinkage * float(totals.sample_degrees_of_freedom.sum())
    scatter.diagonal().add_(added)
    if noise > 0:
        added -= _subtract_noise(scatter, noise)

    def look_at_own() -> BackboneScores:
        own = scatter.clone()
        own.diagonal().sub_(added)
        return BackboneScores(
            label_correlation(own, totals, noise), class_information=class_information(scatter, totals)
        )

    return ShrunkScatter(scatter, shrinkage, look_at_own)


def class_information(scatter: Tensor, totals: ClassTotals) -> float | None:
    r"""Compute how much a sample's class says of its features, were all normal.

    With the covariance S within classes and B between them it is :math:`\frac12 \log\det(I + S^{-1} B)`, which is
    :math:`-\frac12 \log` of Wilks' lambda.

    Parameters
    ----------
    scatter : Tensor of shape (d, d), float64
        Within-class scatter W, shrunk; only read.
    totals : ClassTotals
        Class counts and means.

    Returns
    -------
    float or None
        Nats a sample, at least 0; None where the scatter has no inverse.
    """
    factor, failed = torch.linalg.cholesky_ex(scatter)
    if int(failed):
        return None
    degrees = float(totals.sample_degrees_of_freedom.sum())
    weights = (totals.counts * degrees / totals.num_samples).sqrt()[:, None]
    shifts = weights * (totals.means - totals.global_mean)
    whitened = torch.linalg.solve_triangular(factor, shifts.T, upper=False)
    products = whitened @ whitened.T if len(whitened) < whitened.shape[1] else whitened.T @ whitened
    products.diagonal().add_(1)
    return float(torch.linalg.cholesky(products).diagonal().log().sum())


def noise_to_subtract(smallest_eigenvalue: float, amount: float) -> float:
    """As :func:`_subtract_noise`, where the smallest eigenvalue is known."""
    for _ in range(MOST_HALVINGS):
        if smallest_eigenvalue > 2 * amount:
            return amount
        amount /= 2
    return 0.0


def _evidence(totals: ClassTotals, class_weights: Tensor, fourth_moment: float, exact: bool) -> Evidence:
    """Put together what an estimator of the amount asks of the rows."""
    row_degrees = totals.row_degrees_of_freedom
    total_weight = float(class_weights @ row_degrees)
    return Evidence(
        degrees=float(row_degrees.sum()),
        effective_degrees=total_weight**2 / float(class_weights.square() @ row_degrees),
        fourth_moment=fourth_moment / total_weight**2,
        exact=exact,
    )


def _shrink(scatter: Tensor, total_weight: float, evidence: Evidence, shrinkage: str) -> ChosenShrinkage:
    """Shrink by an estimated amount, in place, and tell how much it is."""
    # Classes with one row have no part in the scatter.
    chosen = chosen_shrinkage(scatter / total_weight, evidence, shrinkage)
    mean_eigenvalue = float(scatter.diagonal().mean())
    scatter.mul_(1 - chosen.amount).diagonal().add_(chosen.amount * mean_eigenvalue)
    return chosen


def _without_units(log_likelihood: float | None, scatter: Tensor, totals: ClassTotals) -> float | None:
    """Scale a log-likelihood to features of which the mean variance of a dimension over all samples is 1."""
    if log_likelihood is None:
        return None
    between = float(totals.counts @ (totals.means - totals.global_mean).square().sum(dim=1))
    variance = (float(scatter.trace()) + between) / (totals.num_samples * len(scatter))
    return log_likelihood + math.log(variance) / 2


def _subtract_noise(scatter: Tensor, amount: float) -> float:
    """Take known noise off the diagonal, in place, or what of it leaves half of every eigenvalue; tell how much.

    Noise that is not small against the spectrum does less harm where it is, as shrinkage, than taken away.
    """
    identity = torch.eye(len(scatter), dtype=scatter.dtype, device=scatter.device)
    for _ in range(MOST_HALVINGS):
        if not int(torch.linalg.cholesky_ex(scatter - 2 * amount * identity).info):
            scatter.diagonal().sub_(amount)
            return amount
        amount /= 2
    return 0.0
