"""Merges that go matrix by matrix: what they hold of each, how long the result is, and how it is put together."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedcof.merging.matrices import Unit, as_matrix, moved, units_of
from fedcof.merging.merge import Arrays, Merge, Merged, MergeOptions, Update, as_float32
from fedcof.merging.refactoring import refactored
from fedcof.merging.spectrum import RESOLUTION

Deltas = Iterable[tuple[int, Tensor]]
"""Number of samples and update Delta_t (m, n), float64, of one matrix, client after client.

A rule may walk through them as often as it likes.
"""


class MatrixMerge(Merge):
    """A merge that makes one update of each matrix's updates, and averages everything else by sample shares.

    Delta_t is how client t has moved a matrix, p_t its share of the samples, T the number of clients. Arrays that
    are no matrices become start + sum_t p_t (W_t - W_start), whatever the factor. The update of an adapter is added
    to the start's product and factored to its rank again (:mod:`fedcof.merging.refactoring`).

    Beside what the rule holds, it keeps every matrix's merged update (m, n) as float64 once it was asked for, until
    the next client is added, so that a search over factors merges once.
    """

    def __init__(self, start: Arrays, options: MergeOptions) -> None:
        super().__init__(start, options)
        self._units = units_of(start)
        in_units = {name for unit in self._units for name in unit.arrays}
        self._others = {name: np.zeros(start[name].shape) for name in start if name not in in_units}
        self._lengths = {unit.name: 0.0 for unit in self._units}
        self._updates: dict[str, Tensor] = {}

    def _take(self, update: Update) -> None:
        self._updates.clear()
        for name in self._others:
            self._others[name] += update.samples * (update.arrays[name].astype(np.float64) - self.start[name])
        for unit in self._units:
            delta = moved(unit, *self._of(unit, update.arrays), self.options.adapter_scaling)
            self._lengths[unit.name] += update.samples * float(torch.linalg.vector_norm(delta))
            self._keep(unit, update, delta)

    def _merged(self, factor: float) -> Merged:
        arrays: dict[str, Any] = {}
        lost = length = 0.0
        for unit in self._units:
            update = self._update(unit) * factor
            if unit.rank is None:
                arrays[unit.name] = (as_matrix(self.start[unit.name]) + update).numpy()
                continue
            a, b = (self.start[name] for name in unit.arrays)
            *factors, beyond = refactored(a, b, update, self.options.adapter_scaling)
            arrays.update(zip(unit.arrays, (factor.numpy() for factor in factors), strict=True))
            lost += beyond
            length += float(update.square().sum())
        for name, total in self._others.items():
            arrays[name] = self.start[name] + total / self.samples
        shaped = {name: as_float32(arrays[name]).reshape(array.shape) for name, array in self.start.items()}
        refactors = any(unit.rank is not None for unit in self._units)
        # Rounding may take it beyond what it cannot be.
        share = min(lost / length, 1.0) if length else 0.0
        return Merged(shaped, share if refactors else None, tuple(self.notes()))

    def _of(self, unit: Unit, arrays: Arrays) -> tuple[list[NDArray[Any]], list[NDArray[Any]]]:
        return [self.start[name] for name in unit.arrays], [arrays[name] for name in unit.arrays]

    def _update(self, unit: Unit) -> Tensor:
        """Give a matrix's merged update, as long as it is to be, and remember it."""
        if unit.name not in self._updates:
            self._updates[unit.name] = self.scaled(self._direction(unit), self._length(unit))
        return self._updates[unit.name]

    def scaled(self, direction: Tensor, length: float) -> Tensor:
        """Make a merged update as long as it is to be.

        Parameters
        ----------
        direction : Tensor of shape (m, n), float64
            What the rule has made.
        length : float
            How long the mean update is, |sum_t p_t Delta_t|_F.

        Returns
        -------
        Tensor of shape (m, n), float64
            The same for a rule that takes no scale; else times the scale, or of that length where that is 0.
            Updates that cancel leave nothing that could be lengthened: then it is zero.
        """
        if not self.TAKES_SCALE:
            return direction
        if self.options.scale > 0:
            return direction * self.options.scale
        found = float(torch.linalg.vector_norm(direction))
        return direction * (length / found if found > RESOLUTION * length else 0.0)

    def notes(self) -> list[str]:
        """Say what became of the rule in what was merged last."""
        return []

    def _length(self, unit: Unit) -> float:
        """Give the length of a matrix's mean update, where the rule takes a scale."""
        return 0.0

    @abstractmethod
    def _keep(self, unit: Unit, update: Update, delta: Tensor) -> None:
        """Hold on to what the rule needs of an update (m, n) of a matrix."""

    @abstractmethod
    def _direction(self, unit: Unit) -> Tensor:
        """Merge what was kept of a matrix, before its scale."""


