"""Features on their way to disk: what is embedded is kept in chunks, from which the next start goes on."""

from __future__ import annotations

import hashlib
import io
import json
import math
import shutil
import time
from bisect import insort
from dataclasses import asdict, astuple, dataclass
from logging import getLogger
from operator import attrgetter
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from fedcof.files import sync_written, write_all, write_whole

FEATURES = "features.npy"
CHUNKS = "chunks.jsonl"

# A kill costs one chunk: a small part of the split, a thousand images of a large one, seconds of a slow one.
CHUNKS_OF_A_SPLIT = 64
MOST_ROWS = 1024
MOST_SECONDS = 5.0

logger = getLogger(__name__)


@dataclass(frozen=True)
class Chunk:
    """Consecutive rows that are whole.

    Attributes
    ----------
    start, stop : int
        Its first row, and the one behind its last.
    sha256 : str
        Hexadecimal digest of their bytes.
    """

    start: int
    stop: int
    sha256: str


NO_CHUNK = Chunk(0, 0, "")


@dataclass(frozen=True)
class Kept:
    """What the list of chunks says is kept; their digests have not been looked at.

    Attributes
    ----------
    backbone : str
        Name of the backbone.
    shape : tuple of int
        Shape (n, d) of the features once they are whole.
    num_rows : int
        Rows that are kept.
    """

    backbone: str
    shape: tuple[int, int]
    num_rows: int


