"""How good an estimated covariance is: its error, its spectrum and its leading directions, beside the true ones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

MOST_POINTS = 60


@dataclass(frozen=True)
class CovarianceDiagnostic:
    """An estimate of the within-class covariance beside the oracle's, of all training samples.

    Attributes
    ----------
    relative_error, shrunk_error : float
        Frobenius norm of what the estimate is off by, over the oracle's; before and after shrinkage.
    effective_rank, oracle_effective_rank : float
        tr(S)^2 / tr(S^2) of the estimate before shrinkage, and of the oracle's.
    condition : float or None
        Largest over smallest eigenvalue after shrinkage; None where that is not above 0.
    captured : float
        Variance that the oracle's covariance has in as many leading directions of the estimate as there are
        classes, as a share of what it has in its own.
    rows_per_class : float
        Class means that the estimate was made of, per class that somebody has.
    oracle_accuracy : float
        Accuracy of the same class means and head on the oracle's covariance, from 0 to 1.
    ranks : list of int
        Places in the sorted spectra below, from 1, evenly spaced on a logarithmic scale.
    spectrum, shrunk_spectrum, oracle_spectrum : list of float
        Eigenvalues at those places, largest first, in squared feature units.
    """

    relative_error: float
    shrunk_error: float
    effective_rank: float
    oracle_effective_rank: float
    condition: float | None
    captured: float
    rows_per_class: float
    oracle_accuracy: float
    ranks: list[int]
    spectrum: list[float]
    shrunk_spectrum: list[float]
    oracle_spectrum: list[float]


def compare_covariances(
    estimate: Tensor,
    shrunk: Tensor,
    oracle: Tensor,
    num_directions: int,
    rows_per_class: float,
    oracle_accuracy: float,
) -> CovarianceDiagnostic:
    """Put an estimated covariance beside the oracle's.

    Parameters
    ----------
    estimate, shrunk, oracle : Tensor of shape (d, d), float64
        Within-class covariances in squared feature units: before and after shrinkage, and that of all samples.
    num_directions : int
        Leading directions to look at, at least 1.
    rows_per_class, oracle_accuracy : float
        See :class:`CovarianceDiagnostic`.

    Returns
    -------
    CovarianceDiagnostic
        What they differ in.
    """
    eigenvalues, directions = torch.linalg.eigh(estimate)
    leading = directions[:, -num_directions:]
    shrunk_eigenvalues = torch.linalg.eigvalsh(shrunk)
    oracle_eigenvalues = torch.linalg.eigvalsh(oracle)
    size = torch.linalg.norm(oracle)
    smallest = float(shrunk_eigenvalues[0])
    ranks = np.unique(np.geomspace(1, len(oracle), min(MOST_POINTS, len(oracle))).round().astype(int))
    in_leading = torch.einsum("ik,ij,jk->", leading, oracle, leading)
    return CovarianceDiagnostic(
        relative_error=float(torch.linalg.norm(estimate - oracle) / size),
        shrunk_error=float(torch.linalg.norm(shrunk - oracle) / size),
        effective_rank=_effective_rank(estimate),
        oracle_effective_rank=_effective_rank(oracle),
        condition=float(shrunk_eigenvalues[-1]) / smallest if smallest > 0 else None,
        captured=float(in_leading / oracle_eigenvalues[-num_directions:].sum()),
        rows_per_class=rows_per_class,
        oracle_accuracy=oracle_accuracy,
        ranks=ranks.tolist(),
        spectrum=_at(eigenvalues, ranks),
        shrunk_spectrum=_at(shrunk_eigenvalues, ranks),
        oracle_spectrum=_at(oracle_eigenvalues, ranks),
    )


def _effective_rank(covariance: Tensor) -> float:
    return float(covariance.trace() ** 2 / covariance.square().sum())


def _at(ascending: Tensor, ranks: np.ndarray[tuple[int], np.dtype[np.int64]]) -> list[float]:
    values: list[float] = ascending.flip(0)[torch.from_numpy(ranks - 1)].tolist()
    return values
