"""A common subspace and some directions of each client's own, all as long as one another: Iso-CTS."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from fedcof.merging.by_matrix import Deltas, HeldMerge, summed
from fedcof.merging.iso_c import cut_notes, flattened
from fedcof.merging.merge import Arrays, MergeOptions
from fedcof.merging.spectrum import RESOLUTION, Spectrum, leading, polar_factor


class IsoCTS(HeldMerge):
    """Isotropic merging in common and task-specific subspaces (Marczak et al., "No Task Left Behind", ICML 2025).

    Of the d = min(m, n) directions of a matrix, four fifths are common, and the rest is dealt to the clients:
    s = round((d - floor(0.8 d)) / T) for each, k = d - s T common ones. U_c, V_c: the first k singular vectors of
    T sum_t p_t Delta_t. U_t, V_t: the first s of Delta_t - U_c U_c^T Delta_t. [U_1 ... U_T U_c] and
    [V_1 ... V_T V_c] are orthogonalised by their polar factors P and Q; the merged update is the mean of all these
    singular values times P Q^T, times the scale. Directions that are not there, in sums and updates of less than
    full rank, are left out. Clients' own directions count the same, however many samples they have.

    Many clients leave s = 0. Then it is iso-c, and says so. An adapter takes its rank for d: more directions could
    not be kept, and those of equal length have no order to be cut by. With rank 8, two or three clients have one
    direction each, and more clients none.

    It holds T clients' matrices; see :class:`HeldMerge`.
    """

    NAME: ClassVar[str] = "iso-cts"
    TAKES_SCALE: ClassVar[bool] = True

    def __init__(self, start: Arrays, options: MergeOptions) -> None:
        super().__init__(start, options)
        self._own: dict[str, int] = {}
        self._left_out: dict[str, tuple[float, float]] = {}

    def merge_all(self, name: str, deltas: Deltas, rank: int | None) -> Tensor:
        """Find the directions and flatten them; see :meth:`JointMerge.merge_all`."""
        of_all = summed(deltas)
        directions = min(of_all.total.shape) if rank is None else min(rank, *of_all.total.shape)
        own = round((directions - 4 * directions // 5) / of_all.clients)
        self._own[name] = own
        if not own:
            flat, left_out = flattened(of_all, rank)
            if rank is not None:
                self._left_out[name] = left_out
            return flat
        floor = RESOLUTION * of_all.size
        common = leading(of_all.total, directions).first(directions - own * of_all.clients).above(floor)
        parts = [_own_part(delta, common, own, floor) for _, delta in deltas]
        return _isotropic([*parts, common])

    def notes(self) -> list[str]:
        """Say where it was iso-c."""
        plain = sum(1 for own in self._own.values() if not own)
        if not plain:
            return []
        return [
            f"{self.NAME} with {self.clients} clients has no direction of its own for {plain} of {len(self._own)} "
            "matrices: iso-c there",
            *cut_notes(self.NAME, self._left_out),
        ]


def _own_part(delta: Tensor, common: Spectrum, own: int, floor: float) -> Spectrum:
    """Find a client's first directions outside of the common subspace."""
    return leading(delta - common.left @ (common.left.T @ delta), own).above(floor)


def _isotropic(parts: list[Spectrum]) -> Tensor:
    """Make all directions as orthogonal as they can be and equally long."""
    values = torch.cat([part.values for part in parts])
    left = polar_factor(torch.cat([part.left for part in parts], dim=1))
    right = polar_factor(torch.cat([part.right for part in parts], dim=1))
    return left @ right.T * (values.mean() if len(values) else 0.0)
