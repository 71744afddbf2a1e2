"""Text of others, fit for one line on a terminal or on a page: nothing in it moves a cursor or hides text."""

from __future__ import annotations

import re

# What Unicode calls spaces and line ends, of which a line holds none but the plain space.
_BREAKS = re.compile("[\t-\r\x1c-\x1f\x85\u2028\u2029]+")
# Control characters, halves of characters, and marks that turn the direction of what is written behind them.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


def printable(text: object) -> str:
    """Write a text on one line, without what a terminal would obey.

    Names, reasons and values come from users, nodes, files and libraries. Wherever they are printed, they pass
    here; what is kept on disk stays as it was.

    Parameters
    ----------
    text : object
        A text, or what ``str`` makes one of.

    Returns
    -------
    str
        The same characters, with a space for each run of line ends and tabs, and a replacement character for every
        control character, lone surrogate and mark of direction.
    """
    return _UNPRINTABLE.sub(REPLACEMENT, _BREAKS.sub(" ", str(text)))
