"""What of a network's arrays is a matrix, and how a client has moved it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from fedcof.errors import UserError

ADAPTER_A = ".lora_a"
"""How the name of an adapter's first factor ends, of shape (r, n)."""

ADAPTER_B = ".lora_b"
"""How the name of an adapter's second factor ends, of shape (m, r)."""


@dataclass(frozen=True)
class Unit:
    """One matrix of a network: a weight, or the change of one that an adapter stands for.

    Parameters
    ----------
    name : str
        Name of the weight's array, or of the module that is adapted.
    arrays : tuple of str
        The weight's array, or the factors A and B, in that order.
    rank : int, optional
        Rank r of the adapter; None for a weight.
    """

    name: str
    arrays: tuple[str, ...]
    rank: int | None = None


def units_of(arrays: Mapping[str, NDArray[Any]]) -> tuple[Unit, ...]:
    """Find a network's matrices.

    Parameters
    ----------
    arrays : mapping of str to ndarray
        What of the network trains. A module X that is adapted is there as ``X.lora_a`` (r, n) and ``X.lora_b``
        (m, r), and its weight changes by a constant times B A.

    Returns
    -------
    tuple of Unit
        Adapters; arrays of two dimensions; and convolutions (m, n, 1, 1), which are matrices (m, n). In the
        arrays' order, an adapter where its A is.

    Raises
    ------
    UserError
        If an adapter lacks one of its factors.
    """
    units = []
    for name, array in arrays.items():
        if name.endswith((ADAPTER_A, ADAPTER_B)):
            module = name.removesuffix(ADAPTER_A).removesuffix(ADAPTER_B)
            factors = (module + ADAPTER_A, module + ADAPTER_B)
            missing = [factor for factor in factors if factor not in arrays]
            if missing:
                raise UserError(f"The adapter of {module} has no {missing[0]}: send both of its factors.")
            if name == factors[0]:
                units.append(Unit(module, factors, len(array)))
        elif array.ndim == 2 or (array.ndim == 4 and array.shape[2:] == (1, 1)):
            units.append(Unit(name, (name,)))
    return tuple(units)


def as_matrix(array: NDArray[Any]) -> Tensor:
    """Copy an array as a float64 matrix, a (m, n, 1, 1) convolution as (m, n)."""
    return as_tensor(array).flatten(1)


def as_tensor(array: NDArray[Any]) -> Tensor:
    """Copy an array as float64.

    The copy lies where torch aligns it: a product's last bits can depend on how its factors lie in memory, and
    arrays from messages lie anywhere.
    """
    return torch.tensor(array, dtype=torch.float64)


def moved(unit: Unit, start: Sequence[NDArray[Any]], arrays: Sequence[NDArray[Any]], scaling: float) -> Tensor:
    """Say how a client has moved a matrix.

    Parameters
    ----------
    unit : Unit
        The matrix.
    start, arrays : sequence of ndarray
        The unit's arrays as they were sent to the client, and as it has trained them.
    scaling : float
        What an adapter's B A is multiplied by.

    Returns
    -------
    Tensor of shape (m, n), float64
        W_t - W_start, or scaling (B_t A_t - B_start A_start).
    """
    if unit.rank is None:
        return as_matrix(arrays[0]) - as_matrix(start[0])
    (a, b), (old_a, old_b) = (tuple(map(as_matrix, factors)) for factors in (arrays, start))
    # The difference of the products themselves would cancel where little has moved.
    return ((b - old_b) @ a + old_b @ (a - old_a)) * scaling