class UnfinishedFeatures:
    """The features of a split while it is embedded; the caller keeps other processes from the folder.

    Rows are written where they belong in ``features.npy``. A chunk of them counts once a line beside it says so,
    with its digest, which is what a kill of the process leaves. A crash of the machine may take what was not yet
    synced, of which there is only that of some seconds; the digests find out. Entering the context takes what an
    earlier process has left and is still what was written; all else is embedded again, with a warning in the log if
    it is damaged. Nothing is mapped: to write to a mapped file on a full disk would kill the process.

    Parameters
    ----------
    folder : Path
        Folder to fill; what it holds of something else is deleted.
    backbone : str
        Name of the backbone.
    shape : tuple of int
        Shape (n, d) of the features.
    """

    def __init__(self, folder: Path, backbone: str, shape: tuple[int, int]) -> None:
        self._folder, self._shape = folder, shape
        self._identity = {"entry": folder.name, "backbone": backbone, "shape": list(shape)}
        self._header = _header_of(shape)
        self._rows_of_a_chunk = min(shape[0] // CHUNKS_OF_A_SPLIT, MOST_ROWS)
        self._chunks: list[Chunk] = []
        self._synced = time.monotonic()
        self._begin(0)

    def __enter__(self) -> Self:
        self._chunks = self._whole_chunks()
        if not self._chunks:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder.mkdir(exist_ok=True)
        for path in self._folder.iterdir():
            if path.name not in (FEATURES, CHUNKS):
                path.unlink()
        (self._folder / FEATURES).touch()
        self._file = (self._folder / FEATURES).open("r+b", buffering=0)
        try:
            write_all(self._file, self._header)
            # Rewritten, it ends with a whole line whatever the last process was cut off in.
            lines = [self._identity, *map(asdict, self._chunks)]
            write_whole(self._folder / CHUNKS, "".join(json.dumps(line) + "\n" for line in lines))
            self._list = (self._folder / CHUNKS).open("ab", buffering=0)
        except BaseException:
            self._file.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self._end_chunk()
        except OSError:
            if error is None:
                raise
        finally:
            self._file.close()
            self._list.close()

    @property
    def num_kept(self) -> int:
        """Number of rows that are whole."""
        return sum(chunk.stop - chunk.start for chunk in self._chunks)

    @property
    def bytes_missing(self) -> int:
        """Bytes of the rows that are not."""
        return (self._shape[0] - self.num_kept) * self._bytes_of(1)

    def missing(self) -> list[range]:
        """Give the rows that are to be embedded.

        Returns
        -------
        list of range
            Runs of consecutive rows, in their order.
        """
        starts = [*(chunk.start for chunk in self._chunks), self._shape[0]]
        stops = [0, *(chunk.stop for chunk in self._chunks)]
        return [range(stop, start) for stop, start in zip(stops, starts, strict=True) if stop < start]

    def add(self, start: int, rows: NDArray[np.float32]) -> None:
        """Write rows, which are kept once the chunk that they belong to is large or old enough.

        Parameters
        ----------
        start : int
            Number of the first.
        rows : ndarray of shape (b, d), float32
            Features of one batch.

        Raises
        ------
        OSError
            If they cannot be written.
        """
        if start != self._stop:
            self._end_chunk()
            self._begin(start)
        content = np.ascontiguousarray(rows, np.float32).tobytes()
        self._file.seek(len(self._header) + self._bytes_of(start))
        write_all(self._file, content)
        self._digest.update(content)
        self._stop += len(rows)
        is_large = self._stop - self._start >= self._rows_of_a_chunk
        if is_large or time.monotonic() - self._begun >= MOST_SECONDS:
            self._end_chunk()

    def _begin(self, start: int) -> None:
        self._start = self._stop = start
        self._digest, self._begun = hashlib.sha256(), time.monotonic()

    def _end_chunk(self) -> None:
        if self._stop > self._start:
            # More often it would hold up a fast backbone, on a busy disk for longer than the embedding takes.
            if time.monotonic() - self._synced >= MOST_SECONDS:
                sync_written(self._file)
                self._synced = time.monotonic()
            chunk = Chunk(self._start, self._stop, self._digest.hexdigest())
            write_all(self._list, (json.dumps(asdict(chunk)) + "\n").encode())
            insort(self._chunks, chunk, key=attrgetter("start"))
        self._begin(self._stop)

    def _whole_chunks(self) -> list[Chunk]:
        """Read which chunks an earlier process has left, and leave out those that are not what was written."""
        try:
            identity, listed = _read_list(self._folder)
        except FileNotFoundError:
            return []
        except (OSError, ValueError):
            identity, listed = None, []
        if identity != self._identity:
            logger.warning("The unfinished features in %s are damaged, and all are embedded again.", self._folder)
            return []
        whole: list[Chunk] = []
        for chunk in sorted(filter(self._is_whole, listed), key=attrgetter("start")):
            if not whole or chunk.start >= whole[-1].stop:
                whole.append(chunk)
        if len(whole) < len(listed):
            logger.warning(
                "%d of %d chunks of the unfinished features in %s are damaged, and are embedded again.",
                len(listed) - len(whole),
                len(listed),
                self._folder,
            )
        return whole

    def _is_whole(self, chunk: Chunk) -> bool:
        if not 0 <= chunk.start < chunk.stop <= self._shape[0]:
            return False
        try:
            with (self._folder / FEATURES).open("rb") as file:
                file.seek(len(self._header) + self._bytes_of(chunk.start))
                content = file.read(self._bytes_of(chunk.stop - chunk.start))
        except OSError:
            return False
        return hashlib.sha256(content).hexdigest() == chunk.sha256

    def _bytes_of(self, rows: int) -> int:
        return rows * math.prod(self._shape[1:]) * np.dtype(np.float32).itemsize


def kept_in(folder: Path) -> Kept | None:
    """Read how far the features of a folder are.

    Parameters
    ----------
    folder : Path
        What :class:`UnfinishedFeatures` has filled.

    Returns
    -------
    Kept or None
        None where no chunk is whole.
    """
    try:
        identity, chunks = _read_list(folder)
        num_images, feature_dim = identity["shape"]
        kept = Kept(
            identity["backbone"], (num_images, feature_dim), sum(chunk.stop - chunk.start for chunk in chunks)
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return kept if kept.num_rows > 0 else None


def _read_list(folder: Path) -> tuple[Any, list[Chunk]]:
    """Read what the features are of, and the chunks; raises OSError and ValueError."""
    # Behind the last line end is what a killed process did not come to the end of.
    first, *lines = (folder / CHUNKS).read_bytes().split(b"\n")[:-1] or [b""]
    return json.loads(first), list(map(_chunk_of, lines))


def _chunk_of(line: bytes) -> Chunk:
    """Read a line; gives an empty chunk where it is damaged."""
    try:
        chunk = Chunk(**json.loads(line))
    except (ValueError, TypeError):
        return NO_CHUNK
    return chunk if [type(value) for value in astuple(chunk)] == [int, int, str] else NO_CHUNK


def _header_of(shape: tuple[int, int]) -> bytes:
    """Give what stands before the numbers in a .npy file."""
    description = {"descr": np.lib.format.dtype_to_descr(np.dtype(np.float32)), "fortran_order": False}
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {**description, "shape": shape})
    return header.getvalue()
