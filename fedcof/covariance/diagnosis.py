"""How good an estimated covariance is: its error, its spectrum and its leading directions, beside the true ones."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fedcof.covariance.diagnostic import CovarianceDiagnostic

MOST_POINTS = 60


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
