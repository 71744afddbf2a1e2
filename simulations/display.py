"""What a person sees: bars while it runs, a table at the end; text of others is printed as it is, never obeyed."""

from __future__ import annotations

import os
from collections.abc import Sequence

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from fedcof.printable import printable
from fedcof.run.results import NodeResult, RunResult
from simulations.report.methods_and_keys import default_config, unused_keys
from simulations.report.seed_averages import averages_over_seeds

WIDTH_OF_A_FILE = 160
UNKNOWN = "-"

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


def results_table(results: list[RunResult], keys: list[str]) -> Table:
    """Make the table of single runs.

    Parameters
    ----------
    results : list of RunResult
        One row each.
    keys : list of str
        Run-config keys in which they differ.

    Returns
    -------
    Table
        Accuracy in per cent, bytes in MB (10^6).
    """
    table = TextTable(["method", *keys, "seed"], ["accuracy %", "uplink MB", "downlink MB", "clients", "time s"])
    for run in results:
        unused, config = unused_keys(run.config), {**default_config(), **run.config}
        table.add_texts(
            run.method,
            *(UNKNOWN if key in unused else config.get(key, UNKNOWN) for key in keys),
            run.seed,
            percent(run.accuracy),
            f"{run.uplink_bytes / 1e6:.2f}",
            f"{run.downlink_bytes / 1e6:.2f}",
            f"{run.clients} of {run.clients + run.clients_rejected}" if run.clients_rejected else run.clients,
            f"{run.seconds:.1f}",
        )
    return table


def nodes_table(nodes: list[NodeResult]) -> Table:
    """Make the table of nodes with data of their own.

    Parameters
    ----------
    nodes : list of NodeResult
        One row each.

    Returns
    -------
    Table
        What became of each.
    """
    table = TextTable(["node", "what became of it"], ["samples", "rows", "withheld"])
    for node in nodes:
        table.add_texts(node.name, node.outcome, node.samples, node.rows, node.withheld)
    return table


def comparison_table(results: list[RunResult], keys: list[str]) -> Table:
    """Make the table of settings, each over its seeds.

    Parameters
    ----------
    results : list of RunResult
        All runs.
    keys : list of str
        Run-config keys in which they differ, apart from the seed.

    Returns
    -------
    Table
        Mean and sample standard deviation of the accuracy in per cent; mean bytes in MB (10^6).
    """
    table = TextTable(["method", *keys, "seeds"], ["accuracy %", "uplink MB", "downlink MB", "time s"])
    for average in averages_over_seeds(results):
        deviation = average.accuracy_deviation
        table.add_texts(
            average.method,
            *(average.values.get(key, UNKNOWN) for key in keys),
            len(average.runs),
            percent(average.accuracy) + ("" if deviation is None else f" ± {deviation * 100:.2f}"),
            f"{average.average_of('uplink_bytes') / 1e6:.2f}",
            f"{average.average_of('downlink_bytes') / 1e6:.2f}",
            f"{average.average_of('seconds'):.1f}",
        )
    return table


def percent(share: float | None) -> str:
    """Write an accuracy in per cent, or a dash where nobody knows it."""
    return UNKNOWN if share is None else f"{share * 100:.2f}"
