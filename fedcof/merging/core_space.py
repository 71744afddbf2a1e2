"""Adapters merged in the small space that all clients' factors span: Core Space."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from numpy.typing import NDArray
from torch import Tensor

from fedcof.errors import UserError, unknown_name
from fedcof.merging.by_matrix import Deltas, HeldMerge, JointMerge, Sum, SummedMerge
from fedcof.merging.iso_c import IsoC
from fedcof.merging.iso_cts import IsoCTS
from fedcof.merging.matrices import Unit, as_matrix, units_of
from fedcof.merging.merge import Arrays, Merge, Merged, MergeOptions, Update
from fedcof.merging.spectrum import RESOLUTION, spectrum
from fedcof.merging.task_arithmetic import TaskArithmetic
from fedcof.merging.ties import Ties


class CoreSpace(Merge):
    """Core Space merging (Panariello et al., "Accurate and Efficient Low-Rank Model Merging in Core Space", 2025).

    V_ref: right singular vectors of all clients' A_t on top of one another; U_ref: left ones of all B_t side by
    side. M_t = U_ref^T Delta_t V_ref is at most T r square, and loses nothing: Delta_t = U_ref M_t V_ref^T. The
    merge ``core`` is applied to the M_t, and U_ref M V_ref^T is factored to the rank again. From the second round
    on, when adapters start from B_start A_start, its factors are among those that the references are made of; else
    the difference to it would not lie in their span.

    The core is an isometry, so that a merge which asks for sums and singular vectors alone (mean, task-arithmetic,
    iso-c, and iso-cts) gives in it what it gives outside, from smaller matrices. ``ties``, which looks at single
    entries, gives something else: here its entries are pairs of directions. ``mean`` inside is the mean of the
    products, without a scale; the others take it.

    Matrices that are no adapters are merged by ``core`` directly. It holds T clients' adapters, and one adapter's
    M_t as float64 while it is merged; of other matrices what ``core`` holds.

    Raises
    ------
    UserError
        If there is no adapter, or ``core`` is none of the merges that it can be.
    """

    NAME: ClassVar[str] = "core-space"
    STREAMS: ClassVar[bool] = False
    TAKES_SCALE: ClassVar[bool] = True

    def __init__(self, start: Arrays, options: MergeOptions) -> None:
        super().__init__(start, options)
        if options.core not in RULES:
            raise unknown_name("merge inside core-space", options.core, list(RULES))
        of_adapters = [name for unit in units_of(start) if unit.rank is not None for name in unit.arrays]
        if not of_adapters:
            raise UserError(
                "The merge core-space merges adapters, but the network that trains has none: train adapters, or "
                "choose another merge."
            )
        rest = [name for name in start if name not in of_adapters]
        self._rest = RULES[options.core](_only(rest, start), options)
        self._cores = _Cores(_only(of_adapters, start), options, self._rest)

    def _take(self, update: Update) -> None:
        for part in (self._rest, self._cores):
            part.add(Update(_only(part.start, update.arrays), update.samples))

    def _merged(self, factor: float) -> Merged:
        adapters, rest = self._cores.merged(factor), self._rest.merged(factor)
        arrays = {**adapters.arrays, **rest.arrays}
        return Merged(_only(self.start, arrays), adapters.lost, rest.notes)


class _Cores(HeldMerge):
    """The adapters of a network, whose cores are merged by another merge."""

    NAME: ClassVar[str] = CoreSpace.NAME
    TAKES_SCALE: ClassVar[bool] = True

    def __init__(self, start: Arrays, options: MergeOptions, rule: JointMerge) -> None:
        super().__init__(start, options)
        self._rule = rule

    def scaled(self, direction: Tensor, length: float) -> Tensor:
        """Scale as the merge inside does."""
        return self._rule.scaled(direction, length)

    def merge_all(self, name: str, deltas: Deltas, rank: int | None) -> Tensor:
        """Merge as the merge inside does."""
        return self._rule.merge_all(name, deltas, rank)

    def _direction(self, unit: Unit) -> Tensor:
        old_a, old_b = (as_matrix(array) for array in self._of(unit, self.start)[0])
        held = self._held[unit.name]
        old = [(old_a, old_b)] if old_b.any() else []
        left, right = _references([*map(_factors, (arrays for _, arrays in held)), *old])
        if not left.numel() or not right.numel():
            return torch.zeros(len(old_b), old_a.shape[1], dtype=torch.float64)
        cores = []
        for samples, arrays in held:
            a, b = _factors(arrays)
            core = (left.T @ (b - old_b)) @ (a @ right) + (left.T @ old_b) @ ((a - old_a) @ right)
            cores.append((samples, core * self.options.adapter_scaling))
        return left @ self.merge_all(unit.name, cores, unit.rank) @ right.T


class _MatrixMean(SummedMerge):
    """The mean of a matrix's updates."""

    NAME: ClassVar[str] = "mean"
    TAKES_SCALE: ClassVar[bool] = False

    def of_sum(self, name: str, of_all: Sum, rank: int | None) -> Tensor:
        """Divide; see :meth:`SummedMerge.of_sum`."""
        return of_all.total / of_all.clients


RULES: dict[str, type[JointMerge]] = {rule.NAME: rule for rule in (_MatrixMean, TaskArithmetic, Ties, IsoC, IsoCTS)}
"""What can be applied inside the core."""


def _factors(arrays: list[NDArray[Any]]) -> tuple[Tensor, Tensor]:
    a, b = map(as_matrix, arrays)
    return a, b


def _references(factors: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Find orthonormal bases U_ref (m, at most T r) of all B's columns, V_ref (n, at most T r) of all A's rows."""
    of_b = spectrum(torch.cat([b for _, b in factors], dim=1))
    of_a = spectrum(torch.cat([a for a, _ in factors]))
    left = of_b.above(RESOLUTION * float(of_b.values[0])).left
    return left, of_a.above(RESOLUTION * float(of_a.values[0])).right


def _only(names: Any, arrays: Arrays) -> dict[str, NDArray[Any]]:  # noqa: ANN401
    return {name: arrays[name] for name in names}
