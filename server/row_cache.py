"""The rows of many kept uploads, decoded once and mapped from disk, so that one more upload costs that upload.

Sums that are kept and subtracted from are not those of a federation that never had the client: floating point
addition forgets. Rows are what any solve starts from, so it is these that are kept, in segments that are written
once: what has come or changed since is decoded into a segment of its own. Whatever file of the store is not the
one that was read then, by its inode, size and time, is read again: the store is believed, and never this.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from itertools import repeat
from logging import getLogger
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from fedcof.files import private_folder, whole_file
from fedcof.statistics.base import Statistics
from fedcof.statistics.class_means import ClassMeanRows
from server.kept_files import DAMAGED, KeptUpload, read_noted

FOLDER_NAME = "rows"
SEGMENT_PREFIX, SUFFIX = "segment-", ".safetensors"
VERSION = 1

# Fewer are decoded in less time than a file takes to be written.
FEWEST_UPLOADS = 256
# More segments than this are put together into one.
MOST_SEGMENTS = 16

NOTED = "noted"
CLASS_IDS, COUNTS, MEANS, NOISE, SIZES, NOISY = "class-ids", "counts", "means", "noise", "sizes", "noisy"

logger = getLogger("flwr")

Stamp = tuple[int, int, int]
Key = tuple[str, str]
_ATTRIBUTES = [attribute.name for attribute in fields(KeptUpload)]

Decode = Callable[[Sequence[KeptUpload]], list[Statistics]]


@dataclass(frozen=True, eq=False)
class MappedRows(ClassMeanRows):
    """Rows of an upload that were checked when they were decoded, in memory that is mapped from disk.

    How many they are, and that no class in the segment is beyond some number, is known without a look at them: of
    many small uploads, looking is what takes the time.
    """

    means: Tensor
    noise: Tensor | None
    size: int
    classes_below: int

    @property
    def num_rows(self) -> int:
        """Number of rows R."""
        return self.size

    def check_fits(self, num_classes: int, feature_dim: int) -> None:
        """Check the rows against the problem; see :meth:`Statistics.check_fits`."""
        if self.classes_below > num_classes or self.means.shape[1] != feature_dim:
            super().check_fits(num_classes, feature_dim)

    @property
    def feature_dim(self) -> int:
        """Dimension d of the feature vectors."""
        return self.means.shape[1]

    @property
    def dtype(self) -> torch.dtype:
        """Type of the means."""
        return self.means.dtype

    def rows(self, block: slice) -> Tensor:
        """Read the means of some rows, without a copy; see :meth:`ClassMeanRows.rows`."""
        return self.means[block]


class RowCache:
    """Decoded rows beside a store.

    Parameters
    ----------
    folder : Path
        The store's.
    """

    def __init__(self, folder: Path) -> None:
        self._store, self.folder = folder, folder / FOLDER_NAME
        # Of each file of the store how it was when it was read, and what was noted in it.
        self._noted: dict[str, tuple[Stamp, list[KeptUpload]]] = {}
        # Of each upload, by the file that it was read from, its segment and its place there.
        self._places: dict[Key, tuple[str, int]] = {}
        self._segments = sorted(path.name for path in self.folder.glob(f"{SEGMENT_PREFIX}*{SUFFIX}"))
        for segment in self._segments:
            self._open(segment)

    def read_noted(self, path: Path) -> list[KeptUpload]:
        """Read what is noted in a file of the store, or remember it; see :func:`server.kept_files.read_noted`."""
        stamp = _stamp(path)
        known = self._noted.get(path.name)
        if known is None or known[0] != stamp:
            for upload in known[1] if known else ():
                self._places.pop(_key(upload), None)
            self._noted[path.name] = known = stamp, read_noted(path)
        return known[1]

    def rows(self, uploads: Sequence[KeptUpload], decode: Decode) -> list[Statistics]:
        """Give the rows of uploads, and decode only what is not here.

        Parameters
        ----------
        uploads : sequence of KeptUpload
            Listed through :meth:`read_noted`.
        decode : callable
            Reads and decodes uploads.

        Returns
        -------
        list of Statistics
            In the order of the uploads.
        """
        keys = list(map(_key, uploads))
        missing = [upload for upload, key in zip(uploads, keys, strict=True) if key not in self._places]
        decoded = dict(zip(map(_key, missing), decode(missing), strict=True)) if missing else {}
        segments = {self._places[key][0] for key in keys if key in self._places}
        found = {segment: _rows_in(self.folder / segment) for segment in segments}

        def rows_of(key: Key) -> Statistics:
            if key in decoded:
                return decoded[key]
            segment, place = self._places[key]
            return found[segment][place]

        given = list(map(rows_of, keys))
        if decoded and all(
            isinstance(rows, ClassMeanRows) and rows.dtype == torch.float32 for rows in decoded.values()
        ):
            # Whoever cannot write decodes again the next time.
            with suppress(OSError):
                everything = len(self._segments) >= MOST_SEGMENTS
                self._write(dict(zip(keys, given, strict=True)) if everything else decoded, everything)
        return given

    def _open(self, segment: str) -> None:
        try:
            with safe_open(self.folder / segment, framework="pt") as file:
                noted = json.loads(file.metadata()[NOTED])
            if noted["version"] != VERSION:
                return
            stamps = dict(zip(noted["files"], zip(*noted["stamps"], strict=True), strict=True))
            places = noted["places"]
            columns = [value if isinstance(value, list) else repeat(value, len(places)) for value in noted["noted"]]
            by_file: dict[str, list[KeptUpload]] = {file: [] for file in stamps}
            for place, *values in zip(places, *columns, strict=True):
                upload = KeptUpload(*values)
                by_file[upload.file].append(upload)
                if place >= 0:
                    self._places[_key(upload)] = segment, place
            self._noted |= {file: (stamps[file], uploads) for file, uploads in by_file.items()}
        except DAMAGED as error:
            logger.warning("The rows in %s are damaged (%s): they are decoded again.", self.folder / segment, error)

    def _write(self, decoded: dict[Key, Statistics], everything: bool) -> None:
        """Write what was decoded as a segment of its own, in the place of all others where it is everything."""
        last = int(self._segments[-1][len(SEGMENT_PREFIX) : -len(SUFFIX)]) if self._segments else -1
        segment = f"{SEGMENT_PREFIX}{last + 1:06d}{SUFFIX}"
        places = {key: place for place, key in enumerate(decoded)}
        files = sorted({file for file, _ in decoded})
        uploads = [upload for file in files for upload in self._noted[file][1]]
        noted = {
            "version": VERSION,
            "files": files,
            "stamps": list(zip(*(self._noted[file][0] for file in files), strict=True)),
            "noted": [_shortened([getattr(upload, name) for upload in uploads]) for name in _ATTRIBUTES],
            "places": [places.get(_key(upload), -1) for upload in uploads],
        }
        private_folder(self.folder)
        with whole_file(self.folder / segment) as unfinished:
            said = {NOTED: json.dumps(noted, separators=(",", ":"))}
            save_file(_as_arrays(list(decoded.values())), unfinished, said)
        for old in self._segments if everything else ():
            (self.folder / old).unlink(missing_ok=True)


def clear_rows(folder: Path) -> list[Path]:
    """Remove the decoded rows beside a store.

    Parameters
    ----------
    folder : Path
        The store's.

    Returns
    -------
    list of Path
        What was removed.
    """
    here = folder / FOLDER_NAME
    removed = sorted(here.glob(f"*{SUFFIX}"))
    for path in removed:
        path.unlink()
    with suppress(OSError):
        here.rmdir()
    return removed


def _key(upload: KeptUpload) -> Key:
    return upload.file, upload.name


def _stamp(path: Path) -> Stamp:
    known = path.stat()
    return known.st_ino, known.st_size, known.st_mtime_ns


def _shortened(values: list[Any]) -> Any:  # noqa: ANN401
    """Write one value for a whole column of it."""
    return values[0] if len(set(values)) == 1 and len(values) > 1 else values


def _as_arrays(statistics: Sequence[Statistics]) -> dict[str, Tensor]:
    rows = [upload for upload in statistics if isinstance(upload, ClassMeanRows)]
    noise = [
        torch.zeros(upload.num_rows) if upload.noise is None else upload.noise.to(torch.float32) for upload in rows
    ]
    return {
        CLASS_IDS: torch.cat([upload.class_ids for upload in rows]),
        COUNTS: torch.cat([upload.counts for upload in rows]),
        MEANS: torch.cat([upload.rows(slice(0, upload.num_rows)) for upload in rows]),
        NOISE: torch.cat(noise),
        SIZES: torch.tensor([upload.num_rows for upload in rows]),
        NOISY: torch.tensor([upload.noise is not None for upload in rows]),
    }


def _rows_in(path: Path) -> list[MappedRows]:
    with safe_open(path, framework="pt") as file:
        arrays = {key: file.get_tensor(key) for key in (CLASS_IDS, COUNTS, MEANS, NOISE, SIZES, NOISY)}
    sizes = arrays[SIZES].tolist()
    below = int(arrays[CLASS_IDS].max()) + 1 if len(arrays[CLASS_IDS]) else 0
    ids, counts, means = (torch.split(arrays[key], sizes) for key in (CLASS_IDS, COUNTS, MEANS))
    noisy = arrays[NOISY]
    noise = torch.split(arrays[NOISE], sizes) if bool(noisy.any()) else repeat(None, len(sizes))
    return [
        MappedRows(of_class, count, mean, variance if has_noise else None, size, below)
        for of_class, count, mean, variance, has_noise, size in zip(
            ids, counts, means, noise, noisy.tolist(), sizes, strict=True
        )
    ]
