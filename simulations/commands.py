"""What the commands do: run, compare, predict, and show it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fedcof.embedding.section import EmbeddingSection
from fedcof.errors import UserError
from fedcof.run.config import RunConfig
from fedcof.run.execution import ExecutionSection
from fedcof.run.failures import FILE_NAME as FAILURES_FILE_NAME
from fedcof.run.failures import RunFailure, load_failures, note_failure
from fedcof.run.results import FILE_NAME, RunResult, load_results
from simulations.comparison import laid_out, unfinished, varying_keys
from simulations.display import (
    alike_sentence,
    clients_sentence,
    comparison_table,
    energy_sentence,
    nodes_table,
    results_table,
    samples_sentence,
)
from simulations.report.backbone_choice import backbone_sentences_of
from simulations.runner import Flower, execute_runs
from simulations.scenario import (
    DEFAULT_SCENARIO,
    configure,
    scenario_values,
)
from simulations.steps_table import steps_table
from simulations.terminal import console, progress_bars, say

if TYPE_CHECKING:
    from simulations.narrowing import Narrowing

MOST_NAMED_SETTINGS = 3


def simulate(scenario: str, settings: list[str], output: Path) -> None:
    """Run one federation and show what it came to.

    Parameters
    ----------
    scenario, settings
        See :func:`simulations.scenario.configure`.
    output : Path
        Folder for the results; it must not hold any yet.

    Raises
    ------
    UserError
        If something cannot be run as asked.
    """
    if load_results(output):
        raise UserError(f"The folder {output} holds results already: name a new one with --output.")
    with Flower() as flower:
        _start_early(flower, scenario_values(scenario, settings), output)
        config = configure(scenario, settings)
        from simulations.resuming import keep_config

        keep_config(output, config)
        results = execute_runs({"": config}, output, flower=flower)
    show_results(results, output)


def resume(folder: Path, scenario: str | None, settings: list[str]) -> None:
    """Go on with a run that was interrupted, from its last round of training, and show what it came to.

    Parameters
    ----------
    folder : Path
        Its output folder.
    scenario, settings
        None and empty, or what must be the run's own, see :func:`simulations.scenario.configure`.

    Raises
    ------
    UserError
        If the folder holds no such run, or it has finished.
    """
    from simulations.resuming import kept_config

    asked = configure(scenario or DEFAULT_SCENARIO, settings) if scenario or settings else None
    config = kept_config(folder, asked)
    if load_results(folder):
        raise UserError(f"The run in {folder} has finished: see {folder / FILE_NAME}.")
    show_results(execute_runs({"": config}, folder), folder)


def compare(scenario: str, settings: list[str], methods: list[str], seeds: list[str], output: Path) -> int:
    """Run methods, seeds and lists of values, leaving out what the folder holds already, and show all of it.

    A run that cannot be made is noted beside the results, and tried again the next time; the others are made.

    Parameters
    ----------
    scenario, settings
        See :func:`simulations.scenario.scenario_values`.
    methods, seeds : list of str
        What to compare.
    output : Path
        Folder for the results.

    Returns
    -------
    int
        How many of the runs failed.

    Raises
    ------
    UserError
        If nothing can be run as asked, or Flower itself fails.
    """
    values, finished = scenario_values(scenario, settings), load_results(output)
    with Flower() as flower:
        if not finished:
            _start_early(flower, values, output)
        runs, impossible = laid_out(values, methods, seeds)
        missing = unfinished(runs, finished, load_failures(output))
        for failure in impossible:
            note_failure(output, failure)
        if len(missing) < len(runs):
            say(f"{len(runs) - len(missing)} of {len(runs)} runs are in {output} already.")
        if missing:
            execute_runs(missing, output, meanwhile=_import_report, flower=flower, goes_on=True)
    results, failures = load_results(output), load_failures(output)
    show_results(results, output, failures)
    if results:
        from simulations.report.writing import write_report

        say(f"The report is {write_report(output)}")
    asked = [*(config.to_mapping() for config in runs.values()), *(failure.config for failure in impossible)]
    return sum(failure.config in asked for failure in failures)


def report(folder: Path) -> None:
    """Write the report of a folder of runs.

    Parameters
    ----------
    folder : Path
        Output folder of ``simulate`` or ``compare``.

    Raises
    ------
    UserError
        If the folder holds no run.
    """
    from simulations.report.writing import write_report

    say(f"The report is {write_report(folder)}")


def deploy_local(scenario: str, settings: list[str], num_nodes: int, output: Path) -> None:
    """Run a real federation on this machine, over TLS, and show what it came to.

    Parameters
    ----------
    scenario, settings
        See :func:`simulations.scenario.configure`; the dataset and the partition say what the nodes hold.
    num_nodes : int
        How many nodes.
    output : Path
        Folder for the nodes' folders and the results.

    Raises
    ------
    UserError
        If something cannot be run as asked.
    """
    from fedcof.run.replies import expected_replies
    from simulations import deployment
    from simulations.door import nginx_command
    from simulations.flower_runs import progress_of_replies
    from simulations.intakes import Intakes

    config = configure(scenario, settings).replaced(num_clients=num_nodes)
    # The images are decoded anyway, to be dealt: all that are damaged are to be known before.
    Intakes(output).say([config], thorough=True)
    if not nginx_command():
        say("There is no nginx here, so the nodes call the SuperLink itself; on a real server it is behind one.")
    with progress_bars() as bars:
        follow = progress_of_replies(bars, expected_replies(config))
        results = deployment.deploy_local(config, num_nodes, output, follow)
    console.print(nodes_table(results[-1].nodes))
    show_results(results, output)


def export_model(folder: Path, file_format: str, target: Path | None, known: Narrowing) -> None:
    """Write the most accurate run of a folder as one model, and say how to load it.

    Parameters
    ----------
    folder, file_format, target, known
        See :func:`simulations.export.export`.

    Raises
    ------
    UserError
        If it cannot be written like that.
    """
    from simulations.export import export

    written = export(folder, file_format, target, known)
    say(f"The model is {written}")
    if file_format == "timm":
        say(f'Load it with timm.create_model("local-dir:{written.absolute()}", pretrained=True)')


def _start_early(flower: Flower, values: dict[str, object], output: Path) -> None:
    """Start Flower while its runs are checked, which imports torch; not where Ray is somebody else's."""
    if ExecutionSection.key_of("ray_address").name not in values:
        flower.start(output)


