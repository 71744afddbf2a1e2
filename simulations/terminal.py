"""The terminal: bars, tables and lines whose text is printed as it is, never obeyed; light, because --help is."""

from __future__ import annotations

import os
from collections.abc import Sequence

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from fedcof.printable import printable

WIDTH_OF_A_FILE = 160

# Names, paths, reasons and values are text and no markup, whoever prints them.
console = Console(markup=False, emoji=False)
if not console.is_terminal and "COLUMNS" not in os.environ:
    # Written to a file or a pipe, a table has no need to be cut.
    console.width = WIDTH_OF_A_FILE


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
    """Make the bars: what is counted, how far, for how long."""
    return Progress(
        TextColumn("{task.description:<24}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
    )


class TextTable(Table):
    """A table whose headings and cells are text of any kind, which wraps where there is no room.

    Parameters
    ----------
    texts : sequence of str
        Headings of the columns to the left, of text.
    numbers : sequence of str
        Headings of the columns to the right, of numbers, which are never wrapped.
    """

    def __init__(self, texts: Sequence[str], numbers: Sequence[str]) -> None:
        super().__init__()
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
        self.add_row(*(Text(printable(cell)) for cell in cells))
