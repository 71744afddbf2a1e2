"""The files of a folder of classes: what lies directly in it are the classes, and all below belongs to them."""

from __future__ import annotations

import os
import stat
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from fedcof.data.intake import LeftOut
from fedcof.embedding.flaws import Flaw, Kind

# What systems, cameras and servers put beside images, in lower case; all else that is not hidden may be a class.
SYSTEM_NAMES = frozenset(
    {
        "thumbs.db",
        "ehthumbs.db",
        "desktop.ini",
        "@eadir",
        "__macosx",
        "__pycache__",
        "lost+found",
        "$recycle.bin",
        "#recycle",
        "#snapshot",
        "system volume information",
    }
)


@dataclass
class Walk:
    """What was found below a folder of classes.

    Attributes
    ----------
    files : list of (str, str)
        Path and class of each regular file, whatever its content; the class is empty where it lies beside the
        classes.
    classes : list of str
        The folders of classes.
    left_out : list of LeftOut
        What was not looked into.
    """

    files: list[tuple[str, str]] = field(default_factory=list)
    classes: list[str] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)


def walk(folder: Path, split: str) -> Walk:
    """Find all files below a folder, through symbolic links too.

    Parameters
    ----------
    folder : Path
        Holds a folder for each class.
    split : str
        What to call it.

    Returns
    -------
    Walk
        In no order that means anything. A folder that several links lead to is taken once a class.
    """
    found = Walk()
    above = {_identity(place) for place in (folder, *folder.absolute().parents)}
    for entry in _entries(folder, split, "", found):
        path = str(Path(entry.path))
        if entry.is_dir():
            found.classes.append(entry.name)
            _walk_below(path, split, entry.name, found, set(above))
        else:
            found.files.append((path, ""))
    return found


def _walk_below(folder: str, split: str, label: str, found: Walk, seen: set[tuple[int, int]]) -> None:
    """Go through a class's folders, one after another and not by recursion: they may be nested deep."""
    waiting = deque([folder])
    while waiting:
        here = waiting.popleft()
        identity = _identity(Path(here))
        if identity in seen:
            reason = "it is a link to a folder that is taken already, or back to one above it"
            found.left_out.append(LeftOut(split, here, Flaw(Kind.LINK, reason), label))
            continue
        seen.add(identity)
        for entry in _entries(Path(here), split, label, found):
            if entry.is_dir():
                waiting.append(entry.path)
            else:
                found.files.append((entry.path, label))


def _entries(folder: Path, split: str, label: str, found: Walk) -> Iterator[os.DirEntry[str]]:
    """Give the folders and regular files in a folder, and note all else as left out."""
    try:
        with os.scandir(folder) as entries:
            listed = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        flaw = Flaw(Kind.UNREADABLE, f"it is a folder that cannot be read ({error.strerror})")
        found.left_out.append(LeftOut(split, str(folder), flaw, label))
        return
    for entry in listed:
        if flaw_here := _flaw_of_entry(entry):
            files = files_within(entry.path) if flaw_here.kind is Kind.HIDDEN else 1
            found.left_out.append(LeftOut(split, entry.path, flaw_here, label, files=files))
        else:
            yield entry


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name was not put there by a person, or is not to be seen."""
    return name.startswith(".") or name.lower() in SYSTEM_NAMES


def _flaw_of_entry(entry: os.DirEntry[str]) -> Flaw | None:
    """Say why an entry is not looked at, judging by all but its content; None if it is."""
    if entry.name.startswith("."):
        return Flaw(Kind.HIDDEN, "its name begins with a dot")
    if entry.name.lower() in SYSTEM_NAMES:
        return Flaw(Kind.HIDDEN, "it is put there by a system, not by a person")
    try:
        entry.path.encode()
        mode = entry.stat().st_mode
    except UnicodeEncodeError:
        return Flaw(Kind.UNREADABLE, "its name is no text in UTF-8: rename it")
    except OSError as error:
        return _flaw_without_state(entry, error)
    is_either = stat.S_ISREG(mode) or stat.S_ISDIR(mode)
    return None if is_either else Flaw(Kind.NO_IMAGE, "it is neither a file nor a folder")


def _flaw_without_state(entry: os.DirEntry[str], error: OSError) -> Flaw:
    if isinstance(error, FileNotFoundError):
        return Flaw(Kind.LINK, "it is a symbolic link to what is not there")
    if entry.is_symlink():
        return Flaw(Kind.LINK, "it is a symbolic link that leads to itself")
    return Flaw(Kind.UNREADABLE, f"it cannot be read ({error.strerror})")


def files_within(path: str) -> int:
    """Count the files of a folder, without following a link.

    Parameters
    ----------
    path : str
        A file or a folder.

    Returns
    -------
    int
        At least 1: a file counts as one, and so does a folder of none.
    """
    if os.path.islink(path):  # noqa: PTH114
        return 1
    return max(1, sum(len(files) for _, _, files in os.walk(path)))


def _identity(folder: Path) -> tuple[int, int]:
    state = folder.stat()
    return state.st_dev, state.st_ino
