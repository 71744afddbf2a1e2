"""What a person sees: bars while it runs, a table at the end."""

from __future__ import annotations

import os

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from fedcof.run.config import keys_without_effect
from fedcof.run.results import NodeResult, RunResult
from simulations.runs_over_seeds import settings_of

WIDTH_OF_A_FILE = 160

console = Console()
if not console.is_terminal and "COLUMNS" not in os.environ:
    # Written to a file or a pipe, a table has no need to be cut.
    console.width = WIDTH_OF_A_FILE
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
    for heading in ("accuracy %", "uplink MB", "downlink MB", "clients", "time s"):
        table.add_column(heading, justify="right", no_wrap=True)
    for run in results:
        unused = keys_without_effect(run.config)
        table.add_row(
            run.method,
            *("-" if key in unused else str(run.config[key]) for key in keys),
            str(run.seed),
            f"{run.accuracy * 100:.2f}",
            f"{run.uplink_bytes / 1e6:.2f}",
            f"{run.downlink_bytes / 1e6:.2f}",
            f"{run.clients} of {run.clients + run.clients_rejected}" if run.clients_rejected else str(run.clients),
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
    table = Table("node", "what became of it")
    for heading in ("samples", "rows", "withheld"):
        table.add_column(heading, justify="right", no_wrap=True)
    for node in nodes:
        table.add_row(node.name, node.outcome, str(node.samples), str(node.rows), str(node.withheld))
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
    for heading in ("accuracy %", "uplink MB", "downlink MB", "time s"):
        table.add_column(heading, justify="right", no_wrap=True)
    for setting in settings_of(results):
        deviation = setting.accuracy_deviation
        table.add_row(
            setting.method,
            *(str(setting.values.get(key, "-")) for key in keys),
            str(len(setting.runs)),
            f"{setting.accuracy * 100:.2f}" + ("" if deviation is None else f" ± {deviation * 100:.2f}"),
            f"{setting.average_of('uplink_bytes') / 1e6:.2f}",
            f"{setting.average_of('downlink_bytes') / 1e6:.2f}",
            f"{setting.average_of('seconds'):.1f}",
        )
    return table
