r"""How much a covariance is shrunk towards the sphere of its own trace: by a number, or estimated from its rows.

:math:`\Sigma_\delta = (1 - \delta) S + \delta\,\mathrm{tr}(S)/d\; I`. Ledoit and Wolf (2004) and OAS (Chen et al.,
2010) choose the :math:`\delta` whose :math:`\Sigma_\delta` is nearest to the true covariance. A classifier needs
the inverse, which errors in small eigenvalues spoil, so ``leave-one-out`` chooses the one under which each row is
likeliest given the others (Hoffbeck and Landgrebe, 1996).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from logging import getLogger

import torch
from torch import Tensor

from fedcof.covariance.choices import LEAVE_ONE_OUT, OAS

# What leave-one-out tries: from an amount of 6e-6 to as little short of 1, its odds 6 per cent apart; and, for
# features some of which are far narrower than others, as many again down to 2e-16, where float64 ends.
LARGEST_LOG_ODDS, NUM_AMOUNTS = 12.0, 400
SMALLEST_LOG_ODDS = -3 * LARGEST_LOG_ODDS

_logger = getLogger(__name__)


@dataclass(frozen=True)
class Evidence:
    """What the rows say about their covariance, beside the covariance itself.

    Attributes
    ----------
    degrees : float
        Degrees of freedom, sum_c (K_c - 1), at least 2.
    effective_degrees : float
        Those of as many rows of equal weight as tell as much.
    fourth_moment : float
        Sum over rows of the squared norm of what a row adds to the covariance, each divided by the 1 - n_r / N_c
        that its distance to its own class mean falls short by; for ``ledoit-wolf``.
    exact : bool
        Whether the covariance was summed in float64. In float32 its errors are as large as the eigenvalues that
        would tell leave-one-out of an amount below 6e-6.
    """

    degrees: float
    effective_degrees: float
    fourth_moment: float
    exact: bool = True


@dataclass(frozen=True)
class ChosenShrinkage:
    """An amount of shrinkage, and what it makes of the rows.

    Attributes
    ----------
    amount : float
        Delta, from 0 to 1.
    log_likelihood : float or None
        Mean natural logarithm of the density of a row given the others, over the number of dimensions that say
        anything; with another unit of the features it is another number. None where another estimator has chosen,
        or there is no such number.
    """

    amount: float
    log_likelihood: float | None = None


def chosen_shrinkage(covariance: Tensor, evidence: Evidence, shrinkage: str) -> ChosenShrinkage:
    """Estimate the amount of shrinkage.

    Parameters
    ----------
    covariance : Tensor of shape (d, d), float64
        Estimate of the covariance, in squared feature units.
    evidence : Evidence
        What its rows say.
    shrinkage : {"leave-one-out", "ledoit-wolf", "oas"}
        Which estimator.

    Returns
    -------
    ChosenShrinkage
        With the likelihood for ``leave-one-out``.
    """
    norms = _Norms.of(covariance)
    if norms.squared_distance_to_sphere == 0.0:
        return ChosenShrinkage(1.0)
    if shrinkage == LEAVE_ONE_OUT:
        return _leave_one_out(torch.linalg.eigvalsh(covariance).clamp_(min=0), evidence)
    if shrinkage == OAS:
        return ChosenShrinkage(_oas(norms, evidence.effective_degrees))
    return ChosenShrinkage(_ledoit_wolf(norms, evidence.effective_degrees, evidence.fourth_moment))


@dataclass(frozen=True)
class _Norms:
    """The two traces of a covariance that the formulas need."""

    dim: int
    squared_norm: float
    mean_eigenvalue: float

    @staticmethod
    def of(covariance: Tensor) -> _Norms:
        return _Norms(
            dim=len(covariance),
            squared_norm=float(covariance.square().sum()),
            mean_eigenvalue=float(covariance.diagonal().mean()),
        )

    @property
    def squared_distance_to_sphere(self) -> float:
        """Squared Frobenius distance to the multiple of the identity with the same trace."""
        return max(self.squared_norm - self.dim * self.mean_eigenvalue**2, 0.0)


def _leave_one_out(eigenvalues: Tensor, evidence: Evidence) -> ChosenShrinkage:
    """Amount under which rows are likeliest given the others, with all distances at their mean (Theiler, 2012).

    Without row x the estimate is G - b x x^T with b = (1 - delta) / D, so that the row's share of the negative
    log-likelihood is, twice and with h = x^T G^-1 x, log det G + log(1 - b h) + h / (1 - b h). The mean of h over
    rows is tr(G^-1 S), for which eigenvalues suffice.
    """
    amounts, degrees = amounts_to_try(evidence.exact), evidence.degrees
    mean = eigenvalues.mean()
    eigenvalues = _with_evidence(eigenvalues, degrees)
    shrunk = (1 - amounts[:, None]) * eigenvalues + amounts[:, None] * mean
    distance = (eigenvalues / shrunk).sum(dim=1)
    remaining = 1 - (1 - amounts) / degrees * distance
    loss = shrunk.log().sum(dim=1) + remaining.log() + distance / remaining
    # A row that is all there is in some direction is infinitely unlikely given the others.
    loss = torch.where(remaining > 0, loss, torch.inf).nan_to_num(nan=torch.inf)
    # Of equal losses the first is taken, and so one of the usual amounts.
    best = int(loss.argmin())
    likelihood = -(float(loss[best]) / len(eigenvalues) + math.log(2 * math.pi)) / 2
    return ChosenShrinkage(float(amounts[best]), likelihood if math.isfinite(likelihood) else None)


def amounts_to_try(exact: bool) -> Tensor:
    """List the amounts that leave-one-out tries.

    Parameters
    ----------
    exact : bool
        Whether the covariance was summed in float64.

    Returns
    -------
    Tensor of shape (n,), float64
        The usual ones in ascending order, and after them, where the covariance is exact, ever smaller ones.
    """
    usual = torch.linspace(-LARGEST_LOG_ODDS, LARGEST_LOG_ODDS, NUM_AMOUNTS, dtype=torch.float64)
    if not exact:
        return usual.sigmoid()
    spacing = 2 * LARGEST_LOG_ODDS / (NUM_AMOUNTS - 1)
    further = torch.arange(1, int((-LARGEST_LOG_ODDS - SMALLEST_LOG_ODDS) / spacing) + 1, dtype=torch.float64)
    return torch.cat([usual.sigmoid(), (-LARGEST_LOG_ODDS - spacing * further).sigmoid()])


def is_at_edge(shrinkage: float | str, amount: float, exact: bool) -> bool:
    """Tell whether an amount is the least that leave-one-out tries, so that a smaller one may be better.

    The other end of what it tries is the sphere itself, beyond which there is nothing.
    """
    return shrinkage == LEAVE_ONE_OUT and amount <= float(amounts_to_try(exact).min())


def warn_at_edge(amount: float) -> None:
    """Say that leave-one-out has ended at the least that it tries.

    As a log record and not as one of Python's warnings, which are shown once a process: of several runs in one
    process each is to say it, and what a server logs reaches the terminal.
    """
    _logger.warning(
        "Leave-one-out has chosen %.0e, the least shrinkage that it tries, and less may be better: scale the "
        "features to similar widths, or give the shrinkage as a number.",
        amount,
    )


def _with_evidence(eigenvalues: Tensor, degrees: float) -> Tensor:
    """Leave out directions in which no row differs from another although there are rows enough to fill all.

    There every row is the likelier the less is shrunk, without a bound, and so they say nothing.
    """
    seen = eigenvalues > eigenvalues.max() * len(eigenvalues) * torch.finfo(eigenvalues.dtype).eps
    return eigenvalues[seen] if int(seen.sum()) < min(degrees, len(eigenvalues)) else eigenvalues


def _ledoit_wolf(norms: _Norms, degrees: float, sum_of_fourth_powers: float) -> float:
    """Amount of shrinkage by Ledoit and Wolf (2004), Lemma 3.1 to 3.4; the rows stand for the samples."""
    error = sum_of_fourth_powers - norms.squared_norm / degrees
    return min(max(error / norms.squared_distance_to_sphere, 0.0), 1.0)


def _oas(norms: _Norms, degrees: float) -> float:
    """Amount of shrinkage by Chen et al. (2010), Equation 23, for real data as in scikit-learn."""
    trace_squared = (norms.dim * norms.mean_eigenvalue) ** 2
    numerator = norms.squared_norm + trace_squared
    return min(numerator / ((degrees + 1) * norms.squared_distance_to_sphere), 1.0)
