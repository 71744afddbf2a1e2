"""Updates trimmed to their large entries, which are averaged where they agree in sign: TIES."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from fedcof.merging.by_matrix import Deltas, HeldMerge
from fedcof.merging.spectrum import RESOLUTION


class Ties(HeldMerge):
    """TIES merging (Yadav et al., NeurIPS 2023), matrix by matrix.

    Of each client's update the ``density`` share of the entries of the largest magnitude stays (all that equal the
    smallest of those stay too); each entry's sign is that of sum_t p_t Delta_t after trimming; the merged entry is
    the mean, by sample shares, of the trimmed entries with that sign, times the scale. An entry whose sum is zero
    stays where it was, where the paper's code takes the sign that most entries have. The paper trims over the whole
    network, which lets matrices that have moved little lose all.

    It holds T clients' matrices; see :class:`HeldMerge`.
    """

    NAME: ClassVar[str] = "ties"
    TAKES_SCALE: ClassVar[bool] = True

    def merge_all(self, name: str, deltas: Deltas, rank: int | None) -> Tensor:
        """Trim, elect, and average; see :meth:`JointMerge.merge_all`."""
        total = size = torch.zeros((), dtype=torch.float64)
        for samples, delta in deltas:
            weighted = samples * self._trimmed(delta)
            total, size = total + weighted, size + weighted.abs()
        # Entries that cancel leave a sum that is rounding, and whose sign means nothing.
        signs = torch.where(total.abs() > RESOLUTION * size, total.sign(), 0.0)
        agreeing, weight = torch.zeros_like(total), torch.zeros_like(total)
        for samples, delta in deltas:
            trimmed = self._trimmed(delta)
            agrees = trimmed * signs > 0
            agreeing += torch.where(agrees, samples * trimmed, 0.0)
            weight += samples * agrees
        return agreeing / weight.clamp(min=1)

    def _trimmed(self, delta: Tensor) -> Tensor:
        count = max(1, round(self.options.density * delta.numel()))
        magnitudes = delta.abs()
        smallest = magnitudes.flatten().kthvalue(delta.numel() - count + 1).values
        return torch.where(magnitudes >= smallest, delta, 0.0)
