"""The terminal: bars, tables and lines whose text is printed as it is, never obeyed; light, because --help is."""

from __future__ import annotations

import os
from collections.abc import Sequence

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from fedcof.printable import printable

WIDTH_OF_A_FILE = 160
# A column of text is wrapped to no less than this, or to its longest text.
LEAST_OF_A_TEXT = 12
_NARROWEST = 3
LEAST_COLUMNS, USUAL_WIDTH = 20, 80
_LEAST_FOR_BARS = 60
# The table's left border; and of each column the blank before and after it, and the border behind it.
_FRAME, _BETWEEN = 1, 3

# Names, paths, reasons and values are text and no markup, whoever prints them.
console = Console(markup=False, emoji=False)
_columns = os.environ.get("COLUMNS", "")
# Some terminals say 0 or 1 where they do not know.
_known = console.width >= LEAST_COLUMNS
if not console.is_terminal and not (_columns.isdecimal() and _known):
    # Written to a file or a pipe, a table has no need to be cut.
    console.width = WIDTH_OF_A_FILE
elif not _known:
    console.width = USUAL_WIDTH


def say(text: str, style: str = "") -> None:
    """Print a line of any text, whole, however narrow the terminal.

    Parameters
    ----------
    text : str
        What to print; nothing in it is taken for markup or obeyed by the terminal.
    style : str
        Rich's name of a colour for all of it.
    """
    console.print(Text(printable(text), style=style), soft_wrap=True)


def progress_bars() -> Progress:
    """Make the bars: what is counted, how far, for how long; on a narrow terminal without the bar itself."""
    wide = console.width >= _LEAST_FOR_BARS
    said = TextColumn("{task.description:<24}" if wide else "{task.description}", markup=False)
    return Progress(
        said, *([BarColumn()] if wide else []), MofNCompleteColumn(), TimeElapsedColumn(), console=console
    )


class TextTable(Table):
    """A table whose headings and cells are text of any kind, which wraps where there is no room.

    Where not even that is enough, columns are left out, and a line below the table says which.

    Parameters
    ----------
    texts : sequence of str
        Headings of the columns to the left, of text. The first says whose row it is, and is never left out.
    numbers : sequence of str
        Headings of the columns to the right, of numbers, which are never wrapped.
    expendable : sequence of str
        Headings of the columns that may be left out, the least important first.
    """

    def __init__(self, texts: Sequence[str], numbers: Sequence[str], expendable: Sequence[str] = ()) -> None:
        super().__init__()
        self._headings, self._expendable, self._num_texts = [*texts, *numbers], list(expendable), len(texts)
        self._widths = [cell_len(printable(heading)) for heading in self._headings]
        for heading in texts:
            self.add_column(Text(printable(heading)), overflow="fold")
        for heading in numbers:
            self.add_column(Text(printable(heading)), justify="right", no_wrap=True)

    def add_texts(self, *cells: object) -> None:
        """Add a row.

        Parameters
        ----------
        *cells : object
            One a column, printed as ``str`` gives them.
        """
        texts = [Text(printable(cell)) for cell in cells]
        self._widths = [max(width, text.cell_len) for width, text in zip(self._widths, texts, strict=True)]
        self.add_row(*texts)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw the columns that there is room for, and name the others."""
        every, left_out = self.columns, self._without_room(options.max_width)
        shown = [place for place, heading in enumerate(self._headings) if heading not in left_out]
        self.columns = [every[place] for place in shown]
        for place, width in self._wrapped(shown, options.max_width).items():
            every[place].width = width
        try:
            yield from super().__rich_console__(console, options)
        finally:
            self.columns = every
        if left_out:
            yield Text(f"No room for {', '.join(left_out)}: widen the terminal, or see the files.", overflow="fold")

    def _without_room(self, width: int) -> list[str]:
        """Choose the columns to leave out, so that the others have room, wrapped if need be."""
        left_out: list[str] = []
        for heading in (heading for heading in self._expendable if heading in self._headings):
            shown = [place for place, name in enumerate(self._headings) if name not in left_out]
            if _FRAME + sum(self._least(place) + _BETWEEN for place in shown) <= width:
                break
            left_out.append(heading)
        return left_out

    def _wrapped(self, shown: Sequence[int], width: int) -> dict[int, int]:
        """Choose the widths of the columns of text: the widest is wrapped first, whose row it is last."""
        texts = {place: self._widths[place] for place in shown if place < self._num_texts}
        room = width - _FRAME - sum(self._widths[place] for place in shown if place not in texts)
        room -= _BETWEEN * len(shown)
        while sum(texts.values()) > room:
            wide = [place for place in texts if texts[place] > self._least(place)]
            wide = wide or [place for place in texts if place and texts[place] > _NARROWEST] or list(texts)
            widest = max(wide, key=lambda place: (texts[place], place))
            if texts[widest] == 1:
                break
            texts[widest] -= 1
        return texts

    def _least(self, place: int) -> int:
        """Say how wide a column has to be at least: texts other than the first may wrap."""
        may_wrap = 0 < place < self._num_texts
        return min(self._widths[place], LEAST_OF_A_TEXT) if may_wrap else self._widths[place]
