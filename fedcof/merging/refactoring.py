"""A merged adapter back to two factors of its rank, and what that loses."""

from __future__ import annotations

from typing import Any

import torch
from numpy.typing import NDArray

from fedcof.merging.matrices import as_matrix
from fedcof.merging.spectrum import RESOLUTION, leading


def refactored(
    a: NDArray[Any], b: NDArray[Any], update: torch.Tensor, scaling: float
) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Add a merged update to an adapter.

    Parameters
    ----------
    a, b : ndarray of shape (r, n) and (m, r)
        The adapter as it was sent to the clients.
    update : Tensor of shape (m, n), float64
        What is to be added to scaling B A.
    scaling : float
        What B A is multiplied by, above 0.

    Returns
    -------
    a, b : Tensor of shape (r, n) and (m, r), float64
        scaling B A is then the nearest matrix of rank r to the sum, U S V^T, with B = U sqrt(S / scaling) and
        A = sqrt(S / scaling) V^T. A direction that the sum does not have is a zero column of B beside the old row
        of A, so that it can still train: were both zero, no gradient would ever reach them. Where the update is
        zero, the factors stay as they were.
    lost : float
        Squared Frobenius norm of what the sum has beyond rank r. It is at most the update's, because the start has
        rank r.
    """
    old_a, old_b = as_matrix(a), as_matrix(b)
    if not update.any():
        return old_a, old_b, 0.0
    total = update + old_b @ old_a * scaling
    kept = leading(total, len(old_a))
    kept = kept.above(RESOLUTION * float(kept.values[0]))
    lost = float((total - kept.matrix()).square().sum())
    there, roots = len(kept.values), (kept.values / scaling).sqrt()
    new_a, new_b = old_a.clone(), torch.zeros_like(old_b)
    new_a[:there] = (kept.right * roots).T
    new_b[:, :there] = kept.left * roots
    return new_a, new_b, lost
