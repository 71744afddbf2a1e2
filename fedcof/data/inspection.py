"""One pass over images before any is embedded; what it finds is kept, so that no later start looks again."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import datasets

from fedcof.embedding.feature_table import feature_cache_dir
from fedcof.embedding.flaws import Flaw, Kind
from fedcof.embedding.image_check import flaw_of, reader
from fedcof.files import private_folder, write_whole

# To be raised when the pass itself changes.
FORMAT = 1
# Fewer are looked at again in less time than a note of them takes to be worth its file.
FEWEST_KEPT = 200
ROWS_AT_ONCE = 1000

Flaws = dict[int, Flaw]


def flaws_of_files(files: Sequence[str], thorough: bool = False) -> Flaws:
    """Find the files that are no images.

    Parameters
    ----------
    files : sequence of str
        Their paths.
    thorough : bool
        See :func:`fedcof.embedding.image_check.flaw_of`.

    Returns
    -------
    dict of int to Flaw
        By place in the sequence; an image has none.
    """
    digest = hashlib.sha256()
    states = [_state(file) for file in files]
    for file, state in zip(files, states, strict=True):
        known = [file, state.st_size, state.st_mtime_ns, state.st_ino] if state else [file]
        digest.update(json.dumps(known).encode())

    def look() -> Iterator[Flaw | None]:
        for file, state in zip(files, states, strict=True):
            yield _flaw_of_file(file, state, thorough)

    return _kept(digest.hexdigest(), len(files), thorough, look)


def flaws_of_rows(images: datasets.Dataset, thorough: bool = False) -> Flaws:
    """Find the rows of a table that have no image.

    Parameters
    ----------
    images : datasets.Dataset
        A split with an ``image`` column.
    thorough : bool
        See :func:`fedcof.embedding.image_check.flaw_of`.

    Returns
    -------
    dict of int to Flaw
        By row. What lies at an address and not in a file is not looked at.
    """
    encoded = images.select_columns("image").with_format("arrow")

    def look() -> Iterator[Flaw | None]:
        for rows in encoded.iter(batch_size=ROWS_AT_ONCE):
            for image in rows["image"].to_pylist():
                yield _flaw_of_row(image, thorough)

    return _kept(f"rows {images._fingerprint}", len(images), thorough, look)


def _flaw_of_row(image: Mapping[str, Any] | None, thorough: bool) -> Flaw | None:
    content, path = (image or {}).get("bytes"), (image or {}).get("path")
    if content is not None:
        return flaw_of(content, thorough)
    if not path:
        return Flaw(Kind.MISSING, "it has no image")
    return None if "://" in path else _flaw_of_file(path, _state(path), thorough)


def _state(file: str) -> os.stat_result | None:
    try:
        return Path(file).stat()
    except (OSError, ValueError):  # A name may have a zero in it.
        return None


def _flaw_of_file(file: str, state: os.stat_result | None, thorough: bool) -> Flaw | None:
    if state is None:
        return Flaw(Kind.MISSING, "there is no such file")
    # To open a pipe would wait for somebody to write to it.
    if not stat.S_ISREG(state.st_mode):
        return Flaw(Kind.NO_IMAGE, "it is no file")
    return flaw_of(Path(file), thorough)


def _kept(state: str, number: int, thorough: bool, look: Callable[[], Iterable[Flaw | None]]) -> Flaws:
    """Read what an earlier pass over the same files has found, or look."""
    key = hashlib.sha256(f"{FORMAT} {reader()} {number} {state}".encode()).hexdigest()[:32]
    path = feature_cache_dir().with_name("inspections") / f"{key}.json"
    with suppress(OSError, ValueError, KeyError, TypeError):
        note = json.loads(path.read_text(encoding="utf-8"))
        if note["thorough"] or not thorough:
            return {int(place): Flaw(Kind(kind), reason) for place, (kind, reason) in note["flaws"].items()}
    flaws = {place: flaw for place, flaw in enumerate(look()) if flaw}
    if thorough or number >= FEWEST_KEPT:
        found = {place: [flaw.kind, flaw.reason] for place, flaw in flaws.items()}
        # Without a note the next process looks again.
        with suppress(OSError):
            private_folder(path.parent, leave_existing=True)
            write_whole(path, json.dumps({"thorough": thorough, "flaws": found}))
    return flaws
