"""The sum of all clients' updates: task arithmetic."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from fedcof.merging.by_matrix import Sum, SummedMerge


class TaskArithmetic(SummedMerge):
    """Task arithmetic (Ilharco et al., ICLR 2023): scale T sum_t p_t Delta_t.

    At a scale of 1 / T it is the mean; the paper's sum of T tasks is at equal shares. So it is at the
    scale 0. Of adapters the products are summed, not the factors.
    """

    NAME: ClassVar[str] = "task-arithmetic"
    TAKES_SCALE: ClassVar[bool] = True

    def of_sum(self, name: str, of_all: Sum, rank: int | None) -> Tensor:
        """Give the sum; see :meth:`SummedMerge.of_sum`."""
        return of_all.total
