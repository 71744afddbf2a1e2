"""Embedding images in batches, and the cache that keeps the features for every process that asks again.

A cache entry is a folder named after what it depends on: the backbone's fingerprint and the content of the images.
It is built under a lock in a folder of another name and moved into place whole, so a reader finds either a complete
entry or none; what is on disk is checked against its recorded digest once per process before it is believed.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from logging import getLogger
from pathlib import Path

import datasets
import numpy as np
import torch
from filelock import FileLock
from numpy.lib.format import open_memmap
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from fedcof.backbones import Backbone
from fedcof.datasets import column_values, rgb_images

CACHE_VARIABLE = "FEDCOF_CACHE"
FORMAT = 1

logger = getLogger(__name__)

Progress = Callable[[int], None]


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


@dataclass(frozen=True)
class CacheEntry:
    """One split's features on disk.

    Attributes
    ----------
    key : str
        Name of its folder.
    backbone : str
        Name of the backbone.
    num_images : int
        Number of images n.
    feature_dim : int
        Dimension d.
    num_bytes : int
        Size on disk.
    """

    key: str
    backbone: str
    num_images: int
    feature_dim: int
    num_bytes: int


def extract_features(
    backbone: Backbone, images: datasets.Dataset, batch_size: int = 64, progress: Progress | None = None
) -> Tensor:
    """Embed images, in their order.

    Parameters
    ----------
    backbone : Backbone
        The frozen feature extractor.
    images : Dataset
        A split with an ``image`` column.
    batch_size : int
        Images embedded at once.
    progress : callable, optional
        Called after every batch with its number of images.

    Returns
    -------
    Tensor of shape (n, d), float32
        On the CPU.

    Raises
    ------
    UserError
        If an image cannot be read.
    """
    features = torch.empty(len(images), backbone.feature_dim)
    for start, batch in _embedded_batches(backbone, images, batch_size):
        features[start : start + len(batch)] = batch
        if progress:
            progress(len(batch))
    return features


def cached_features(
    backbone: Backbone,
    images: datasets.Dataset,
    cache_dir: Path,
    batch_size: int = 64,
    progress: Progress | None = None,
) -> FeatureTable:
    """Give the features of a split, embedding them only if no process has done so before.

    Parameters
    ----------
    backbone : Backbone
        The frozen feature extractor.
    images : Dataset
        A split with columns ``image`` and ``label``.
    cache_dir : Path
        Folder of the cache; see :func:`feature_cache_dir`.
    batch_size : int
        Images embedded at once.
    progress : callable, optional
        Called after every batch with its number of images; not at all if nothing is embedded.

    Returns
    -------
    FeatureTable
        Features (n, d) and labels (n,).

    Raises
    ------
    UserError
        If an image cannot be read.
    """
    entry = cache_dir / _cache_key(backbone, images)
    table = _read_entry(entry)
    if table is None:
        cache_dir.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{entry}.lock"):
            table = _read_entry(entry)
            if table is None:
                _write_entry(entry, backbone, images, batch_size, progress)
                table = _read_entry(entry)
    if table is None:
        raise OSError(f"the feature cache {cache_dir} does not keep what is written to it")
    return table


def feature_cache_dir() -> Path:
    """Folder of the cache: ``$FEDCOF_CACHE``, or ``fedcof`` in the user's cache folder."""
    default = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "fedcof"
    return Path(os.environ.get(CACHE_VARIABLE, default)) / "features"


def list_cache(cache_dir: Path) -> list[CacheEntry]:
    """List the complete entries of a cache.

    Parameters
    ----------
    cache_dir : Path
        Folder of the cache.

    Returns
    -------
    list of CacheEntry
        In the order of their names.
    """
    return [_describe(entry) for entry in _entries(cache_dir) if (entry / "entry.json").is_file()]


def clear_cache(cache_dir: Path) -> int:
    """Delete all entries of a cache, the unfinished ones too.

    Parameters
    ----------
    cache_dir : Path
        Folder of the cache.

    Returns
    -------
    int
        Bytes freed.
    """
    freed = 0
    for entry in _entries(cache_dir):
        freed += _size(entry)
        shutil.rmtree(entry)
    _verified_entry.cache_clear()
    return freed


