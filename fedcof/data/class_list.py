"""The names of the classes that a federation agrees on, and how any list of names is written and found again."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from fedcof.errors import UserError


def class_names_of(classes: str) -> tuple[str, ...]:
    """Read the names of the classes that a federation agrees on.

    Parameters
    ----------
    classes : str
        What :func:`listed_names` takes, or the path of a text file with it.

    Returns
    -------
    tuple of str
        In the order of their ids.

    Raises
    ------
    UserError
        If there are fewer than two, or one stands twice; or the file is no text.
    """
    return listed_names(text_of_file(Path(classes)) if is_file(classes) else classes)


def names_in_text(classes: str) -> tuple[str, ...]:
    """Read any number of names, from a text or a file as :func:`class_names_of` does.

    Parameters
    ----------
    classes : str
        As there.

    Returns
    -------
    tuple of str
        As they stand there, perhaps none.

    Raises
    ------
    UserError
        If the file is no text.
    """
    return _names_in(text_of_file(Path(classes)) if is_file(classes) else classes)


def listed_names(text: str) -> tuple[str, ...]:
    """Read the names of the classes from a text, and never from a file.

    Parameters
    ----------
    text : str
        Names separated by commas or lines, without the blanks around them; or a JSON list of them, which holds any
        name: with a comma, a line end, a blank at its end, or none but blanks.

    Returns
    -------
    tuple of str
        In the order of their ids.

    Raises
    ------
    UserError
        If there are fewer than two, or one stands twice.
    """
    names = _names_in(text)
    if len(names) < 2 or len(set(names)) < len(names):
        raise UserError(
            f"The key classes gives {len(names)} names, {len(set(names))} of them different: give at least two, "
            "each once, separated by commas or as a text file with a name a line."
        )
    return names


def classes_text(names: Sequence[str]) -> str:
    """Write names so that :func:`listed_names` reads the same ones.

    Parameters
    ----------
    names : sequence of str
        Any names.

    Returns
    -------
    str
        A name a line, where lines can hold these names; else a JSON list.
    """
    lines = "\n".join(names)
    return lines if _names_in(lines) == tuple(names) else json.dumps(list(names))


def names_in_json(text: str) -> tuple[str, ...] | None:
    """Read a JSON list of texts.

    Parameters
    ----------
    text : str
        Any text.

    Returns
    -------
    tuple of str or None
        None where the text is none.
    """
    if not text.lstrip().startswith("["):
        return None
    try:
        names = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return tuple(names) if isinstance(names, list) and all(isinstance(name, str) for name in names) else None


def text_of_file(path: Path) -> str:
    """Read a text file in UTF-8, with or without a mark of it at its beginning.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    str
        Its text, with plain line ends.

    Raises
    ------
    UserError
        If it is not UTF-8.
    """
    try:
        # Not as text: Python would take every carriage return, which a name may hold, for a line end.
        return path.read_bytes().decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise UserError(f"The file {path} is not UTF-8 text: write a class name on each line.") from error


def places_of(names: Sequence[str], wanted: Sequence[str]) -> list[int]:
    """Find names in a list.

    Parameters
    ----------
    names : sequence of str
        The list.
    wanted : sequence of str
        What to find in it.

    Returns
    -------
    list of int
        The place of each that is wanted; -1 where there is none. A name that differs from one, and only one, of
        the list in how Unicode composes its characters is that one: some disks take names apart.
    """
    exactly = {name: place for place, name in enumerate(names)}
    composed: dict[str, list[int]] = {}
    for place, name in enumerate(names):
        composed.setdefault(unicodedata.normalize("NFC", name), []).append(place)
    found = []
    for name in wanted:
        alike = composed.get(unicodedata.normalize("NFC", name), [])
        found.append(exactly.get(name, alike[0] if len(alike) == 1 else -1))
    return found


def _names_in(text: str) -> tuple[str, ...]:
    names = names_in_json(text)
    if names is not None:
        return names
    lines = text.split("\n" if "\n" in text else ",")
    return tuple(line.strip() for line in lines if line.strip())


def is_file(classes: str) -> bool:
    """Say whether a text is the path of a file, seen from the working directory, and no names.

    Parameters
    ----------
    classes : str
        As for :func:`class_names_of`.

    Returns
    -------
    bool
        Whether it is.
    """
    try:
        return Path(classes).is_file()
    except (OSError, ValueError):
        # Many names make a text longer than a path may be, and a name may have what no path may.
        return False
