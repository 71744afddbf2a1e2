"""Partitions kept on disk: dealing takes seconds to minutes, and every process of a simulation needs the result."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Callable
from logging import getLogger
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedcof.errors import first_line
from fedcof.files import private_folder, whole_file

Partition = list[NDArray[np.int64]]

# To be raised when the dealing itself changes, so that nobody reads an older one.
FORMAT = 1

logger = getLogger(__name__)


def kept_partition(
    folder: Path, labels: NDArray[np.int64], settings: str, deal: Callable[[], Partition]
) -> Partition:
    """Read a partition that was dealt before, or deal and keep it.

    Parameters
    ----------
    folder : Path
        Folder of the kept partitions; made if missing.
    labels : ndarray of shape (n,), int64
        Class of each sample.
    settings : str
        Everything else that the partition depends on.
    deal : callable
        Gives the partition: for each client its ascending sample numbers.

    Returns
    -------
    list of ndarray
        What ``deal`` gives, or gave in another process.
    """
    digest = hashlib.sha256(f"{FORMAT} {settings}".encode() + np.ascontiguousarray(labels).tobytes())
    path = folder / f"{digest.hexdigest()[:32]}.npz"
    kept = _read(path, len(labels))
    if kept is not None:
        return kept
    parts = deal()
    try:
        private_folder(folder, leave_existing=True)
        with whole_file(path) as unfinished:
            np.savez(unfinished, samples=np.concatenate(parts), sizes=[len(part) for part in parts])
    except OSError as error:
        # Whoever asks again deals again, and the same.
        logger.warning(
            "The partition cannot be kept in %s (%s) and will be dealt again.", folder, first_line(error)
        )
    return parts


def _read(path: Path, num_samples: int) -> Partition | None:
    """Read a kept partition; None if there is none, or it is damaged."""
    try:
        with np.load(path) as arrays:
            samples, sizes = arrays["samples"], arrays["sizes"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    if sizes.sum() != num_samples or not np.array_equal(np.sort(samples), np.arange(num_samples)):
        return None
    return np.split(samples, np.cumsum(sizes)[:-1])
