"""The tables that a person sees at the end of a run."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from fedcof.data.section import DataSection
from fedcof.methods.section import MethodSection
from fedcof.run.client_accuracy import ClientAccuracy
from fedcof.run.energy import EnergyUse
from fedcof.run.failures import RunFailure
from fedcof.run.results import NodeResult, RunResult
from fedcof.run.sample_groups import MOST_OF_FEW, AccuracyBySamples
from simulations.published import paper_accuracy
from simulations.report.methods_and_keys import default_config, unused_keys
from simulations.report.seed_averages import averages_over_seeds
from simulations.terminal import TextTable

UNKNOWN = "-"
FAILED = "failed"
_METHOD, _SEED = MethodSection.key_of("name").name, DataSection.key_of("seed").name
_PAPER, _ENERGY = "paper %", "energy J"
_COSTS, _KEPT = ["uplink MB", "downlink MB"], ["rows", "withheld"]
# What a narrow terminal does without, the least important first.
_EXPENDABLE = [_ENERGY, "time s", "clients", "downlink MB", "seeds", _SEED, "uplink MB"]


def _clients_of(run: RunResult) -> str:
    lacking = run.clients_rejected + len(run.without)
    return f"{run.clients} of {run.clients + lacking}" if lacking else str(run.clients)


def results_table(results: list[RunResult], keys: list[str], failures: Sequence[RunFailure] = ()) -> Table:
    """Make the table of single runs.

    Parameters
    ----------
    results : list of RunResult
        One row each.
    keys : list of str
        Run-config keys in which they differ.
    failures : sequence of RunFailure
        Runs that could not be made, one row each behind the others.

    Returns
    -------
    Table
        Accuracy in per cent, and a paper's where it has one for any run; bytes in MB (10^6).
    """
    paper = [_PAPER] if any(paper_accuracy(run) is not None for run in results) else []
    energy = [_ENERGY] if any(run.energy for run in results) else []
    table = TextTable(
        [_METHOD, *keys, _SEED], ["accuracy %", *paper, *_COSTS, "clients", "time s", *energy], _expendable(keys)
    )
    for run in results:
        table.add_texts(
            run.method,
            *_values(run, keys),
            run.seed,
            percent(run.accuracy),
            *(percent(paper_accuracy(run)) for _ in paper),
            f"{run.uplink_bytes / 1e6:.2f}",
            f"{run.downlink_bytes / 1e6:.2f}",
            _clients_of(run),
            f"{run.seconds:.1f}",
            *(_joules(run.energy) for _ in energy),
        )
    for failure in failures:
        table.add_texts(
            failure.method,
            *_values(failure, keys),
            failure.seed,
            FAILED,
            *[UNKNOWN] * (4 + len(paper) + len(energy)),
        )
    return table


def clients_sentence(found: ClientAccuracy) -> str:
    """Say what the clients of a run get, in a line.

    Parameters
    ----------
    found : ClientAccuracy
        The run's.

    Returns
    -------
    str
        Accuracies in per cent, the mean over clients and that of the worst tenth.
    """
    all_classes, held, prior = (
        f"{percent(spread.mean)} % (worst tenth {percent(spread.worst_tenth)} %)"
        for spread in (found.all_classes, found.held_classes, found.own_prior)
    )
    return (
        f"A client gets {all_classes} of its own kind of samples right, {held} with only the classes that it "
        f"holds, {prior} with its own frequencies as prior."
    )


def samples_sentence(found: AccuracyBySamples) -> str:
    """Say what a run comes to on classes with no, few and many training samples, in a line.

    Parameters
    ----------
    found : AccuracyBySamples
        The run's; of more than one group.

    Returns
    -------
    str
        Accuracies in per cent.
    """
    numbers = {"none": "no training sample", "few": f"1 to {MOST_OF_FEW}", "many": f"more than {MOST_OF_FEW}"}
    parts = [
        f"with {numbers[name]} ({group.classes}) {percent(group.accuracy)} %" for name, group in found.known.items()
    ]
    return f"Of the test samples of classes {', '.join(parts)} are right."


def alike_sentence(results: Sequence[RunResult]) -> str:
    """Say which methods have found no covariance, in a line.

    Parameters
    ----------
    results : sequence of RunResult
        All runs.

    Returns
    -------
    str
        Empty where there is none that has shrunk away, unasked, all that rows say.
    """
    alike = [run for run in results if run.shrinkage == 1 and isinstance(run.run_config().method.shrinkage, str)]
    if not alike:
        return ""
    methods = ", ".join(dict.fromkeys(run.method for run in alike))
    return (
        f"In {len(alike)} of {len(results)} runs ({methods}) nothing shows how samples of a class scatter, so all "
        "directions are taken to be alike there: give more samples of a class, or let clients send more rows of it."
    )


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


def comparison_table(results: list[RunResult], keys: list[str], failures: Sequence[RunFailure] = ()) -> Table:
    """Make the table of settings, each over its seeds.

    Parameters
    ----------
    results : list of RunResult
        All runs.
    keys : list of str
        Run-config keys in which they differ, apart from the seed.
    failures : sequence of RunFailure
        Runs that could not be made: a setting without any other is a row behind the others, and the seeds of one
        with some are counted out of all.

    Returns
    -------
    Table
        Mean and sample standard deviation of the accuracy in per cent, and a paper's where it has one for any
        setting; mean bytes in MB (10^6).
    """
    averages = averages_over_seeds(results, keys)
    paper = [_PAPER] if any(average.paper_accuracy is not None for average in averages) else []
    energy = [_ENERGY] if any(average.energy for average in averages) else []
    numbers = ["accuracy %", *paper, *_COSTS, "time s", *energy]
    table = TextTable([_METHOD, *keys, "seeds"], numbers, _expendable(keys))
    failed: dict[tuple[str, ...], int] = {}
    for failure in failures:
        setting = tuple(map(str, (failure.method, *_values(failure, keys))))
        failed[setting] = failed.get(setting, 0) + 1
    for average in averages:
        deviation = average.accuracy_deviation
        setting = average.method, *(str(average.values.get(key, UNKNOWN)) for key in keys)
        without = failed.pop(setting, 0)
        table.add_texts(
            *setting,
            f"{len(average.runs)} of {len(average.runs) + without}" if without else len(average.runs),
            percent(average.accuracy) + ("" if deviation is None else f" ± {deviation * 100:.2f}"),
            *(percent(average.paper_accuracy) for _ in paper),
            f"{average.average_of('uplink_bytes') / 1e6:.2f}",
            f"{average.average_of('downlink_bytes') / 1e6:.2f}",
            f"{average.average_of('seconds'):.1f}",
            *(_joules(average.energy) for _ in energy),
        )
    for setting, number in failed.items():
        table.add_texts(*setting, f"0 of {number}", FAILED, *[UNKNOWN] * (3 + len(paper) + len(energy)))
    return table


def _expendable(keys: list[str]) -> list[str]:
    """List what goes without saying where there is no room; last of all, in what rows differ."""
    return [*_EXPENDABLE, *reversed(keys)]


def _values(run: RunResult | RunFailure, keys: list[str]) -> list[object]:
    unused, config = unused_keys(run.config), {**default_config(), **run.config}
    return [UNKNOWN if key in unused else config.get(key, UNKNOWN) for key in keys]


def _joules(used: EnergyUse | None) -> str:
    return f"{used.joules:.0f}" if used else UNKNOWN


def energy_sentence(found: EnergyUse) -> str:
    """Say what a run has taken of energy, and by what that is known, in a line.

    Parameters
    ----------
    found : EnergyUse
        The run's.

    Returns
    -------
    str
        In joules.
    """
    parts = f"CPU {found.cpu_joules:.1f} J, memory {found.memory_joules:.1f} J, GPU {found.gpu_joules:.1f} J"
    whose = "the clients, on other machines, not counted"
    if found.client_joules is not None:
        whose = f"by CPU time {found.client_joules:.1f} J the clients' and {found.server_joules:.1f} J the server's"
    return f"It took {found.joules:.1f} J in {found.seconds:.1f} s ({parts}; {whose}). Known: {found.source}."


def percent(share: float | None) -> str:
    """Write an accuracy in per cent, or a dash where nobody knows it."""
    return UNKNOWN if share is None else f"{share * 100:.2f}"
