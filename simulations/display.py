"""The tables that a person sees at the end of a run."""

from __future__ import annotations

from rich.table import Table

from fedcof.data.section import DataSection
from fedcof.methods.section import MethodSection
from fedcof.run.results import NodeResult, RunResult
from simulations.report.methods_and_keys import default_config, unused_keys
from simulations.report.seed_averages import averages_over_seeds
from simulations.terminal import TextTable

UNKNOWN = "-"
_METHOD, _SEED = MethodSection.key_of("name").name, DataSection.key_of("seed").name
_COSTS, _KEPT = ["uplink MB", "downlink MB"], ["rows", "withheld"]
# What a narrow terminal does without, the least important first.
_EXPENDABLE = ["time s", "clients", "downlink MB", "seeds", _SEED, "uplink MB"]


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
    table = TextTable([_METHOD, *keys, _SEED], ["accuracy %", *_COSTS, "clients", "time s"], _EXPENDABLE)
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
    table = TextTable(["node", "what became of it"], ["samples", *_KEPT], list(reversed(_KEPT)))
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
    table = TextTable([_METHOD, *keys, "seeds"], ["accuracy %", *_COSTS, "time s"], _EXPENDABLE)
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
