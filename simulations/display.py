"""What a person sees: bars while it runs, a table at the end."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from fedcof.results import RunResult

console = Console()
errors = Console(stderr=True)


def progress_bars() -> Progress:
    """Make the bars: what is counted, how far, for how long."""
    return Progress(
        TextColumn("{task.description:<24}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
    )


def results_table(results: list[RunResult], title: str) -> Table:
    """Make the table of runs.

    Parameters
    ----------
    results : list of RunResult
        One row each.
    title : str
        What the runs have in common.

    Returns
    -------
    Table
        Accuracy in per cent, bytes in MB (10^6).
    """
    table = Table(title=title, title_justify="left")
    table.add_column("method")
    for heading in ("seed", "accuracy", "uplink", "downlink", "clients", "rejected", "time"):
        table.add_column(heading, justify="right")
    for run in results:
        table.add_row(
            run.method,
            str(run.seed),
            f"{run.accuracy:.2%}",
            megabytes(run.uplink_bytes),
            megabytes(run.downlink_bytes),
            str(run.clients),
            str(run.clients_rejected),
            f"{run.seconds:.1f} s",
        )
    return table


def megabytes(count: int) -> str:
    """Write a number of bytes in MB of 10^6 bytes."""
    return f"{count / 1e6:.2f} MB"
