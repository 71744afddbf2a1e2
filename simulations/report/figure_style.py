"""What all pictures share: size and ink, and labels that show any text as it is."""

from __future__ import annotations

import unicodedata
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from fedcof.printable import printable
from simulations.report.methods_and_keys import MethodStyle, method_styles
from simulations.report.seed_averages import SeedAverage, accuracy_of

LINES = ["-", "--", ":", "-."]
MARKERS = ["o", "s", "^", "D", "v", "P", "X", "*", "h"]
INK = "#222222"
SMALL = 8.5
MOST_NAMED_CLASSES = 20

FloatArray = NDArray[np.float64]
Styles = Mapping[str, MethodStyle]


def new_figure(width: float, height: float) -> tuple[Figure, Axes]:
    """Make a figure of one plot, in inches, that belongs to no window."""
    figure = Figure(figsize=(width, height), dpi=150, layout="constrained")
    return figure, figure.subplots()


def styles_of(averages: Sequence[SeedAverage]) -> Styles:
    """Choose the methods' looks; a report does so once, for all its pictures."""
    return method_styles(average.method for average in averages)


def plain_label(text: str, width: int) -> str:
    """Write a text so that matplotlib shows it as it is.

    Parameters
    ----------
    text : str
        Any text.
    width : int
        Most characters; a longer text ends in an ellipsis.

    Returns
    -------
    str
        One line, of composed characters, as fonts have them. Dollar signs are escaped, because two of them begin
        a formula; and a text that begins with an underscore, which matplotlib takes for one that is to be hidden,
        gets a character of no width before it.
    """
    line = " ".join(unicodedata.normalize("NFC", printable(text)).split())
    shown = line if len(line) <= width else line[: width - 1].rstrip() + "…"
    hidden = "\N{ZERO WIDTH SPACE}" if shown.startswith("_") else ""
    return hidden + shown.replace("$", r"\$")


@contextmanager
def drawn_quietly() -> Iterator[None]:
    """Draw without a warning for each character that the font lacks: a box stands in its place."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        yield


def as_number(value: float, _: object = None) -> str:
    """Write the number at a tick."""
    return f"{value:,.12g}"


def point_of(average: SeedAverage) -> tuple[float, float]:
    """Give a setting's uplink in MB (10^6 bytes) and its accuracy in per cent."""
    return average.average_of("uplink_bytes") / 1e6, accuracy_of(average) * 100
