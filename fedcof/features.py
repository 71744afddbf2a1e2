"""Embedding images in batches, and the cache that keeps the features for every process that asks again.

A cache entry is a folder named after what it depends on: the backbone's fingerprint, the content of the images and
labels, and the precision. It is built under a lock in a folder of another name and moved into place whole, so a
reader finds either a complete entry or none; what is on disk is checked against its recorded digest, once per
process, before it is believed.
"""

from __future__ import annotations

import hashlib
import json
import math
import multiprocessing
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from logging import getLogger
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import datasets
import numpy as np
import timm
import torch
from filelock import FileLock
from numpy.lib.format import open_memmap
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from fedcof.backbones import Backbone
from fedcof.datasets import column_values, rgb_images
from fedcof.errors import UserError, unknown_name

CACHE_VARIABLE = "FEDCOF_CACHE"
AUTO = "auto"
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

FORMAT = 1
DESCRIPTION = "meta.json"
UNFINISHED = ".unfinished"
ROWS_PER_DIGEST = 1000

# A loading process takes seconds to start, so it has to have thousands of images to load.
FEWEST_IMAGES_FOR_WORKERS = 10_000
MOST_WORKERS = 8

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
        Name of the backbone; empty if the entry is not complete.
    num_images : int
        Number of images n; 0 if the entry is not complete.
    feature_dim : int
        Dimension d; 0 if the entry is not complete.
    num_bytes : int
        Size on disk.
    complete : bool
        False if it is still being written, or was left half-written.
    """

    key: str
    backbone: str
    num_images: int
    feature_dim: int
    num_bytes: int
    complete: bool


def extract_features(
    backbone: Backbone,
    images: datasets.Dataset,
    batch_size: int = 64,
    device: str = AUTO,
    progress: Progress | None = None,
    precision: str = AUTO,
) -> Tensor:
    """Embed images, in their order.

    An image's features do not depend on the images beside it beyond float rounding. On a CPU in float32
    (tf_efficientnet_lite0 at 96 px) batches of 16 and of 64 gave equal bits; batches of 1, 2, 3, 7 and 130 differed
    from them by at most 3e-6 of the largest feature.

    Parameters
    ----------
    backbone : Backbone
        The frozen feature extractor.
    images : datasets.Dataset
        A split with an ``image`` column.
    batch_size : int
        Images embedded at once. On a GPU that has not the memory it is halved until it fits.
    device : str
        Name of a torch device, or ``auto`` for a GPU if there is one.
    progress : callable, optional
        Called after every batch with its number of images.
    precision : {"auto", "float32", "bfloat16", "float16"}
        What the backbone computes in; ``auto`` is bfloat16 on a GPU that has it, float32 elsewhere.

    Returns
    -------
    Tensor of shape (n, d), float32
        On the CPU.

    Raises
    ------
    UserError
        If an image cannot be read, the device or the precision does not exist, one image alone does not fit the
        GPU, or a feature is not finite.
    """
    target = _device(device)
    features = torch.empty(len(images), backbone.feature_dim)
    for start, batch in _embedded_batches(backbone, images, batch_size, target, _precision(precision, target)):
        features[start : start + len(batch)] = batch
        if progress:
            progress(len(batch))
    return features


def cached_features(
    backbone: Backbone,
    images: datasets.Dataset,
    cache_dir: Path,
    batch_size: int = 64,
    device: str = AUTO,
    progress: Progress | None = None,
    precision: str = AUTO,
) -> FeatureTable:
    """Give the features of a split, embedding them only if no process has done so before.

    Of processes that ask at once one embeds, and the others wait for it. A damaged entry is computed again, with a
    warning in the log.

    Parameters
    ----------
    backbone : Backbone
        The frozen feature extractor.
    images : datasets.Dataset
        A split with columns ``image`` and ``label``.
    cache_dir : Path
        Folder of the cache; see :func:`feature_cache_dir`.
    batch_size, device, precision
        See :func:`extract_features`.
    progress : callable, optional
        Called after every batch with its number of images; not at all if nothing is embedded.

    Returns
    -------
    FeatureTable
        Features (n, d) and labels (n,).

    Raises
    ------
    UserError
        As :func:`extract_features`; or if the cache cannot be written.
    """
    target = _device(device)
    dtype = _precision(precision, target)
    shape = (len(images), backbone.feature_dim)
    entry = cache_dir / _cache_key(backbone, images, dtype)
    table = _read_entry(entry, shape)
    if table is not None:
        return table
    with _lock(entry):
        table = _read_entry(entry, shape)
        if table is None:
            batches = _embedded_batches(backbone, images, batch_size, target, dtype)
            with _new_entry(entry, backbone.name, shape) as unfinished:
                _write_features(unfinished / "features.npy", shape, batches, progress)
                np.save(unfinished / "labels.npy", column_values(images, "label").astype(np.int64))
            table = _read_entry(entry, shape)
    if table is None:
        raise UserError(f"The feature cache {cache_dir} does not keep what is written to it: set {CACHE_VARIABLE}.")
    return table


def feature_cache_dir() -> Path:
    """Folder of the cache: ``features`` in ``$FEDCOF_CACHE``, or else in ``fedcof`` in the user's cache folder.

    Returns
    -------
    Path
        It need not exist.
    """
    user_cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get(CACHE_VARIABLE) or Path(user_cache) / "fedcof").expanduser() / "features"


def list_cache(cache_dir: Path) -> list[CacheEntry]:
    """List the entries of a cache.

    Parameters
    ----------
    cache_dir : Path
        Folder of the cache; it need not exist.

    Returns
    -------
    list of CacheEntry
        In the order of their names, the unfinished ones too.
    """
    return [_describe(entry) for entry in _entries(cache_dir)]


def clear_cache(cache_dir: Path) -> int:
    """Delete all entries of a cache, those that a killed process left unfinished too.

    An entry that another process is writing stays. What a process has open stays readable to it.

    Parameters
    ----------
    cache_dir : Path
        Folder of the cache; it need not exist.

    Returns
    -------
    int
        Bytes freed.
    """
    freed = 0
    for entry in _entries(cache_dir):
        lock = FileLock(f"{entry.with_name(entry.name.removesuffix(UNFINISHED))}.lock")
        try:
            with lock.acquire(blocking=False):
                size = _size(entry)
                shutil.rmtree(entry)
        except TimeoutError:
            continue
        freed += size
    _verified_entry.cache_clear()
    return freed


class _TransformedBatches(Dataset[Tensor | UserError]):
    """Batches of a split as the backbone's input; an item is a batch, so that one slice of the table is decoded."""

    def __init__(
        self, transform: Callable[[Image.Image], Tensor], images: datasets.Dataset, batch_size: int
    ) -> None:
        self.transform, self.images, self.batch_size = transform, images, batch_size

    def __len__(self) -> int:
        return math.ceil(len(self.images) / self.batch_size)

    def __getitem__(self, number: int) -> Tensor | UserError:
        start = number * self.batch_size
        rows = range(start, min(start + self.batch_size, len(self.images)))
        try:
            return torch.stack([self.transform(image) for image in rgb_images(self.images, rows)])
        except UserError as error:
            # Raised in a loading process it would arrive with a traceback in its sentence.
            return error


