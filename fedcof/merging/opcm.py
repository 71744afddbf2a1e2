"""Clients merged one after another, each without what the merged update already says: OPCM."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from fedcof.merging.by_matrix import MatrixMerge
from fedcof.merging.matrices import Unit
from fedcof.merging.merge import Arrays, MergeOptions, Update
from fedcof.merging.spectrum import RESOLUTION, spectrum

SHARE = 0.5
"""Share of the merged update's singular values whose directions are closed to later clients."""


class OPCM(MatrixMerge):
    """Projection-based continual merging (Tang et al., "Merging Models on the Fly Without Retraining", 2025).

    For the updates tau_1, tau_2, ... of one matrix, in the order of the clients:

        Delta_1 = tau_1,  l_1 = 1
        Delta_{t-1} = U S V^T;  r: how many of the first values have a cumulative share of up to 0.5
        tau~ = tau_t without the part of U^T tau_t V in its leading r x r block
        Delta_t = (l_{t-1} Delta_{t-1} + tau~) / l_t,  with l_t so that |Delta_t| is the mean of |tau_1| ... |tau_t|

    l_{t-1} Delta_{t-1} is the sum of all that was added before, and has the directions of Delta_{t-1}: that sum is
    what is held, one float64 matrix (m, n) of each, and the length is given at the end. It has its own norm, so it
    takes no scale, and counts clients, not samples. It depends on their order. One singular value decomposition of
    every matrix for every client makes it the slowest merge.

    The paper's code also removes the diagonal of U^T tau_t V beyond the block, and takes the norms over the whole
    network; this is per matrix.
    """

    NAME: ClassVar[str] = "opcm"
    STREAMS: ClassVar[bool] = True
    TAKES_SCALE: ClassVar[bool] = False

    def __init__(self, start: Arrays, options: MergeOptions) -> None:
        super().__init__(start, options)
        self._sums: dict[str, Tensor] = {}
        self._norms = {unit.name: 0.0 for unit in self._units}

    def _keep(self, unit: Unit, update: Update, delta: Tensor) -> None:
        self._norms[unit.name] += float(torch.linalg.vector_norm(delta))
        self._sums[unit.name] = _next_sum(self._sums.get(unit.name), delta)

    def _direction(self, unit: Unit) -> Tensor:
        total, length = self._sums[unit.name], self._norms[unit.name] / self.clients
        found = float(torch.linalg.vector_norm(total))
        return total * (length / found if found > RESOLUTION * length else 0.0)


def _next_sum(total: Tensor | None, delta: Tensor) -> Tensor:
    """Add what an update has beyond the first directions of a sum."""
    if total is None or not total.any():
        return delta
    parts = spectrum(total)
    leading = parts.first(int((parts.values.cumsum(0) <= SHARE * parts.values.sum()).sum()))
    inside = leading.left.T @ delta @ leading.right
    return total + delta - leading.left @ inside @ leading.right.T
