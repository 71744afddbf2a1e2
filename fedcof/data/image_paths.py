"""Which image files a list of files, folders and patterns stands for, and what is left out of it."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from fedcof.data.folder_walk import is_hidden
from fedcof.embedding.flaws import Kind
from fedcof.embedding.image_check import flaw_of
from fedcof.errors import UserError, first_line

TWICE = "linked to twice"
NAMES_SHOWN = 3

# What is left out, by the reason.
LeftOut = dict[str, list[Path]]


@dataclass
class FoundImages:
    """Image files in the order in which they were asked for, each once.

    Attributes
    ----------
    images : list of Path
        What is an image by its content, and what was asked for by its name.
    named : set of Path
        Those of them that were asked for by name.
    left_out : dict of str to list of Path
        What was found and is not taken, by the reason.
    """

    images: list[Path] = field(default_factory=list)
    named: set[Path] = field(default_factory=set)
    left_out: LeftOut = field(default_factory=dict)


def find_images(places: Iterable[Path | str]) -> FoundImages:
    """Find the image files that are meant.

    Parameters
    ----------
    places : iterable of Path or str
        Files, which are taken whatever they hold; folders, which are searched with all below them, apart from
        what is hidden; and patterns with ``*``, ``?``, ``[...]`` and ``**``, for what no shell has resolved. In
        folders and by patterns is found what is an image by its content.

    Returns
    -------
    FoundImages
        By name, those that lie in a folder before those of the folders in it.

    Raises
    ------
    UserError
        If a place does not exist, or holds no image.
    """
    found = FoundImages()
    taken: set[Path] = set()
    left: set[Path] = set()
    for place in map(Path, places):
        has_image, left_out = False, LeftOut()
        for path, is_named, flaw in _files_of(place):
            # The same file behind a link to its folder is the same image.
            known = path.parent.resolve() / path.name
            if known not in taken and (is_named or known not in left):
                reason = flaw or ("" if is_named else _reason_against(path))
                if reason:
                    left.add(known)
                    left_out.setdefault(reason, []).append(path)
                else:
                    taken.add(known)
                    found.images.append(path)
            has_image |= known in taken
            if is_named:
                found.named.add(path)
        if not has_image:
            raise UserError(
                f"There is no image at {place}{f' ({reasons(left_out)})' if left_out else ''}: give image files, "
                "folders of them, or patterns such as 'DIR/**/*.png'."
            )
        for reason, paths in left_out.items():
            found.left_out.setdefault(reason, []).extend(paths)
    return found


def reasons(left_out: LeftOut) -> str:
    """Say how many are left out for each reason, and name the first of them.

    Parameters
    ----------
    left_out : dict of str to list of Path
        What is left out, by the reason.

    Returns
    -------
    str
        Such as ``2 no image (notes.txt, table.csv); 1 hidden (.git)``.
    """
    return "; ".join(f"{len(paths)} {reason} ({_some(paths)})" for reason, paths in sorted(left_out.items()))


def _files_of(place: Path) -> Iterator[tuple[Path, bool, str]]:
    """Give the files of one place: whether each was asked for by name, and why it is not looked at, if so."""
    if not os.path.lexists(place):
        with suppress(RuntimeError):  # There is no such user.
            place = place.expanduser()
    if not os.path.lexists(place):
        # Not by pathlib, whose ** does not look behind symbolic links.
        matches = sorted(map(Path, glob.iglob(str(place), recursive=True)))  # noqa: PTH207
    elif place.is_dir():
        matches = [place]
    else:
        yield place, True, ""
        return
    visited: set[tuple[int, int]] = set()
    for match in matches:
        for path, reason in _files_below(match, visited) if match.is_dir() else [(match, "")]:
            yield path, False, reason


def _files_below(folder: Path, visited: set[tuple[int, int]]) -> Iterator[tuple[Path, str]]:
    """Give all files below a folder, behind symbolic links too, and what is not looked into, with the reason.

    Folders that were visited are not visited again; those that are visited here are added to them.
    """
    unreadable: list[OSError] = []
    for name, folders, files in os.walk(folder, onerror=unreadable.append, followlinks=True):
        parent = Path(name)
        state = parent.stat()
        if (state.st_dev, state.st_ino) in visited:
            # A link to a folder above would be followed without an end.
            folders.clear()
            if parent != folder:
                yield parent, TWICE
            continue
        visited.add((state.st_dev, state.st_ino))
        yield from ((parent / hidden, Kind.HIDDEN) for hidden in sorted(folders) if is_hidden(hidden))
        folders[:] = sorted(name for name in folders if not is_hidden(name))
        yield from ((parent / name, Kind.HIDDEN if is_hidden(name) else "") for name in sorted(files))
    yield from ((Path(error.filename), _unreadable(error)) for error in unreadable)


def _reason_against(path: Path) -> str:
    """Say why what was found is not taken; empty if it is an image, be it a damaged one."""
    if not path.is_file():
        # A pipe would be waited for.
        return Kind.NO_IMAGE
    flaw = flaw_of(path)
    return "" if flaw is None or flaw.kind is Kind.BROKEN else flaw.kind


def _unreadable(error: OSError) -> str:
    return f"unreadable: {error.strerror or first_line(error)}"


def _some(paths: list[Path]) -> str:
    more = len(paths) - NAMES_SHOWN
    return ", ".join(map(str, paths[:NAMES_SHOWN])) + (f" and {more} more" if more > 0 else "")