class _Embedder:
    """Runs a backbone on a device, in parts as large as the device's memory allows."""

    def __init__(self, backbone: Backbone, device: torch.device, dtype: torch.dtype, batch_size: int) -> None:
        self.name, self.module = backbone.name, backbone.module
        self.device, self.dtype, self.part_size = device, dtype, batch_size

    def __call__(self, batch: Tensor) -> Tensor:
        """Embed a batch (n, 3, height, width): features (n, d) float32 on the CPU."""
        while True:
            try:
                features = torch.cat([self._embed(part) for part in torch.split(batch, self.part_size)])
                break
            except torch.OutOfMemoryError as error:
                self._halve(error, len(batch))
        if not torch.isfinite(features).all():
            raise UserError(
                f"The backbone {self.name} gives features that are not finite in {self.dtype}: use other weights "
                "or precision float32."
            )
        return features

    def _embed(self, part: Tensor) -> Tensor:
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            features: Tensor = self.module(part.to(self.device, non_blocking=True))
        return features.to("cpu", torch.float32)

    def _halve(self, error: torch.OutOfMemoryError, batch_size: int) -> None:
        if min(self.part_size, batch_size) <= 1:
            raise UserError(
                f"One image does not fit into the memory of {self.device} with the backbone {self.name}: free some "
                "there, choose a smaller image-size or backbone, or use the CPU."
            ) from error
        self.part_size = min(self.part_size, batch_size) // 2
        logger.warning("%s is out of memory: batches of %d images from here on.", self.device, self.part_size)
        torch.cuda.empty_cache()


