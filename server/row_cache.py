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
from dataclasses import asdict, dataclass
from logging import getLogger
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from fedcof.files import private_folder, whole_file, write_whole
from fedcof.statistics.base import Statistics
from fedcof.statistics.class_means import ClassMeanRows
from server.kept_files import DAMAGED, KeptUpload, read_noted

FOLDER_NAME = "rows"
INDEX_FILE_NAME = "index.json"
SEGMENT_PREFIX, SUFFIX = "segment-", ".safetensors"
VERSION = 1

# Fewer are decoded in less time than a file takes to be written.
FEWEST_UPLOADS = 256
# More segments than this are put together into one.
MOST_SEGMENTS = 16

CLASS_IDS, COUNTS, MEANS, NOISE, SIZES, NOISY = "class-ids", "counts", "means", "noise", "sizes", "noisy"

logger = getLogger("flwr")

Decode = Callable[[Sequence[KeptUpload]], list[Statistics]]


@dataclass(frozen=True, eq=False)
class MappedRows(ClassMeanRows):
    """Rows of an upload that were checked when they were decoded, in memory that is mapped from disk."""

    means: Tensor
    noise: Tensor | None = None

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
        self._noted: dict[str, tuple[list[int], list[KeptUpload]]] = {}
        # Of each upload the segment, and its place there.
        self._places: dict[str, tuple[str, int]] = {}
        self._current: dict[str, list[int]] = {}
        self._open()

    def read_noted(self, path: Path) -> list[KeptUpload]:
        """Read what is noted in a file of the store, or remember it; see :func:`server.kept_files.read_noted`."""
        stamp = self._current[path.name] = _stamp(path)
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
        found = self._mapped({self._places[key][0] for key in keys if key in self._places})
        given = [decoded[key] if key in decoded else found[self._places[key]] for key in keys]
        if decoded and all(isinstance(rows, ClassMeanRows) and rows.dtype == torch.float32 for rows in given):
            with suppress(OSError):
                self._write(uploads, decoded, given)
        return given

    def clear(self) -> None:
        """Forget all rows."""
        clear_rows(self._store)
        self._noted, self._places = {}, {}

    def _open(self) -> None:
        try:
            index = json.loads((self.folder / INDEX_FILE_NAME).read_text(encoding="utf-8"))
            if index["version"] != VERSION:
                return
            self._noted = {
                file: (stamp, [KeptUpload(**noted) for noted in uploads])
                for file, (stamp, uploads) in index["files"].items()
            }
            self._places = {key: (segment, place) for key, (segment, place) in index["places"].items()}
        except FileNotFoundError:
            return
        except DAMAGED as error:
            logger.warning("The rows in %s are damaged (%s): they are decoded again.", self.folder, error)
            self._noted, self._places = {}, {}

    def _mapped(self, segments: set[str]) -> dict[tuple[str, int], Statistics]:
        found: dict[tuple[str, int], Statistics] = {}
        for segment in segments:
            found |= {(segment, place): rows for place, rows in enumerate(_rows_in(self.folder / segment))}
        return found

    def _write(
        self, uploads: Sequence[KeptUpload], decoded: dict[str, Statistics], given: Sequence[Statistics]
    ) -> None:
        """Write what was decoded as a segment, or where there are many of them all anew."""
        segments = sorted({segment for segment, _ in self._places.values()})
        written = dict(decoded)
        if len(segments) >= MOST_SEGMENTS:
            written = {_key(upload): rows for upload, rows in zip(uploads, given, strict=True)}
            self._places = {}
        number = int(segments[-1][len(SEGMENT_PREFIX) : -len(SUFFIX)]) + 1 if segments else 0
        segment = f"{SEGMENT_PREFIX}{number:06d}{SUFFIX}"
        private_folder(self.folder)
        with whole_file(self.folder / segment) as unfinished:
            save_file(_as_arrays(list(written.values())), unfinished)
        self._places |= {key: (segment, place) for place, key in enumerate(written)}
        files = {
            file: [stamp, [_without_defaults(upload) for upload in noted]]
            for file, (stamp, noted) in self._noted.items()
            if self._current.get(file) == stamp
        }
        held = {_key(upload) for file in files for upload in self._noted[file][1]}
        places = {key: place for key, place in self._places.items() if key in held}
        index = {"version": VERSION, "files": files, "places": places}
        write_whole(self.folder / INDEX_FILE_NAME, json.dumps(index, separators=(",", ":")))
        used = {segment for segment, _ in places.values()}
        for path in self.folder.glob(f"{SEGMENT_PREFIX}*{SUFFIX}"):
            if path.name not in used:
                path.unlink()


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
    removed = [path for path in (here / INDEX_FILE_NAME, *sorted(here.glob(f"*{SUFFIX}"))) if path.exists()]
    for path in removed:
        path.unlink()
    with suppress(OSError):
        here.rmdir()
    return removed


def _key(upload: KeptUpload) -> str:
    return f"{upload.file}:{upload.name}"


def _stamp(path: Path) -> list[int]:
    known = path.stat()
    return [known.st_ino, known.st_size, known.st_mtime_ns]


def _without_defaults(upload: KeptUpload) -> dict[str, Any]:
    return {name: value for name, value in asdict(upload).items() if value not in ("", -1)}


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
    parts = [torch.split(arrays[key], sizes) for key in (CLASS_IDS, COUNTS, MEANS, NOISE)]
    return [
        MappedRows(ids, counts, means, noise if noisy else None)
        for ids, counts, means, noise, noisy in zip(*parts, arrays[NOISY].tolist(), strict=True)
    ]
