"""Few samples on purpose: which training samples the clients of a simulation have, all of them together."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fedcof.data.problem import Sampled, labels_of
from fedcof.data.section import DataSection

# Behind the seed, so that no two things are drawn by the same numbers; partitions and clients have one more each.
_OF_SAMPLES, _OF_CLASSES = (0, 1), (0, 2)

IntArray = NDArray[np.int64]


def held_samples(config: Sampled) -> IntArray | None:
    """Which samples of the training split anybody has in a simulation.

    Parameters
    ----------
    config : Sampled
        The run's section on data says how few.

    Returns
    -------
    ndarray or None
        Ascending sample numbers, int64; None for all of them.

    Raises
    ------
    UserError
        If the dataset cannot be loaded.
    """
    return draw_samples(labels_of(config, "train"), config.data) if is_narrowed(config.data) else None


def is_narrowed(data: DataSection) -> bool:
    """Say whether the clients of a simulation have only some of the training samples."""
    return not data.on_nodes and bool(data.samples_per_class or data.unheld_classes)


def draw_samples(labels: IntArray, data: DataSection) -> IntArray:
    """Draw the samples that there are to be.

    What a seed draws for fewer samples of a class, or more classes that nobody holds, is a part of what it draws
    for more samples and fewer such classes: a comparison of several numbers is one of nested federations.

    Parameters
    ----------
    labels : ndarray of shape (n,), int64
        Class of each sample of the training split.
    data : DataSection
        How many samples of each class, the share of the classes that nobody holds, and the seed.

    Returns
    -------
    ndarray
        Ascending sample numbers, int64. A class with fewer samples than asked for keeps all that it has; one class
        at least is held, and one at least is not where a share of them is not to be.
    """
    classes, dense, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    held = np.ones(len(classes), dtype=bool)
    if data.unheld_classes:
        number = min(max(round(data.unheld_classes * len(classes)), 1), len(classes) - 1)
        held[np.random.default_rng([data.seed, *_OF_CLASSES]).permutation(len(classes))[:number]] = False
    chosen = held[dense]
    if data.samples_per_class:
        order = np.random.default_rng([data.seed, *_OF_SAMPLES]).permutation(len(labels))
        by_class = order[np.argsort(dense[order], kind="stable")]
        place_in_class = np.arange(len(labels)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        chosen[by_class[place_in_class >= data.samples_per_class]] = False
    return np.flatnonzero(chosen).astype(np.int64, copy=False)