class _TransformedImages(Dataset[Tensor]):
    """Batches of a split as the backbone's input; a batch is one item, so that decoding sees a slice of the table."""

    def __init__(self, backbone: Backbone, images: datasets.Dataset, batch_size: int) -> None:
        self.transform, self.images, self.batch_size = backbone.transform, images, batch_size

    def __len__(self) -> int:
        return -(-len(self.images) // self.batch_size)

    def __getitem__(self, batch: int) -> Tensor:
        start = batch * self.batch_size
        stop = min(start + self.batch_size, len(self.images))
        return torch.stack([self.transform(image) for image in rgb_images(self.images, range(start, stop))])


def _embedded_batches(
    backbone: Backbone, images: datasets.Dataset, batch_size: int
) -> Iterator[tuple[int, Tensor]]:
    """Embed batch by batch; yields the number of the first image and the features (batch, d)."""
    loader = DataLoader(_TransformedImages(backbone, images, batch_size), batch_size=None)
    module = backbone.module
    with torch.inference_mode():
        for number, batch in enumerate(loader):
            yield number * batch_size, module(batch).to(torch.float32)


def _cache_key(backbone: Backbone, images: datasets.Dataset) -> str:
    description = f"{FORMAT} {backbone.fingerprint} {_content_digest(images)}"
    return hashlib.sha256(description.encode()).hexdigest()[:32]


def _content_digest(images: datasets.Dataset) -> str:
    """Digest of what the images and labels are, wherever they were loaded from."""
    return _digest_by_fingerprint(_Unhashed(images), images._fingerprint)


class _Unhashed:
    """Carries a value past a cache that tells calls apart by their other arguments."""

    def __init__(self, value: datasets.Dataset) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Unhashed)

    def __hash__(self) -> int:
        return 0


@lru_cache(maxsize=8)
def _digest_by_fingerprint(images: _Unhashed, fingerprint: str) -> str:
    table = images.value.select_columns(["image", "label"]).with_format("arrow")
    digest = hashlib.sha256()
    for batch in table.iter(batch_size=1000):
        for row in batch["image"].to_pylist():
            digest.update(row["bytes"] if row["bytes"] is not None else _file_state(row["path"]))
        digest.update(np.ascontiguousarray(batch["label"]).tobytes())
    return digest.hexdigest()


def _file_state(path: str) -> bytes:
    """What tells whether a file has changed without reading it."""
    state = Path(path).stat()
    return f"{path} {state.st_size} {state.st_mtime_ns}".encode()


def _write_entry(
    entry: Path, backbone: Backbone, images: datasets.Dataset, batch_size: int, progress: Progress | None
) -> None:
    """Build an entry beside its place and move it there; the caller holds its lock."""
    unfinished = entry.with_name(f"{entry.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    shape = (len(images), backbone.feature_dim)
    features = open_memmap(unfinished / "features.npy", mode="w+", dtype=np.float32, shape=shape)
    for start, batch in _embedded_batches(backbone, images, batch_size):
        features[start : start + len(batch)] = batch.numpy()
        if progress:
            progress(len(batch))
    features.flush()
    np.save(unfinished / "labels.npy", column_values(images, "label").astype(np.int64))
    description = {
        "backbone": backbone.name,
        "shape": shape,
        "digests": {name: _file_digest(unfinished / name) for name in ("features.npy", "labels.npy")},
    }
    (unfinished / "entry.json").write_text(json.dumps(description))
    shutil.rmtree(entry, ignore_errors=True)
    unfinished.rename(entry)
    _verified_entry.cache_clear()


def _read_entry(entry: Path) -> FeatureTable | None:
    """Open an entry; None if there is none or it is not what was written."""
    if not (entry / "entry.json").is_file():
        return None
    try:
        return _verified_entry(entry, (entry / "entry.json").stat().st_mtime_ns)
    except (ValueError, KeyError, OSError) as error:
        logger.warning("The cached features in %s are damaged (%s) and are computed again.", entry, error)
        return None


@lru_cache(maxsize=16)
def _verified_entry(entry: Path, written: int) -> FeatureTable:
    description = json.loads((entry / "entry.json").read_text())
    for name, digest in description["digests"].items():
        if _file_digest(entry / name) != digest:
            raise ValueError(f"{name} has changed")
    features = np.load(entry / "features.npy", mmap_mode="r")
    return FeatureTable(features=features, labels=np.load(entry / "labels.npy"))


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()


def _entries(cache_dir: Path) -> list[Path]:
    return sorted(path for path in cache_dir.glob("*") if path.is_dir())


def _describe(entry: Path) -> CacheEntry:
    description = json.loads((entry / "entry.json").read_text())
    num_images, feature_dim = description["shape"]
    return CacheEntry(entry.name, description["backbone"], num_images, feature_dim, _size(entry))


def _size(entry: Path) -> int:
    return sum(path.stat().st_size for path in entry.iterdir())