def _import_report() -> None:
    """Import matplotlib while others compute."""
    import simulations.report.writing  # noqa: F401


def show_results(results: list[RunResult], output: Path, failures: Sequence[RunFailure] = ()) -> None:
    """Print what runs came to.

    Parameters
    ----------
    results : list of RunResult
        All of a folder.
    output : Path
        The folder.
    failures : sequence of RunFailure
        Runs that could not be made.
    """
    made: list[RunResult | RunFailure] = [*results, *failures]
    say(_headline(RunConfig.loosely(made[0].config)))
    keys = varying_keys(made)
    several = len({run.seed for run in made}) > 1
    table = comparison_table if several else results_table
    console.print(table(results, keys, failures))
    if len(results) == 1:
        _show_more(results[0])
    for sentence in backbone_sentences_of(results):
        say(sentence)
    if alike := alike_sentence(results):
        say(alike, "yellow")
    for result in results:
        if result.rejected:
            client, reason = next(iter(result.rejected.items()))
            others = f" and {len(result.rejected) - 1} others" if len(result.rejected) > 1 else ""
            say(f"{result.method}, seed {result.seed}: client {client}{others} left out: {reason}", "yellow")
    if failures:
        _show_failures(results, output, failures)
    if results:
        say(f"Written to {output / FILE_NAME}")


def _show_more(result: RunResult) -> None:
    """Show what there is room for where there is one run alone."""
    if result.steps:
        console.print(steps_table(result.steps))
    if result.client_accuracy:
        say(clients_sentence(result.client_accuracy))
    if (apart := result.accuracy_by_samples) and apart.tells_apart:
        say(samples_sentence(apart))
    if result.energy:
        say(energy_sentence(result.energy))


def _show_failures(results: list[RunResult], output: Path, failures: Sequence[RunFailure]) -> None:
    """Say why runs failed, each reason once."""
    from simulations.report.failed_runs import failed_settings

    settings_of: dict[str, list[str]] = {}
    for setting in failed_settings(failures, results):
        settings_of.setdefault(setting.reason, []).append(setting.whole_label)
    for reason, labels in settings_of.items():
        others = len(labels) - MOST_NAMED_SETTINGS
        named = "; ".join(labels[:MOST_NAMED_SETTINGS]) + (f"; and {others} others" if others > 0 else "")
        say(f"Failed: {named}: {reason}", "red")
    say(f"The runs that failed are in {output / FAILURES_FILE_NAME}, and are tried again the next time.", "red")


def _headline(config: RunConfig) -> str:
    """Say what was classified, by how many clients, and what made the features."""
    data, embedding = config.data, config.embedding
    dealt = "" if data.on_nodes else f"{data.partition}, "
    embeds = EmbeddingSection.key_of("backbone").has_effect(config)
    features = f"{embedding.backbone} at {embedding.image_size} px" if embeds else "features computed elsewhere"
    return f"{data.dataset.rpartition('/')[2]} on {data.num_clients} clients, {dealt}{features}"
