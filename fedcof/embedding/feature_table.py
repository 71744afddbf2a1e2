"""Features on disk: a table mapped from its files, once their digests are what was written."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedcof.errors import UserError

CACHE_VARIABLE = "FEDCOF_CACHE"
DESCRIPTION = "meta.json"


@dataclass(frozen=True, eq=False)
class FeatureTable:
    """Features of a split, in the order of its samples.

    Attributes
    ----------
    features : ndarray of shape (n, d), float32
        Read-only and mapped from disk; slice it to read.
    labels : ndarray of shape (n,), int64
        Class of each sample.
    """

    features: NDArray[np.float32]
    labels: NDArray[np.int64]


def feature_cache_dir() -> Path:
    """Folder of the cache: ``features`` in ``$FEDCOF_CACHE``, or else in ``fedcof`` in the user's cache folder.

    Returns
    -------
    Path
        Absolute; it need not exist.

    Raises
    ------
    UserError
        If no variable names a folder, and the user has no home.
    """
    named, user_cache = os.environ.get(CACHE_VARIABLE), os.environ.get("XDG_CACHE_HOME")
    try:
        home = Path(named or Path(user_cache or "~/.cache") / "fedcof").expanduser()
    except RuntimeError as error:
        raise UserError(
            f"There is no home folder to keep features in ({error}): set {CACHE_VARIABLE} to a folder for them."
        ) from error
    return home.absolute() / "features"


@lru_cache(maxsize=16)
def open_features(entry: Path, shape: tuple[int, int], written: int, inode: int) -> FeatureTable:
    """Open features that are what was written, once per process.

    Parameters
    ----------
    entry : Path
        Their folder.
    shape : tuple of int
        The shape (n, d) that they are to have.
    written, inode : int
        When its description was written, and its inode, which tell it from a later one in its place.

    Returns
    -------
    FeatureTable
        Features and labels.

    Raises
    ------
    ValueError, KeyError, TypeError, AttributeError, EOFError, OSError
        If it is damaged.
    """
    description = json.loads((entry / DESCRIPTION).read_text(encoding="utf-8"))
    for name in ("features.npy", "labels.npy"):
        if file_digest(entry / name) != description["sha256"][name]:
            raise ValueError(f"{name} has changed")
    features = np.load(entry / "features.npy", mmap_mode="r")
    labels = np.load(entry / "labels.npy")
    if features.shape != shape or labels.shape != shape[:1] or tuple(description["shape"]) != shape:
        raise ValueError(f"the features have shape {features.shape} where {shape} was expected")
    return FeatureTable(features=features, labels=labels)


def file_digest(path: Path) -> str:
    """SHA-256 digest of a file's content, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
