"""How frequent each class is, as a user writes it: a name and a count a line."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path

from fedcof.data.class_list import names_in_text, places_of, text_of_file
from fedcof.errors import UserError

# The number is what stands behind the last blank, comma, colon or equal sign: a name may hold any of them.
_LINE = re.compile(r"(?P<name>.*\S)\s*[\s,:=]\s*(?P<count>\S+)")
MOST_NAMED = 10


def frequencies_in(path: Path, names: Sequence[str]) -> list[float]:
    """Read how frequent classes are from a text file.

    Parameters
    ----------
    path : Path
        A file with a name and a count, or a share, a line, a blank, comma, colon or equal sign between them; or
        with a JSON object of counts by name.
    names : sequence of str
        All classes.

    Returns
    -------
    list of float
        One for each of the classes; 0 for those that the file does not name.

    Raises
    ------
    UserError
        If the file is missing or not text, a line has no count, a name is unknown or stands twice, or no count is
        above 0.
    """
    if not path.is_file():
        raise UserError(f"There is no file {path}: name one with a class name and a count on each line.")
    pairs = _pairs_in(text_of_file(path), path)
    places = known_places([name for name, _ in pairs], names)
    if len(set(places)) < len(places):
        raise UserError(f"The file {path} gives the count of a class twice: give each once.")
    frequencies = [0.0] * len(names)
    for place, (_, count) in zip(places, pairs, strict=True):
        frequencies[place] = count
    if not any(frequencies):
        raise UserError(
            f"The file {path} gives no class a count above 0: write a class name and a count on each line."
        )
    return frequencies


def classes_in(classes: str, names: Sequence[str]) -> list[int]:
    """Read which classes are meant.

    Parameters
    ----------
    classes : str
        Names as :func:`fedcof.data.class_list.listed_names` takes them, or a text file with them.
    names : sequence of str
        All classes.

    Returns
    -------
    list of int
        Their places in the list of all.

    Raises
    ------
    UserError
        If none is named, or one that is unknown.
    """
    wanted = names_in_text(classes)
    if not wanted:
        raise UserError(
            f"The list of classes {classes!r} names none: give at least one, separated by commas or as a text file "
            "with a name a line."
        )
    return known_places(wanted, names)


def known_places(wanted: Sequence[str], names: Sequence[str]) -> list[int]:
    """Find classes by name; raises UserError for those that are unknown."""
    places = places_of(names, wanted)
    unknown = [name for name, place in zip(wanted, places, strict=True) if place < 0]
    if unknown:
        others = f" and {len(names) - MOST_NAMED} others" if len(names) > MOST_NAMED else ""
        raise UserError(
            f"The classifier has no class {', '.join(map(repr, unknown[:MOST_NAMED]))}: choose of its "
            f"{len(names)}, {', '.join(names[:MOST_NAMED])}{others}."
        )
    return places


def _pairs_in(text: str, path: Path) -> list[tuple[str, float]]:
    if text.lstrip().startswith("{"):
        try:
            found = json.loads(text)
        except ValueError as error:
            raise UserError(f"The file {path} begins as JSON but is none ({error}): mend it.") from error
        return [(name, _count(count, name, path)) for name, count in found.items()]
    pairs = []
    for line in filter(str.strip, text.split("\n")):
        match = _LINE.fullmatch(line.strip())
        if match is None:
            raise _no_count(line.strip(), path)
        pairs.append((match["name"].rstrip(",:= \t"), _count(match["count"], line.strip(), path)))
    return pairs


def _count(value: object, line: str, path: Path) -> float:
    try:
        count = float(str(value))
    except ValueError:
        count = math.nan
    if not (count >= 0 and math.isfinite(count)):
        raise _no_count(line, path)
    return count


def _no_count(line: str, path: Path) -> UserError:
    return UserError(
        f"The line {line!r} of {path} does not end in a count from 0 on: write a class and a count on each line."
    )