class JointMerge(MatrixMerge):
    """A merge that does not mind whether a matrix's updates come one by one or all at once."""

    @abstractmethod
    def merge_all(self, name: str, deltas: Deltas, rank: int | None) -> Tensor:
        """Merge one matrix's updates, which are all at hand.

        Parameters
        ----------
        name : str
            The matrix's name, for notes.
        deltas : iterable of pair of int and Tensor of shape (m, n)
            At least one client's samples and update, in order.
        rank : int, optional
            Rank to which the result will be cut, where it will be.

        Returns
        -------
        Tensor of shape (m, n), float64
            The merged update, before its scale.
        """


@dataclass(frozen=True)
class Sum:
    """What a matrix's updates add up to.

    Parameters
    ----------
    total : Tensor of shape (m, n), float64
        T sum_t p_t Delta_t.
    size : float
        T sum_t p_t |Delta_t|_F: how long the sum would be, did its parts not cancel.
    clients : int
        How many there are, T.
    """

    total: Tensor
    size: float
    clients: int


class SummedMerge(JointMerge):
    """A merge that needs only the sum of a matrix's updates.

    It holds one float64 sum of each matrix, that of an adapter as the product (m, n), however many clients there
    are.
    """

    STREAMS: ClassVar[bool] = True

    def __init__(self, start: Arrays, options: MergeOptions) -> None:
        super().__init__(start, options)
        self._sums: dict[str, Tensor] = {}

    def _keep(self, unit: Unit, update: Update, delta: Tensor) -> None:
        delta = delta.mul_(update.samples)
        if unit.name in self._sums:
            self._sums[unit.name] += delta
        else:
            self._sums[unit.name] = delta

    def _direction(self, unit: Unit) -> Tensor:
        times = self.clients / self.samples
        of_all = Sum(self._sums[unit.name] * times, self._lengths[unit.name] * times, self.clients)
        return self.of_sum(unit.name, of_all, unit.rank)

    def _length(self, unit: Unit) -> float:
        return float(torch.linalg.vector_norm(self._sums[unit.name])) / self.samples

    def merge_all(self, name: str, deltas: Deltas, rank: int | None) -> Tensor:
        """Sum and merge; see :meth:`JointMerge.merge_all`."""
        return self.of_sum(name, summed(deltas), rank)

    @abstractmethod
    def of_sum(self, name: str, of_all: Sum, rank: int | None) -> Tensor:
        """Merge one matrix's updates, of which there is the sum.

        Parameters
        ----------
        name : str
            The matrix's name, for notes.
        of_all : Sum
            What they add up to, (m, n).
        rank : int, optional
            Rank to which the result will be cut, where it will be.

        Returns
        -------
        Tensor of shape (m, n), float64
            The merged update, before its scale.
        """


class HeldMerge(JointMerge):
    """A merge that needs all clients' updates of a matrix at once.

    It holds every client's matrices as they came: T times 4 bytes a number that travels in them, adapters as their
    factors. They are made updates (m, n) of float64 one client and one matrix at a time.
    """

    STREAMS: ClassVar[bool] = False

    def __init__(self, start: Arrays, options: MergeOptions) -> None:
        super().__init__(start, options)
        self._held: dict[str, list[tuple[int, list[NDArray[Any]]]]] = {unit.name: [] for unit in self._units}

    def _keep(self, unit: Unit, update: Update, delta: Tensor) -> None:
        self._held[unit.name].append((update.samples, self._of(unit, update.arrays)[1]))

    def _direction(self, unit: Unit) -> Tensor:
        return self.merge_all(unit.name, self._deltas(unit), unit.rank)

    def _length(self, unit: Unit) -> float:
        return float(torch.linalg.vector_norm(summed(self._deltas(unit)).total)) / self.clients

    def _deltas(self, unit: Unit) -> _HeldDeltas:
        start = self._of(unit, self.start)[0]
        return _HeldDeltas(unit, start, self._held[unit.name], self.options.adapter_scaling)


@dataclass(frozen=True)
class _HeldDeltas:
    """Clients' updates of a matrix, each made as it is reached."""

    unit: Unit
    start: list[NDArray[Any]]
    held: list[tuple[int, list[NDArray[Any]]]]
    scaling: float

    def __iter__(self) -> Iterator[tuple[int, Tensor]]:
        for samples, arrays in self.held:
            yield samples, moved(self.unit, self.start, arrays, self.scaling)


def summed(deltas: Deltas) -> Sum:
    """Add a matrix's updates up.

    Parameters
    ----------
    deltas : iterable of pair of int and Tensor of shape (m, n)
        At least one client's samples and update.

    Returns
    -------
    Sum
        What they add up to.
    """
    clients, weight, length, total = 0, 0, 0.0, torch.zeros((), dtype=torch.float64)
    for samples, delta in deltas:
        clients, weight = clients + 1, weight + samples
        length += samples * float(torch.linalg.vector_norm(delta))
        # Not in place, so that no caller's matrix is changed.
        total = total + samples * delta
    return Sum(total * (clients / weight), length * clients / weight, clients)
