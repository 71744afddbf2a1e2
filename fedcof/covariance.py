r"""The within-class covariance, rebuilt without bias from how class means scatter between rows.

The mean of n samples of class c has covariance :math:`\Sigma_c / n`. So, for the :math:`K_c` rows of class c,

.. math:: S_c = \frac{1}{K_c - 1} \sum_{r \in c} n_r (m_r - \mu_c)(m_r - \mu_c)^T, \qquad E[S_c] = \Sigma_c

(FedCOF, arXiv 2412.14326). Everything below is one weighted product :math:`X^T X` over rows; no
matrix is ever made per class.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fedcof.errors import UserError, unknown_name
from fedcof.statistics import ClassMeans

ESTIMATORS = ["per-class", "pooled"]
AUTOMATIC_SHRINKAGE = ["ledoit-wolf", "oas"]

ROWS_PER_BLOCK = 4096
MOST_HALVINGS = 8


@dataclass(frozen=True, eq=False)
class ClassTotals:
    """What all rows of each class add up to.

    Attributes
    ----------
    counts : Tensor of shape (C,), float64
        Number of samples N_c; zero for a class that nobody has.
    means : Tensor of shape (C, d), float64
        Class means mu_c; zero for a class that nobody has.
    rows : Tensor of shape (C,), float64
        Number of rows K_c.
    """

    counts: Tensor
    means: Tensor
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
    def global_mean(self) -> Tensor:
        """Mean mu of all samples: shape (d,), float64."""
        return self.counts @ self.means / self.counts.sum()

    @property
    def sample_degrees_of_freedom(self) -> Tensor:
        """N_c - 1, and zero for a class that nobody has: shape (C,), float64."""
        return (self.counts - 1).clamp(min=0)

    @property
    def row_degrees_of_freedom(self) -> Tensor:
        """K_c - 1, and zero for a class that nobody has: shape (C,), float64."""
        return (self.rows - 1).clamp(min=0)


def class_totals(uploads: ClassMeans, num_classes: int) -> ClassTotals:
    """Add the rows of each class up.

    Parameters
    ----------
    uploads : ClassMeans
        All rows, R of them.
    num_classes : int
        Number of classes C.

    Returns
    -------
    ClassTotals
        Counts, means and numbers of rows per class.
    """
    counts = uploads.counts.to(torch.float64)
    totals = torch.zeros(num_classes, dtype=torch.float64).index_add_(0, uploads.class_ids, counts)
    rows = torch.bincount(uploads.class_ids, minlength=num_classes).to(torch.float64)
    sums = torch.zeros(num_classes, uploads.feature_dim, dtype=torch.float64)
    for block in _blocks(uploads.num_rows):
        weighted = uploads.means[block].to(torch.float64) * counts[block, None]
        sums.index_add_(0, uploads.class_ids[block], weighted)
    return ClassTotals(counts=totals, means=sums / totals.clamp(min=1)[:, None], rows=rows)


def within_class_scatter(
    uploads: ClassMeans, totals: ClassTotals, estimator: str = "per-class", shrinkage: float | str = 1.0
) -> Tensor:
    r"""Rebuild the within-class scatter of all samples from class means.

    ``per-class`` is the paper's estimator, :math:`W = \sum_c (N_c - 1)(S_c + \gamma I)` (arXiv 2412.14326);
    ``pooled`` takes one covariance for all classes, so that classes with many rows speak for those
    with few. In both a class with one row adds no scatter of its own.

    Parameters
    ----------
    uploads : ClassMeans
        All rows, R of them.
    totals : ClassTotals
        The same rows added up by :func:`class_totals`.
    estimator : {"per-class", "pooled"}
        How the classes' scatter is put together.
    shrinkage : float or {"ledoit-wolf", "oas"}
        Gamma, in squared feature units; or an estimator of the amount from the rows themselves.

    Returns
    -------
    Tensor of shape (d, d), float64
        The scatter W, symmetric.

    Raises
    ------
    UserError
        If a name is unknown, gamma is negative, or the shrinkage is to be estimated where no class has two rows.
    """
    class_weights = _class_weights(totals, estimator)
    check_shrinkage(shrinkage)
    scatter = torch.zeros(uploads.feature_dim, uploads.feature_dim, dtype=torch.float64)
    fourth_moment = 0.0
    for block in _blocks(uploads.num_rows):
        rows = _weighted_residuals(uploads, totals, class_weights, block)
        scatter.addmm_(rows.T, rows)
        fourth_moment += float(rows.square().sum(dim=1).square().sum())
    _shrink(scatter, totals, shrinkage, class_weights, fourth_moment)
    if uploads.noise is not None:
        _subtract_noise(scatter, _noise_on_diagonal(uploads, totals, class_weights))
    return scatter


def check_shrinkage(shrinkage: float | str) -> None:
    """Check that a shrinkage is a number from 0 or the name of an estimator.

    Parameters
    ----------
    shrinkage : float or str
        What a user gave.

    Raises
    ------
    UserError
        If it is neither.
    """
    if isinstance(shrinkage, str):
        if shrinkage not in AUTOMATIC_SHRINKAGE:
            raise unknown_name("shrinkage", shrinkage, ["a number from 0", *AUTOMATIC_SHRINKAGE])
    elif not 0 <= shrinkage < float("inf"):
        raise UserError(f"The shrinkage is {shrinkage}, but it must be finite and at least 0: give such a number.")


def _class_weights(totals: ClassTotals, estimator: str) -> Tensor:
    """Weight of the rows of each class, shape (C,): W = sum_r weight_c n_r (m_r - mu_c)(m_r - mu_c)^T."""
    row_degrees = totals.row_degrees_of_freedom
    sample_degrees = totals.sample_degrees_of_freedom
    if estimator == "per-class":
        return torch.where(row_degrees > 0, sample_degrees / row_degrees.clamp(min=1), 0.0)
    if estimator == "pooled":
        return torch.full_like(row_degrees, float(sample_degrees.sum() / row_degrees.sum().clamp(min=1)))
    raise unknown_name("estimator", estimator, ESTIMATORS)


def _weighted_residuals(uploads: ClassMeans, totals: ClassTotals, weights: Tensor, block: slice) -> Tensor:
    """Rows of X for one block: sqrt(weight_c n_r) (m_r - mu_c), shape (rows of the block, d)."""
    ids = uploads.class_ids[block]
    scale = (weights[ids] * uploads.counts[block]).sqrt()
    return (uploads.means[block].to(torch.float64) - totals.means[ids]).mul_(scale[:, None])


def _shrink(
    scatter: Tensor, totals: ClassTotals, shrinkage: float | str, class_weights: Tensor, fourth_moment: float
) -> None:
    """Add the multiple of the identity that the shrinkage asks for, in place."""
    total_degrees = float(totals.sample_degrees_of_freedom.sum())
    if not isinstance(shrinkage, str):
        scatter.diagonal().add_(shrinkage * total_degrees)
        return
    if not float(totals.row_degrees_of_freedom.sum()):
        raise UserError(
            f"The shrinkage {shrinkage} cannot be estimated because no class has two rows: "
            "give a number, or let clients send more groups per class."
        )
    degrees = _effective_degrees_of_freedom(totals, class_weights, total_degrees)
    covariance_norms = _CovarianceNorms.of(scatter / total_degrees)
    if shrinkage == "oas":
        amount = _oas(covariance_norms, degrees)
    else:
        amount = _ledoit_wolf(covariance_norms, degrees, fourth_moment / total_degrees**2)
    mean_eigenvalue = float(scatter.diagonal().mean())
    scatter.mul_(1 - amount).diagonal().add_(amount * mean_eigenvalue)


def _noise_on_diagonal(uploads: ClassMeans, totals: ClassTotals, class_weights: Tensor) -> float:
    """Compute the expected excess on the diagonal of W: sum_c weight_c (sum n_r v_r - sum n_r^2 v_r / N_c)."""
    counts = uploads.counts.to(torch.float64)
    noise = counts * (uploads.noise if uploads.noise is not None else 0.0)
    left_by_centring = 1 - counts / totals.counts[uploads.class_ids]
    return float((class_weights[uploads.class_ids] * noise * left_by_centring).sum())


def _subtract_noise(scatter: Tensor, amount: float) -> None:
    """Take known noise off the diagonal, in place, or as much of it as leaves half of every eigenvalue.

    Noise that is not small against the spectrum does less harm where it is, as shrinkage, than taken away.
    """
    identity = torch.eye(len(scatter), dtype=scatter.dtype)
    for _ in range(MOST_HALVINGS):
        if not int(torch.linalg.cholesky_ex(scatter - 2 * amount * identity).info):
            scatter.diagonal().sub_(amount)
            return
        amount /= 2


def _effective_degrees_of_freedom(totals: ClassTotals, class_weights: Tensor, total_degrees: float) -> float:
    """Degrees of freedom of a weighted mean of the S_c: sum_c (K_c - 1) where all rows weigh the same."""
    row_weights = class_weights / total_degrees
    return float(1 / (row_weights.square() * totals.row_degrees_of_freedom).sum())


@dataclass(frozen=True)
class _CovarianceNorms:
    """The two traces of a covariance that the shrinkage formulas need."""

    dim: int
    squared_norm: float
    mean_eigenvalue: float

    @staticmethod
    def of(covariance: Tensor) -> _CovarianceNorms:
        return _CovarianceNorms(
            dim=len(covariance),
            squared_norm=float(covariance.square().sum()),
            mean_eigenvalue=float(covariance.diagonal().mean()),
        )

    @property
    def squared_distance_to_sphere(self) -> float:
        """Squared Frobenius distance to the multiple of the identity with the same trace."""
        return max(self.squared_norm - self.dim * self.mean_eigenvalue**2, 0.0)


def _ledoit_wolf(norms: _CovarianceNorms, degrees: float, sum_of_fourth_powers: float) -> float:
    """Amount of shrinkage by Ledoit and Wolf (2004), Lemma 3.1 to 3.4; the rows stand for the samples.

    ``sum_of_fourth_powers`` is the sum over rows of the squared norm of what the row adds to the covariance.
    """
    spread = norms.squared_distance_to_sphere
    if spread == 0.0:
        return 1.0
    error = sum_of_fourth_powers - norms.squared_norm / degrees
    return min(max(error / spread, 0.0), 1.0)


def _oas(norms: _CovarianceNorms, degrees: float) -> float:
    """Amount of shrinkage by Chen et al. (2010), Equation 23, for real data as in scikit-learn."""
    spread = norms.squared_distance_to_sphere
    if spread == 0.0:
        return 1.0
    trace_squared = (norms.dim * norms.mean_eigenvalue) ** 2
    numerator = norms.squared_norm + trace_squared
    return min(numerator / ((degrees + 1) * spread), 1.0)


def _blocks(num_rows: int) -> list[slice]:
    return [slice(start, start + ROWS_PER_BLOCK) for start in range(0, num_rows, ROWS_PER_BLOCK)]
