"""Files written whole: whoever reads one finds the old content or the new, never half of it, also after a crash."""

from __future__ import annotations

import io
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

# What is kept of a file's name in that of its unfinished copy, as a name may have 255 bytes.
_KEPT_OF_NAME = 40


OWNER_ALONE = 0o700
_OTHERS = 0o077


def private_folder(folder: Path, leave_existing: bool = False) -> Path:
    """Make a folder that its owner alone may look into: what this module writes into it is its owner's alone too.

    Parameters
    ----------
    folder : Path
        The folder. Folders above it that are missing are made in the same way.
    leave_existing : bool
        Whether one that is there stays as it is: its owner may have opened it to others.

    Returns
    -------
    Path
        The same.
    """
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    for place in reversed(missing):
        place.mkdir(exist_ok=True, mode=OWNER_ALONE)
    if not leave_existing:
        folder.chmod(OWNER_ALONE)
    return folder


@contextmanager
def nobody_else() -> Iterator[None]:
    """Have all that this process makes meanwhile, by whatever library, be its owner's alone."""
    before = os.umask(_OTHERS)
    try:
        yield
    finally:
        os.umask(before)


def write_whole(path: str | Path, content: str | bytes) -> None:
    """Write a file in one step.

    Parameters
    ----------
    path : str or Path
        File to write or to replace; its folder is made if missing.
    content : str or bytes
        The whole content; text is written in UTF-8.
    """
    with whole_file(path) as unfinished:
        unfinished.write_bytes(content.encode() if isinstance(content, str) else content)


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """Give a file to write to, which takes the place of another once the block is through.

    Parameters
    ----------
    path : str or Path
        File to write or to replace; its folder is made if missing.

    Yields
    ------
    Path
        A file of the same folder and suffix, whose name nobody else uses. If the block fails it is deleted, and
        ``path`` stays what it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.stem[:_KEPT_OF_NAME]}.{secrets.token_hex(8)}{path.suffix}")
    try:
        yield unfinished
        put_in_place(unfinished, path)
    except OSError as error:
        # What a full disk refuses has no name, and the unfinished file's says nothing to anybody.
        if error.filename in (None, str(unfinished)):
            error.filename = str(path)
        raise
    finally:
        unfinished.unlink(missing_ok=True)


def put_in_place(unfinished: Path, path: Path) -> None:
    """Rename a file, or a folder of files, once what it holds is on disk; the new name is then on disk too.

    In a folder that is its owner's alone it is so too, before it has its name.

    Parameters
    ----------
    unfinished : Path
        What was written; on the same disk as ``path``.
    path : Path
        The name to give it. A file of this name is replaced; a folder must not be there.
    """
    if unfinished.is_dir():
        for file in unfinished.iterdir():
            _sync(file)
        _sync_folder(unfinished)
    else:
        _sync(unfinished)
    if not path.parent.stat().st_mode & _OTHERS:
        for place in (unfinished, *(unfinished.iterdir() if unfinished.is_dir() else ())):
            place.chmod(place.stat().st_mode & OWNER_ALONE)
    unfinished.replace(path)
    _sync_folder(path.parent)


def write_all(file: io.FileIO, content: bytes) -> None:
    """Write at a file's position, all or with an OSError: a full disk may take a part without one.

    Parameters
    ----------
    file : io.FileIO
        A file opened without a buffer.
    content : bytes
        What to write.
    """
    rest = memoryview(content)
    while rest:
        rest = rest[file.write(rest) :]


def sync_written(file: io.FileIO) -> None:
    """Wait until what was written to an open file is on disk.

    Parameters
    ----------
    file : io.FileIO
        A file opened without a buffer.
    """
    os.fsync(file.fileno())


def _sync(path: Path) -> None:
    # Windows syncs only what is open for writing.
    with path.open("r+b") as file:
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    # Not every system lets a folder be opened, nor every file system let it be synced.
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
