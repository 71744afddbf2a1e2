"""The feature cache: a split is embedded once, and read from disk by every process that asks again.

A cache entry is a folder named after what it depends on: the backbone's fingerprint, the content of the images and
labels, and the precision. It is built under a lock in a folder of another name and moved into place whole, so a
reader finds either a complete entry or none; what is on disk is checked against its recorded digest, once per
process, before it is believed. An embedding that was interrupted goes on after what that folder holds.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from logging import getLogger
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import datasets
import numpy as np
import torch
from filelock import FileLock
from torch import Tensor

from fedcof.embedding.backbones import Backbone
from fedcof.embedding.device import AUTO, chosen_device, chosen_precision
from fedcof.embedding.feature_table import CACHE_VARIABLE, DESCRIPTION, FeatureTable, file_digest, open_features
from fedcof.embedding.features import Progress, embedded_batches
from fedcof.embedding.images import column_values, decoding_key
from fedcof.embedding.light_timm import timm
from fedcof.embedding.unfinished_features import CHUNKS, Kept, UnfinishedFeatures, kept_in
from fedcof.errors import UserError, first_line
from fedcof.files import private_folder, put_in_place, write_whole

FORMAT = 1
UNFINISHED = ".unfinished"
ROWS_PER_DIGEST = 1000

logger = getLogger(__name__)


@dataclass(frozen=True)
class CacheEntry:
    """One split's features on disk.

    Attributes
    ----------
    key : str
        Name of its folder.
    backbone : str
        Name of the backbone; empty if nothing says so.
    num_images : int
        Number of images n of the split; 0 if nothing says so.
    num_kept : int
        Number of those whose features are kept.
    feature_dim : int
        Dimension d; 0 if nothing says so.
    num_bytes : int
        Size on disk.
    complete : bool
        False if it is still being written, or was left half-written.
    """

    key: str
    backbone: str
    num_images: int
    num_kept: int
    feature_dim: int
    num_bytes: int
    complete: bool


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

    Of processes that ask at once one embeds, and the others wait for it, or go on from where it was when it was
    killed. So does the next to ask where an embedding was interrupted; the features are the same to the last bit.
    What is damaged is computed again, with a warning in the log.

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
        Called after every batch with its number of images, and before the first with the number that an interrupted
        embedding has left; not at all if nothing is embedded.

    Returns
    -------
    FeatureTable
        Features (n, d) and labels (n,).

    Raises
    ------
    UserError
        As :func:`extract_features`; or if the cache cannot be written.
    """
    target = chosen_device(device)
    dtype = chosen_precision(precision, target)
    shape = (len(images), backbone.feature_dim)
    entry = cache_dir / _cache_key(backbone, images, dtype)
    table = _read_entry(entry, shape)
    if table is not None:
        return table
    with _lock(entry):
        table = _read_entry(entry, shape)
        if table is None:
            with _new_entry(entry, backbone.name, shape) as unfinished:
                with UnfinishedFeatures(unfinished, backbone.name, shape) as features:
                    _check_room(entry, features.bytes_missing)
                    batches = embedded_batches(backbone, images, batch_size, target, dtype, features.missing())
                    _fill(features, batches, progress)
                _write_labels(unfinished / "labels.npy", images)
            table = _read_entry(entry, shape)
    if table is None:
        raise UserError(f"The feature cache {cache_dir} does not keep what is written to it: set {CACHE_VARIABLE}.")
    return table


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
    open_features.cache_clear()
    return freed


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
    """Give an embedded image's bytes, or what tells whether an image file has changed; and how it is decoded."""
    if image is None:
        return b""
    embedded: bytes | None = image["bytes"]
    return (embedded if embedded is not None else _file_state(image["path"])) + decoding_key(image)


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
        # Features tell nearly as much as their images.
        private_folder(entry.parent, leave_existing=True)
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
    try:
        yield unfinished
        digests = {name: file_digest(unfinished / name) for name in ("features.npy", "labels.npy")}
        description = {"backbone": backbone_name, "shape": shape, "sha256": digests}
        write_whole(unfinished / DESCRIPTION, json.dumps(description))
        shutil.rmtree(entry, ignore_errors=True)
        put_in_place(unfinished, entry)
        (entry / CHUNKS).unlink()
    except OSError as error:
        raise _unwritable(entry, error.strerror or first_line(error)) from error
    finally:
        # What is whole stays for whoever asks next.
        if not kept_in(unfinished):
            shutil.rmtree(unfinished, ignore_errors=True)


def _fill(
    features: UnfinishedFeatures, batches: Iterator[tuple[int, Tensor]], progress: Progress | None = None
) -> None:
    report = progress or (lambda _: None)
    if features.num_kept:
        report(features.num_kept)
    for start, batch in batches:
        features.add(start, batch.numpy())
        report(len(batch))


def _write_labels(path: Path, images: datasets.Dataset) -> None:
    content = io.BytesIO()
    np.save(content, column_values(images, "label").astype(np.int64))
    write_whole(path, content.getvalue())


def _check_room(entry: Path, needed: int) -> None:
    """Find out before anything is embedded what the disk would say in the end."""
    if shutil.disk_usage(entry.parent).free < needed:
        raise _unwritable(entry, f"{needed / 1e6:.0f} MB do not fit on its disk")


def _unwritable(entry: Path, reason: str | None) -> UserError:
    kept = kept_in(entry.with_name(entry.name + UNFINISHED))
    stays = f"; the {kept.num_rows} images embedded so far are kept in it" if kept else ""
    return UserError(
        f"The feature cache {entry.parent} cannot be written ({reason}{stays}): make room in it, set "
        f"{CACHE_VARIABLE} to another folder, or set feature-cache to false."
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
        return open_features(entry, shape, state.st_mtime_ns, state.st_ino)
    except (ValueError, KeyError, TypeError, AttributeError, EOFError, OSError) as error:
        logger.warning("The cached features in %s are damaged (%s) and are computed again.", entry, error)
        return None


def _entries(cache_dir: Path) -> list[Path]:
    return sorted(path for path in cache_dir.glob("*") if path.is_dir())


def _describe(entry: Path) -> CacheEntry:
    key, size = entry.name.removesuffix(UNFINISHED), _size(entry)
    if entry.name != key:
        kept = kept_in(entry) or Kept("", (0, 0), 0)
        num_images, feature_dim = kept.shape
        return CacheEntry(key, kept.backbone, num_images, kept.num_rows, feature_dim, size, complete=False)
    try:
        description = json.loads((entry / DESCRIPTION).read_text(encoding="utf-8"))
        num_images, feature_dim = description["shape"]
        return CacheEntry(key, description["backbone"], num_images, num_images, feature_dim, size, complete=True)
    except (ValueError, KeyError, TypeError, OSError):
        return CacheEntry(key, "", 0, 0, 0, size, complete=False)


def _size(entry: Path) -> int:
    """Bytes of an entry, or what is left of it if another process is deleting it."""
    size = 0
    with suppress(FileNotFoundError):
        for path in entry.iterdir():
            size += path.stat().st_size
    return size
