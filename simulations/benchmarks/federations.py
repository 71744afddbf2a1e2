"""A federation with the shape of iNaturalist-Users-120K: its client sizes, skewed classes, drawn features.

The real one (Hsu, Qi and Brown, ECCV 2020) has 120,293 images of 1,203 classes on 9,275 users, with 82,822 pairs of
a user and a class that the user holds. Features are drawn here, because their values change nothing about the cost.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from fedcof.data.precomputed import PREFIX
from fedcof.errors import UserError

SIZES_VARIABLE = "FEDCOF_INAT_SIZES"

NUM_CLIENTS = 9275
NUM_SAMPLES = 120_293
NUM_CLASSES = 1203
NUM_ROWS = 82_822
FEATURE_DIM = 1280
MEDIAN_SIZE = 2
LARGEST_SIZE = 2000

TEST_SAMPLES_PER_CLASS = 2
ROWS_PER_BLOCK = 8192

IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class GeneratedFeatures:
    """Features on disk, dealt to clients by their owners.

    Attributes
    ----------
    dataset : str
        Dataset name of the folder, ``features:DIR``.
    num_clients, num_samples : int
        Clients, and training samples on all of them.
    num_rows : int
        Class means that the clients have in all: pairs of a client and a class that it holds.
    """

    dataset: str
    num_clients: int
    num_samples: int
    num_rows: int


def client_sizes(path: Path | None = None, seed: int = 0) -> IntArray:
    """Give the number of samples of each client.

    Parameters
    ----------
    path : Path, optional
        Text file with a line of headings and then one number a line; by default what the environment variable
        ``FEDCOF_INAT_SIZES`` names. Without either, 9,275 sizes are drawn from a log-normal distribution with the
        median and, after scaling, the sum of iNaturalist-Users-120K.
    seed : int
        Seed of the drawing.

    Returns
    -------
    ndarray of shape (clients,), int64
        Sizes, at least 1.

    Raises
    ------
    UserError
        If the file is missing or holds something else.
    """
    named = os.environ.get(SIZES_VARIABLE)
    path = path or (Path(named) if named else None)
    if path is None:
        return _drawn_sizes(seed)
    try:
        sizes = np.loadtxt(path, dtype=np.int64, skiprows=1, ndmin=1)
    except (OSError, ValueError) as error:
        raise UserError(
            f"The client sizes cannot be read from {path}: give a file with a heading and one whole number a line."
        ) from error
    if sizes.ndim != 1 or not len(sizes) or sizes.min() < 1:
        raise UserError(f"The file {path} must have one number of samples, at least 1, on each line: mend it.")
    return sizes


def chosen_clients(sizes: IntArray, num_clients: int) -> IntArray:
    """Choose a smaller federation whose clients are as large as those of the whole.

    Parameters
    ----------
    sizes : ndarray of shape (clients,), int64
        Sizes of all clients.
    num_clients : int
        How many to choose.

    Returns
    -------
    ndarray of shape (num_clients,), int64
        Means of as many equal slices of the sorted sizes, rounded so that the mean is kept, in a random order.

    Raises
    ------
    UserError
        If there are not as many.
    """
    if not 1 <= num_clients <= len(sizes):
        raise UserError(f"There are {len(sizes)} clients, so {num_clients} cannot be chosen: ask for fewer.")
    edges = np.linspace(0, len(sizes), num_clients + 1).round().astype(np.int64)
    total_below = np.concatenate([[0], np.cumsum(np.sort(sizes))])[edges] * (num_clients / len(sizes))
    # Rounding the running total and not each size keeps the sum.
    chosen = np.maximum(np.diff(total_below.round().astype(np.int64)), 1)
    return np.random.default_rng(num_clients).permutation(chosen)


def class_probabilities(
    sizes: IntArray, num_classes: int = NUM_CLASSES, rows_per_sample: float = NUM_ROWS / NUM_SAMPLES
) -> NDArray[np.float64]:
    """Find the skew of a Zipf distribution with which clients hold as many classes as they should.

    Parameters
    ----------
    sizes : ndarray of shape (clients,), int64
        Samples of each client.
    num_classes : int
        Classes C.
    rows_per_sample : float
        Expected pairs of a client and a class that it holds, over the number of samples.

    Returns
    -------
    ndarray of shape (C,), float64
        Probability of each class. The skew is the nearest from 0 to 4 where no skew gives that many pairs.
    """
    values, times = np.unique(sizes, return_counts=True)
    ranks = np.arange(1, num_classes + 1, dtype=np.float64)

    def probabilities(skew: float) -> NDArray[np.float64]:
        weights: NDArray[np.float64] = ranks**-skew
        weights /= weights.sum()
        return weights

    low, high = 0.0, 4.0
    for _ in range(30):
        skew = (low + high) / 2
        missing = np.exp(values[:, None] * np.log1p(-probabilities(skew)))
        expected = float(times @ (1 - missing).sum(axis=1))
        low, high = (skew, high) if expected > rows_per_sample * sizes.sum() else (low, skew)
    return probabilities((low + high) / 2)


def write_federation(
    folder: Path, sizes: IntArray, num_classes: int = NUM_CLASSES, feature_dim: int = FEATURE_DIM, seed: int = 0
) -> GeneratedFeatures:
    """Draw a federation and write it, block by block.

    Parameters
    ----------
    folder : Path
        Where to write; made if missing.
    sizes : ndarray of shape (clients,), int64
        Samples of each client.
    num_classes, feature_dim : int
        Classes C and dimension d.
    seed : int
        Seed of everything that is drawn.

    Returns
    -------
    GeneratedFeatures
        What was written: a sample is its class's centre and noise, both standard normal.
    """
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(seed)
    owners = np.repeat(np.arange(len(sizes)), sizes)
    labels = generator.choice(num_classes, len(owners), p=class_probabilities(sizes, num_classes))
    rows = len(np.unique(owners * num_classes + labels))
    centres = generator.standard_normal((num_classes, feature_dim), dtype=np.float32)
    # Stored in no order of owners, as datasets are.
    order = generator.permutation(len(owners))
    owners, labels = owners[order], labels[order]
    test_labels = np.repeat(np.arange(num_classes), TEST_SAMPLES_PER_CLASS)
    np.save(folder / "train_owners.npy", owners)
    for split, of_split in (("train", labels), ("test", test_labels)):
        np.save(folder / f"{split}_labels.npy", of_split)
        _write_features(folder / f"{split}_features.npy", of_split, centres, generator)
    (folder / "classes.txt").write_text(
        "".join(f"class {number}\n" for number in range(num_classes)), encoding="utf-8"
    )
    return GeneratedFeatures(f"{PREFIX}{folder.absolute()}", len(sizes), len(owners), rows)


def _drawn_sizes(seed: int) -> IntArray:
    """Draw log-normal sizes, cut at the largest plausible one, and scale those above the median to the sum."""
    spread = np.sqrt(2 * np.log(NUM_SAMPLES / NUM_CLIENTS / MEDIAN_SIZE))
    drawn = np.random.default_rng(seed).lognormal(np.log(MEDIAN_SIZE), spread, NUM_CLIENTS)
    sizes = np.clip(drawn, 1, LARGEST_SIZE)
    above = sizes > MEDIAN_SIZE
    surplus = NUM_SAMPLES - NUM_CLIENTS - (sizes[~above] - 1).sum()
    extra = sizes[above] - 1
    sizes[above] = 1 + extra * (surplus / extra.sum())
    running = np.concatenate([[0], np.cumsum(sizes - 1)]).round()
    return 1 + np.diff(running).astype(np.int64)


def _write_features(
    path: Path, labels: IntArray, centres: NDArray[np.float32], generator: np.random.Generator
) -> None:
    features = open_memmap(path, mode="w+", dtype=np.float32, shape=(len(labels), centres.shape[1]))
    for start in range(0, len(labels), ROWS_PER_BLOCK):
        block = labels[start : start + ROWS_PER_BLOCK]
        noise = generator.standard_normal((len(block), centres.shape[1]), dtype=np.float32)
        features[start : start + len(block)] = centres[block] + noise
    features.flush()
