"""What the commands do: run, compare, predict, and show it."""

from __future__ import annotations

from itertools import starmap
from pathlib import Path

from fedcof.errors import UserError
from fedcof.run.execution import ExecutionSection
from fedcof.run.results import FILE_NAME, RunResult, append_result, load_results
from simulations.comparison import comparison_runs, unfinished, varying_keys
from simulations.display import comparison_table, nodes_table, results_table
from simulations.runner import Flower, execute_runs
from simulations.scenario import (
    DEFAULT_SCENARIO,
    absolute_value,
    configure,
    is_path,
    parse_override,
    scenario_values,
)
from simulations.terminal import console, progress_bars, say


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
    _show(results, output)


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
    _show(execute_runs({"": config}, folder), folder)


def compare(scenario: str, settings: list[str], methods: list[str], seeds: list[str], output: Path) -> None:
    """Run methods, seeds and lists of values, leaving out what the folder holds already, and show all of it.

    Parameters
    ----------
    scenario, settings
        See :func:`simulations.scenario.scenario_values`.
    methods, seeds : list of str
        What to compare.
    output : Path
        Folder for the results.

    Raises
    ------
    UserError
        If something cannot be run as asked.
    """
    values, finished = scenario_values(scenario, settings), load_results(output)
    with Flower() as flower:
        if not finished:
            _start_early(flower, values, output)
        runs = comparison_runs(values, methods, seeds)
        missing = unfinished(runs, finished)
        if len(missing) < len(runs):
            say(f"{len(runs) - len(missing)} of {len(runs)} runs are in {output} already.")
        if missing:
            execute_runs(missing, output, meanwhile=_import_report, flower=flower)
    _show(load_results(output), output)
    from simulations.report.writing import write_report

    say(f"The report is {write_report(output)}")


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
    from simulations import deployment
    from simulations.flower_runs import progress_of_replies
    from simulations.intakes import Intakes

    config = configure(scenario, settings).replaced(num_clients=num_nodes)
    # The images are decoded anyway, to be dealt: all that are damaged are to be known before.
    Intakes(output).say([config], thorough=True)
    with progress_bars() as bars:
        follow = progress_of_replies(bars, config.num_replies)
        results = deployment.deploy_local(config, num_nodes, output, follow)
    console.print(nodes_table(results[-1].nodes))
    _show(results, output)


def solve(folder: Path, settings: list[str]) -> None:
    """Solve again from the uploads that a run on nodes has kept, and show all that the folder holds.

    Parameters
    ----------
    folder : Path
        The run's folder.
    settings : list of str
        What is to be different, as for :func:`simulations.scenario.parse_override`.

    Raises
    ------
    UserError
        If there are none, or a key is decided before the uploads.
    """
    from server.resolving import solve_again

    changes = dict(map(parse_override, settings))
    words = ["solved", *(f"{key}-{value}" for key, value in changes.items() if not is_path(key, value))]
    target = "_".join("".join(c if c.isalnum() or c in ".-" else "-" for c in word) for word in words)
    append_result(folder, solve_again(folder, dict(starmap(absolute_value, changes.items())), target))
    _show(load_results(folder), folder)


def export_model(folder: Path, file_format: str, target: Path | None) -> None:
    """Write the most accurate run of a folder as one model, and say how to load it.

    Parameters
    ----------
    folder, file_format, target
        See :func:`simulations.export.export`.

    Raises
    ------
    UserError
        If it cannot be written like that.
    """
    from simulations.export import export

    written = export(folder, file_format, target)
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


def _show(results: list[RunResult], output: Path) -> None:
    config = results[0].run_config()
    data, embedding = config.data, config.embedding
    dealt = "" if data.on_nodes else f"{data.partition}, "
    say(
        f"{data.dataset.rpartition('/')[2]} on {data.num_clients} clients, {dealt}"
        f"{embedding.backbone} at {embedding.image_size} px"
    )
    keys = varying_keys(results)
    several = len({result.seed for result in results}) > 1
    console.print(comparison_table(results, keys) if several else results_table(results, keys))
    for result in results:
        if result.rejected:
            client, reason = next(iter(result.rejected.items()))
            others = f" and {len(result.rejected) - 1} others" if len(result.rejected) > 1 else ""
            say(f"{result.method}, seed {result.seed}: client {client}{others} left out: {reason}", "yellow")
    say(f"Written to {output / FILE_NAME}")
