"""What a comparison of covariances says; without torch, because every result may hold it."""

from __future__ import annotations

from dataclasses import dataclass


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
