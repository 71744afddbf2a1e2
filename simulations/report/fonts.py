"""Fonts: which of the installed ones have the characters of a text, and which texts a picture cannot show.

Matplotlib takes each character from the first of its font families that has it, but looks for no other. A character
that none of them has is a box. The page needs none of this: a browser finds its own fonts.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache

import matplotlib
from matplotlib import font_manager
from matplotlib.ft2font import FT2Font

# From this version on matplotlib joins and orders letters as their script wants them.
SHAPES_TEXT = tuple(map(int, matplotlib.__version__.split(".")[:2])) >= (3, 11)

# It has a box for every character that there is, and matplotlib takes it where nothing else is left.
_LAST_RESORT = "last resort"
_PLAIN = ("normal", "regular", "book", "medium", 400, 500)
_RIGHT_TO_LEFT = ("R", "AL", "AN")


def can_draw(text: str) -> bool:
    """Say whether a picture can show a text with the fonts that are installed.

    Parameters
    ----------
    text : str
        Any text, printable.

    Returns
    -------
    bool
        False where a character is in no font, or letters would be neither joined nor ordered as they should be.
    """
    characters = _characters(text)
    if not SHAPES_TEXT and any(map(_needs_shaping, characters)):
        return False
    return all(_family_with(character) is not None for character in characters)


@contextmanager
def fonts_for(texts: Iterable[str]) -> Iterator[None]:
    """Draw with the fonts that have the characters of some texts, as far as any installed font does.

    Parameters
    ----------
    texts : iterable of str
        What may be written in the pictures.
    """
    characters = sorted({character for text in texts for character in _characters(text)})
    found = dict.fromkeys(filter(None, map(_family_with, characters)))
    with matplotlib.rc_context({"font.family": [*matplotlib.rcParams["font.family"], *found]}):
        yield


def _characters(text: str) -> list[str]:
    """List what is to be drawn, accents on their letters, as fonts have them."""
    return [character for character in unicodedata.normalize("NFC", text) if not character.isspace()]


def _needs_shaping(character: str) -> bool:
    return unicodedata.bidirectional(character) in _RIGHT_TO_LEFT or unicodedata.category(character)[0] == "M"


@cache
def _family_with(character: str) -> str | None:
    """Find the family that draws a character: empty for the usual one, None where there is none."""
    if _draws(font_manager.findfont(font_manager.FontProperties()), character):
        return ""
    return next((family for family, path in _families() if _draws(path, character)), None)


@cache
def _families() -> list[tuple[str, str]]:
    """List the installed families with the file of their plain face, those without serifs first."""
    faces: dict[str, str] = {}
    for entry in font_manager.fontManager.ttflist:
        is_plain = entry.style == "normal" and entry.weight in _PLAIN and entry.size == "scalable"
        if is_plain and _LAST_RESORT not in entry.name.lower():
            faces.setdefault(entry.name, entry.fname)
    return sorted(faces.items(), key=lambda face: ("sans" not in face[0].lower(), face[0]))


def _draws(path: str, character: str) -> bool:
    """Whether a font has a character, and not only as a coloured picture."""
    try:
        font = _font(path)
        return bool(font.get_char_index(ord(character)) and font.load_char(ord(character)).width)
    except (OSError, RuntimeError):
        return False


@cache
def _font(path: str) -> FT2Font:
    font = FT2Font(path)
    font.set_size(10, 72)
    return font
