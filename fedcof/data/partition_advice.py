"""What to change where samples cannot be dealt as asked: the nearest values with which they can, each tried."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

# Dealing takes some 30 microseconds a sample, and nobody waits minutes for a sentence.
MOST_SAMPLES_TRIED = 100_000
MOST_TRIES = 12

IntArray = NDArray[np.int64]


def pathological_advice(sizes: IntArray, num_clients: int, classes_per_client: int, seed: int) -> str:
    """Say which numbers of clients, or of classes on each, can be dealt.

    Parameters
    ----------
    sizes : ndarray of shape (C,), int64
        Samples of each class that has any.
    num_clients, classes_per_client, seed : int
        As asked.

    Returns
    -------
    str
        What to do, without a full stop.
    """
    remedies = []
    clients = _nearest_clients(sizes, num_clients, classes_per_client, seed)
    if clients:
        remedies.append(f"num-clients to {clients}")
    further = sorted(range(1, len(sizes) + 1), key=lambda number: abs(number - classes_per_client))[1:]
    for number in further[:MOST_TRIES]:
        if _can_be_dealt(sizes, drawn_classes(len(sizes), num_clients, number, seed)):
            remedies.append(f"classes-per-client to {number}")
            break
    return f"set {' or '.join(remedies)}" if remedies else "choose the partition shard or dirichlet"


def drawn_classes(num_classes: int, num_clients: int, classes_per_client: int, seed: int) -> NDArray[np.bool_]:
    """Draw which classes each client is to have, as the pathological partition does.

    Parameters
    ----------
    num_classes, num_clients, classes_per_client, seed : int
        Of the partition.

    Returns
    -------
    ndarray of shape (num_clients, num_classes), bool
        Whether a client is to have a class. Fewer clients are the first of more.
    """
    from datasets import Dataset
    from flwr_datasets.partitioner import PathologicalPartitioner

    partitioner = PathologicalPartitioner(
        num_clients, "label", classes_per_client, "first-deterministic", shuffle=False, seed=seed
    )
    partitioner.dataset = Dataset.from_dict({"label": np.arange(num_classes)})
    partitioner._determine_partition_id_to_unique_labels()
    drawn = np.zeros((num_clients, num_classes), dtype=bool)
    for client, classes in partitioner._partition_id_to_unique_labels.items():
        drawn[client, classes] = True
    return drawn


def alpha_advice(can_be_dealt: Callable[[float], bool], alpha: float, num_samples: int) -> str:
    """Say which concentration of a Dirichlet can be dealt.

    Parameters
    ----------
    can_be_dealt : callable
        Tries a concentration.
    alpha : float
        As asked.
    num_samples : int
        Samples to be dealt.

    Returns
    -------
    str
        What to do, without a full stop.
    """
    direction = "raise alpha" if alpha < 1 else "lower alpha"
    if num_samples > MOST_SAMPLES_TRIED:
        return f"{direction}, or choose another partition"
    found = next(filter(can_be_dealt, _towards_1(alpha)), None)
    return f"{direction} to {found:g}" if found else "choose another partition"


def _towards_1(alpha: float) -> Iterator[float]:
    """Give powers of ten from a number towards 1, with it, the farther from 1 the wider apart."""
    exponent = math.log10(alpha)
    exponents = range(math.floor(exponent) + 1, 1) if exponent < 0 else range(math.ceil(exponent) - 1, -1, -1)
    while exponents:
        yield float(f"1e{exponents[0]}")
        exponents = exponents[max(1, len(exponents) // 4 if len(exponents) > 8 else 1) :]


def _nearest_clients(sizes: IntArray, num_clients: int, classes_per_client: int, seed: int) -> int | None:
    """Find the nearest number of clients among which all classes can be dealt."""
    if not 1 <= classes_per_client <= len(sizes):
        return None
    most = max(num_clients, min(len(sizes), int(sizes.sum())))
    wanted = np.cumsum(drawn_classes(len(sizes), most, classes_per_client, seed), axis=0)
    possible = 1 + np.flatnonzero(((wanted >= 1) & (wanted <= sizes)).all(axis=1))
    return int(possible[np.abs(possible - num_clients).argmin()]) if len(possible) else None


def _can_be_dealt(sizes: IntArray, drawn: NDArray[np.bool_]) -> bool:
    wanted = drawn.sum(axis=0)
    return bool(((wanted >= 1) & (wanted <= sizes)).all())
