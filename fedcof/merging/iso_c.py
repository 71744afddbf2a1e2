"""The sum of all clients' updates, as long in each of its directions as in every other: Iso-C."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from fedcof.merging.by_matrix import Sum, SummedMerge
from fedcof.merging.merge import Arrays, MergeOptions
from fedcof.merging.spectrum import RESOLUTION, leading, spectrum


class IsoC(SummedMerge):
    """Isotropic merging in the common subspace (Marczak et al., "No Task Left Behind", ICML 2025).

    T sum_t p_t Delta_t = U S V^T becomes mean(S) U V^T, times the scale.

    The formula is for a sum of full rank. Where it has less, U V^T exists for the directions that are there alone,
    and the mean is over those. An adapter's sum is first cut to the adapter's rank, because what has equal values
    in all directions has no order to be cut by afterwards; how much that leaves out is noted.
    """

    NAME: ClassVar[str] = "iso-c"
    TAKES_SCALE: ClassVar[bool] = True

    def __init__(self, start: Arrays, options: MergeOptions) -> None:
        super().__init__(start, options)
        self._left_out: dict[str, tuple[float, float]] = {}

    def of_sum(self, name: str, of_all: Sum, rank: int | None) -> Tensor:
        """Flatten; see :meth:`SummedMerge.of_sum`."""
        flat, left_out = flattened(of_all, rank)
        if rank is not None:
            self._left_out[name] = left_out
        return flat

    def notes(self) -> list[str]:
        """Say how much of adapters' sums was left out."""
        return cut_notes(self.NAME, self._left_out)


def flattened(of_all: Sum, rank: int | None) -> tuple[Tensor, tuple[float, float]]:
    """Make a sum of updates as long in each of its directions as in every other.

    Parameters
    ----------
    of_all : Sum
        The sum, (m, n). Directions that are rounding against what was summed are none.
    rank : int, optional
        How many directions are kept, where not all are.

    Returns
    -------
    flat : Tensor of shape (m, n), float64
        mean(S) U V^T.
    left_out : pair of float
        Squared Frobenius norm of the directions that are not kept, and of all.
    """
    total = of_all.total
    parts = (spectrum(total) if rank is None else leading(total, rank)).above(RESOLUTION * of_all.size)
    whole, kept = float(total.square().sum()), float(parts.values.square().sum())
    if not len(parts.values):
        return torch.zeros_like(total), (whole, whole)
    return parts.values.mean() * (parts.left @ parts.right.T), (max(whole - kept, 0.0), whole)


def cut_notes(merge: str, left_out: dict[str, tuple[float, float]]) -> list[str]:
    """Say how much of adapters' sums was left out before they were flattened.

    Parameters
    ----------
    merge : str
        Who has done that.
    left_out : dict of str to pair of float
        Squared Frobenius norm of what was left out, and of all, for each adapter.

    Returns
    -------
    list of str
        A sentence, or nothing where less than 0.05 % was.
    """
    cut, whole = (sum(column) for column in zip(*left_out.values(), strict=True)) if left_out else (0.0, 0.0)
    if not whole or cut / whole < 5e-4:
        return []
    return [
        f"{merge} cut the adapters' sums to their rank before it flattened them: "
        f"{cut / whole:.1%} of their squared norm was left out"
    ]
