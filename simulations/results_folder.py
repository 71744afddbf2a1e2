"""The folder of a command's results: new, or claimed, so that no two commands at once write into the same."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from itertools import count
from pathlib import Path

from fedcof.errors import UserError

LOCK_FILE_NAME = ".lock"
RUNS = Path("runs")


@contextmanager
def results_folder(output: Path | None, scenario: str = "") -> Iterator[Path]:
    """Give a folder that no other command writes into meanwhile; it is made if missing.

    Parameters
    ----------
    output : Path or None
        Its name; None for a new one in ``runs``, named after the scenario and the time.
    scenario : str
        What is run there.

    Yields
    ------
    Path
        The folder. If nothing was written into it, it is removed if it is new.

    Raises
    ------
    UserError
        If another command is at work in it, it cannot be made or written to, or is a file.
    """
    folder = RUNS if output is None else output
    new: list[Path] = []
    try:
        new = [place for place in (folder, *folder.parents) if not place.exists()]
        if output is None:
            folder = _new_folder(scenario)
            new.insert(0, folder)
        folder.mkdir(parents=True, exist_ok=True)
        lock = _locked(folder / LOCK_FILE_NAME)
    except BlockingIOError as error:
        raise UserError(
            f"Another fedcof command is at work in {folder}: wait for it, or name another folder with --output."
        ) from error
    except OSError as error:
        _remove(new)
        reason = _file_in_the_way(folder) or error.strerror
        raise UserError(
            f"No results can be written to {folder} ({reason}): name another folder with --output."
        ) from error
    try:
        yield folder
    finally:
        # Removed before it is let go: whoever gets a lock on a removed file sees that, and tries again.
        with suppress(OSError):
            (folder / LOCK_FILE_NAME).unlink()
        _remove(new)
        os.close(lock)


def _new_folder(scenario: str) -> Path:
    """Make a folder of a name that no other command has, be it started in the same second."""
    name = f"{Path(scenario).stem}-{datetime.now():%Y%m%d-%H%M%S}"
    RUNS.mkdir(exist_ok=True)
    for number in count(1):
        folder = RUNS / (name if number == 1 else f"{name}-{number}")
        with suppress(FileExistsError):
            folder.mkdir()
            return folder
    raise AssertionError


def _locked(path: Path) -> int:
    """Lock a file and give its descriptor; a killed command lets go of it too. Raises BlockingIOError."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise
        except OSError:
            # A disk without locks, as of some clusters, is used without.
            return descriptor
        if os.fstat(descriptor).st_nlink:
            return descriptor
        os.close(descriptor)


def _file_in_the_way(folder: Path) -> str:
    for place in (folder, *folder.parents):
        # The way there may be barred.
        with suppress(OSError):
            if place.is_file():
                return f"{place} is a file"
    return ""


def _remove(folders: list[Path]) -> None:
    """Remove folders that were made and have stayed empty, the innermost first."""
    with suppress(OSError):
        for folder in folders:
            folder.rmdir()
