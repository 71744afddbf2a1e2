"""What a merge is: it takes the networks that clients have trained, and makes one of them."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fedcof.errors import UserError

Arrays = Mapping[str, NDArray[Any]]
"""What of a network trains, by name."""


@dataclass(frozen=True)
class Update:
    """What a client has trained.

    Parameters
    ----------
    arrays : mapping of str to ndarray
        Its network, with the names and shapes of the one that it was sent. Some merges keep these arrays and do not
        copy them.
    samples : int
        How many samples it has, at least 1.
    fisher : mapping of str to ndarray, optional
        Diagonal empirical Fisher information: mean over the samples of the squared gradient of the log likelihood,
        for each entry of ``arrays``.
    """

    arrays: Arrays
    samples: int
    fisher: Arrays | None = None


@dataclass(frozen=True)
class MergeOptions:
    """What a merge may be told.

    Parameters
    ----------
    scale : float
        What a merged update is multiplied by; 0 makes each matrix's as long as the mean of the clients' updates,
        |sum_t p_t Delta_t|_F. For merges that take a scale.
    density : float
        Share of an update's entries that ``ties`` keeps, above 0 and at most 1.
    core : str
        Merge that ``core-space`` applies inside the core.
    adapter_scaling : float
        What an adapter's B A is multiplied by (alpha / r), above 0.
    parts : int
        Into how many blocks ``fisher`` cuts a client's update, at least 1.

    Raises
    ------
    UserError
        If a number is out of its range.
    """

    scale: float = 0.0
    density: float = 0.2
    core: str = "mean"
    adapter_scaling: float = 1.0
    parts: int = 1

    def __post_init__(self) -> None:
        for what, value, fits, expected in (
            ("scale of a merge", self.scale, self.scale >= 0, "0 or more"),
            ("density of ties", self.density, 0 < self.density <= 1, "above 0 and at most 1"),
            ("scaling of adapters", self.adapter_scaling, self.adapter_scaling > 0, "above 0"),
            ("number of parts of fisher", self.parts, self.parts >= 1, "1 or more"),
        ):
            if not fits:
                raise UserError(f"The {what} is {value}, but it must be {expected}.")


@dataclass(frozen=True)
class Merged:
    """One network of many.

    Parameters
    ----------
    arrays : dict of str to ndarray, float32
        The network, in the order of the one that was sent.
    lost : float, optional
        Share, 0 to 1, of the merged updates' squared Frobenius norm that was lost as adapters were factored to
        their rank again; None where nothing is.
    notes : tuple of str
        What became of the rule, for people.
    """

    arrays: dict[str, NDArray[np.float32]]
    lost: float | None = None
    notes: tuple[str, ...] = ()


class Merge(ABC):
    """A rule that makes one network of those that clients have trained.

    The same updates in the same order give the same bits; the caller adds them in ascending order of clients.

    Parameters
    ----------
    start : mapping of str to ndarray
        What was sent to the clients in this round.
    options : MergeOptions
        What is left open.

    Attributes
    ----------
    NAME : str
        As it is registered.
    STREAMS : bool
        Whether it holds sums only, so that its memory does not grow with the number of clients.
    TAKES_SCALE : bool
        Whether ``scale`` has any effect on it.
    NEEDS_FISHER : bool
        Whether updates have to bring their Fisher information.
    """

    NAME: ClassVar[str]
    STREAMS: ClassVar[bool]
    TAKES_SCALE: ClassVar[bool]
    NEEDS_FISHER: ClassVar[bool] = False

    def __init__(self, start: Arrays, options: MergeOptions) -> None:
        self.start = dict(start)
        self.options = options
        self.clients = 0
        self.samples = 0

    def add(self, update: Update) -> None:
        """Take one client's network in.

        Parameters
        ----------
        update : Update
            Of the next client, in ascending order.

        Raises
        ------
        UserError
            If it has other arrays than those that were sent, no sample, or lacks a Fisher information that is
            needed. Nothing is taken in then.
        """
        self._check(update)
        self.clients += 1
        self.samples += update.samples
        self._take(update)

    def merged(self, factor: float = 1.0) -> Merged:
        """Merge what was added so far.

        Parameters
        ----------
        factor : float
            What the merged update of every matrix is multiplied by, whatever the rule has made of it: what a search
            for a scale varies. It can be asked for with several, and more clients can be added afterwards.

        Returns
        -------
        Merged
            The network.

        Raises
        ------
        UserError
            If nothing was added.
        """
        if not self.clients:
            raise UserError(f"There is nothing that {self.NAME} could merge: add at least one client's update.")
        return self._merged(factor)

    @abstractmethod
    def _take(self, update: Update) -> None:
        """Take an update in that was checked and counted."""

    @abstractmethod
    def _merged(self, factor: float) -> Merged:
        """Merge at least one update."""

    def _check(self, update: Update) -> None:
        if update.samples < 1:
            raise UserError(f"A client's update says {update.samples} samples, but a merge takes 1 or more.")
        self._check_arrays("arrays", update.arrays)
        if self.NEEDS_FISHER:
            if update.fisher is None:
                raise UserError(
                    f"A client's update has no Fisher information, but {self.NAME} needs it: let clients send it."
                )
            self._check_arrays("Fisher information", update.fisher)
            if any((array < 0).any() for array in update.fisher.values()):
                raise UserError("A client's Fisher information is below 0: it must be a mean of squared gradients.")

    def _check_arrays(self, what: str, arrays: Arrays) -> None:
        for name in [*self.start, *arrays]:
            found = arrays[name].shape if name in arrays else "missing"
            expected = self.start[name].shape if name in self.start else "not in what was sent"
            if found != expected:
                raise UserError(
                    f"Of a client's {what} {name} is {found}, but it must be {expected}: train what was sent."
                )


def as_float32(array: Any) -> NDArray[np.float32]:  # noqa: ANN401
    """Make what travels of a float64 array."""
    return np.ascontiguousarray(array, dtype=np.float32)


def check_merge(name: str, merge: object) -> None:
    """Check that an object can be registered as a merge.

    Parameters
    ----------
    name : str
        Under which it is to be known.
    merge : object
        A class.

    Raises
    ------
    UserError
        If it is no class that fills in :class:`Merge`, or calls itself otherwise.
    """
    if not (isinstance(merge, type) and issubclass(merge, Merge)) or inspect.isabstract(merge):
        raise UserError(f"The merge {name} is {merge!r}: give a class that fills in {__name__}.Merge.")
    missing = [attribute for attribute in ("NAME", "STREAMS", "TAKES_SCALE") if not hasattr(merge, attribute)]
    if missing:
        raise UserError(f"The merge {name} does not say its {', '.join(missing)}: set it on the class.")
    if name != merge.NAME:
        raise UserError(f"The merge {name} says of itself that it is {merge.NAME}: register it as that.")