def _embedded_batches(
    backbone: Backbone, images: datasets.Dataset, batch_size: int, device: torch.device, dtype: torch.dtype
) -> Iterator[tuple[int, Tensor]]:
    """Embed batch by batch; yields the number of the first image and the features (batch, d)."""
    num_workers = _num_workers(device, len(images))
    loader = DataLoader(
        _TransformedBatches(backbone.transform, images, batch_size),
        batch_size=None,
        num_workers=num_workers,
        # A forked copy of a process that runs threads, as torch, CUDA and Ray do, can hang.
        multiprocessing_context="spawn" if num_workers else None,
        pin_memory=device.type == "cuda",
    )
    with _on_device(backbone.module, device):
        embed = _Embedder(backbone, device, dtype, batch_size)
        for number, batch in enumerate(loader):
            if isinstance(batch, UserError):
                raise batch
            with torch.inference_mode():
                features = embed(batch)
            yield number * batch_size, features


@contextmanager
def _on_device(module: nn.Module, device: torch.device) -> Iterator[None]:
    """Bring a module to a device and take it back to the CPU, so that no GPU memory stays occupied."""
    if device.type == "cpu":
        yield
        return
    try:
        module.to(device)
        yield
    finally:
        module.to("cpu")
        if device.type == "cuda":
            torch.cuda.empty_cache()


def _num_workers(device: torch.device, num_images: int) -> int:
    """Choose how many processes load images while the device embeds.

    On a CPU they only take the cores from the backbone (measured: loading is 2 % of the time). Where torch has been
    told to keep to one thread, as in a Ray worker, or the process may have no children, there are none.
    """
    if device.type == "cpu" or num_images < FEWEST_IMAGES_FOR_WORKERS or multiprocessing.current_process().daemon:
        return 0
    return min(MOST_WORKERS, torch.get_num_threads() - 1)


def _device(name: str) -> torch.device:
    try:
        device = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == AUTO else name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UserError(
            f"The device {name!r} cannot be used here: choose auto, cpu, or one that torch has."
        ) from error
    return device


def _precision(name: str, device: torch.device) -> torch.dtype:
    if name == AUTO:
        has_bfloat16 = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if has_bfloat16 else torch.float32
    if name not in PRECISIONS:
        raise unknown_name("precision", name, [AUTO, *PRECISIONS])
    return PRECISIONS[name]


def _cache_key(backbone: Backbone, images: datasets.Dataset, dtype: torch.dtype) -> str:
    description = [FORMAT, timm.__version__, backbone.fingerprint, _content_digest(images), len(images), str(dtype)]
    return hashlib.sha256(json.dumps(description).encode()).hexdigest()


# A simulated client asks for the same split again and again, and datasets.Dataset never changes its rows.
_content_digests: WeakKeyDictionary[datasets.Dataset, str] = WeakKeyDictionary()


def _content_digest(images: datasets.Dataset) -> str:
    """Digest of what the images and labels are, wherever they were loaded from.

    The fingerprint that the library keeps is no key: that of a dataset made by a generator differs between
    processes, and that of image files does not tell whether a file has changed.
    """
    if images not in _content_digests:
        digest = hashlib.sha256()
        table = images.select_columns(["image", "label"]).with_format("arrow")
        for rows in table.iter(batch_size=ROWS_PER_DIGEST):
            for image in rows["image"].to_pylist():
                content = _image_content(image)
                digest.update(len(content).to_bytes(8))
                digest.update(content)
            digest.update(np.asarray(rows["label"]).astype(np.int64).tobytes())
        _content_digests[images] = digest.hexdigest()
    return _content_digests[images]


def _image_content(image: dict[str, Any] | None) -> bytes:
    """Give an embedded image's bytes, or what tells whether an image file has changed."""
    if image is None:
        return b""
    embedded: bytes | None = image["bytes"]
    return embedded if embedded is not None else _file_state(image["path"])


def _file_state(path: str | None) -> bytes:
    if path is None:
        return b""
    try:
        state = Path(path).stat()
    except OSError as error:
        raise UserError(f"The image file {path} cannot be found: put it back, or load the dataset anew.") from error
    return json.dumps([path, state.st_size, state.st_mtime_ns]).encode()


