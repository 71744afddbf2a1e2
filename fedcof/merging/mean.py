"""The mean of all clients' arrays by sample shares: federated averaging."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from fedcof.merging.merge import Arrays, Merge, Merged, MergeOptions, Update, as_float32


class Mean(Merge):
    r"""Federated averaging (McMahan et al., AISTATS 2017): start + factor (sum_t p_t W_t - start).

    Every array that travels is averaged apart, as Flower's ``FedAvg`` does. Of adapters these are the factors:

    .. math:: \Big(\sum_t p_t B_t\Big)\Big(\sum_t p_t A_t\Big) \ne \sum_t p_t B_t A_t,

    so this is not the mean of what the clients' adapters do; ``core-space`` with the mean inside is that, up to the
    rank. A factor multiplies the update of every array here. It holds one float64 sum of each array.
    """

    NAME: ClassVar[str] = "mean"
    STREAMS: ClassVar[bool] = True
    TAKES_SCALE: ClassVar[bool] = False

    def __init__(self, start: Arrays, options: MergeOptions) -> None:
        super().__init__(start, options)
        self._sums = {name: np.zeros(array.shape) for name, array in start.items()}

    def _take(self, update: Update) -> None:
        for name in self._sums:
            self._sums[name] += update.samples * update.arrays[name].astype(np.float64)

    def _merged(self, factor: float) -> Merged:
        arrays = {}
        for name, total in self._sums.items():
            start = self.start[name].astype(np.float64)
            arrays[name] = as_float32(start + factor * (total / self.samples - start)).reshape(start.shape)
        return Merged(arrays)
