"""What a person sees: bars while it runs, a table at the end."""

from __future__ import annotations

from statistics import mean, stdev

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
    table = Table("method", *keys, "seed")
    for heading in ("accuracy", "uplink", "downlink", "clients", "rejected", "time"):
        table.add_column(heading, justify="right")
    for run in results:
        table.add_row(
            run.method,
            *(str(run.config[key]) for key in keys),
            str(run.seed),
            f"{run.accuracy:.2%}",
            megabytes(run.uplink_bytes),
            megabytes(run.downlink_bytes),
            str(run.clients),
            str(run.clients_rejected),
            f"{run.seconds:.1f} s",
        )
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
    table = Table("method", *keys, "seeds")
    for heading in ("accuracy", "uplink", "downlink", "time"):
        table.add_column(heading, justify="right")
    settings: dict[tuple[str, ...], list[RunResult]] = {}
    for run in results:
        settings.setdefault((run.method, *(str(run.config[key]) for key in keys)), []).append(run)
    for setting, runs in settings.items():
        accuracies = [run.accuracy for run in runs]
        spread = f" ± {stdev(accuracies) * 100:.2f}" if len(runs) > 1 else ""
        table.add_row(
            *setting,
            str(len(runs)),
            f"{mean(accuracies) * 100:.2f}{spread} %",
            megabytes(mean(run.uplink_bytes for run in runs)),
            megabytes(mean(run.downlink_bytes for run in runs)),
            f"{mean(run.seconds for run in runs):.1f} s",
        )
    return table


def megabytes(count: float) -> str:
    """Write a number of bytes in MB of 10^6 bytes."""
    return f"{count / 1e6:.2f} MB"