@contextmanager
def _lock(entry: Path) -> Iterator[None]:
    """Keep other processes from writing an entry."""
    # The lock's own file stays behind: to delete it would let two processes lock two files of one name.
    lock = FileLock(f"{entry}.lock")
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except OSError as error:
        raise _unwritable(entry, error.strerror) from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _new_entry(entry: Path, backbone_name: str, shape: tuple[int, int]) -> Iterator[Path]:
    """Give a folder to fill and move it into the entry's place; the caller holds the entry's lock."""
    unfinished = entry.with_name(entry.name + UNFINISHED)
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        unfinished.mkdir()
        yield unfinished
        digests = {name: _file_digest(unfinished / name) for name in ("features.npy", "labels.npy")}
        description = {"backbone": backbone_name, "shape": shape, "sha256": digests}
        (unfinished / DESCRIPTION).write_text(json.dumps(description))
        shutil.rmtree(entry, ignore_errors=True)
        unfinished.replace(entry)
    except OSError as error:
        raise _unwritable(entry, error.strerror) from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _write_features(
    path: Path, shape: tuple[int, int], batches: Iterator[tuple[int, Tensor]], progress: Progress | None
) -> None:
    needed = math.prod(shape) * np.dtype(np.float32).itemsize
    # Writing to a mapped file on a full disk kills the process.
    if shutil.disk_usage(path.parent).free < needed:
        raise _unwritable(path.parent, f"{needed / 1e6:.0f} MB do not fit on its disk")
    features = open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
    for start, batch in batches:
        features[start : start + len(batch)] = batch.numpy()
        if progress:
            progress(len(batch))
    features.flush()


def _unwritable(entry: Path, reason: str | None) -> UserError:
    return UserError(
        f"The feature cache {entry.parent} cannot be written ({reason}): make room in it, set {CACHE_VARIABLE} to "
        "another folder, or set feature-cache to false."
    )


def _read_entry(entry: Path, shape: tuple[int, int]) -> FeatureTable | None:
    """Open an entry; None if there is none or it is not what was written."""
    try:
        state = (entry / DESCRIPTION).stat()
    except OSError:
        if not entry.exists():
            return None
        state = None
    try:
        if state is None:
            raise ValueError(f"{DESCRIPTION} is missing")
        return _verified_entry(entry, shape, state.st_mtime_ns, state.st_ino)
    except (ValueError, KeyError, TypeError, AttributeError, EOFError, OSError) as error:
        logger.warning("The cached features in %s are damaged (%s) and are computed again.", entry, error)
        return None


@lru_cache(maxsize=16)
def _verified_entry(entry: Path, shape: tuple[int, int], written: int, inode: int) -> FeatureTable:
    """Open an entry whose digests are right; ``written`` and ``inode`` tell it from a later one in its place."""
    description = json.loads((entry / DESCRIPTION).read_text())
    for name in ("features.npy", "labels.npy"):
        if _file_digest(entry / name) != description["sha256"][name]:
            raise ValueError(f"{name} has changed")
    features = np.load(entry / "features.npy", mmap_mode="r")
    labels = np.load(entry / "labels.npy")
    if features.shape != shape or labels.shape != shape[:1] or tuple(description["shape"]) != shape:
        raise ValueError(f"the features have shape {features.shape} where {shape} was expected")
    return FeatureTable(features=features, labels=labels)


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _entries(cache_dir: Path) -> list[Path]:
    return sorted(path for path in cache_dir.glob("*") if path.is_dir())


def _describe(entry: Path) -> CacheEntry:
    key, size = entry.name.removesuffix(UNFINISHED), _size(entry)
    try:
        description = json.loads((entry / DESCRIPTION).read_text())
        num_images, feature_dim = description["shape"]
        backbone, complete = description["backbone"], entry.name == key
    except (ValueError, KeyError, TypeError, OSError):
        return CacheEntry(key, "", 0, 0, size, complete=False)
    return CacheEntry(key, backbone, num_images, feature_dim, size, complete)


def _size(entry: Path) -> int:
    """Bytes of an entry, or what is left of it if another process is deleting it."""
    size = 0
    with suppress(FileNotFoundError):
        for path in entry.iterdir():
            size += path.stat().st_size
    return size
