"""One run, or several methods and seeds on the same federation, and the table at the end."""

from __future__ import annotations

from pathlib import Path

from fedcof.configuration import RunConfig
from fedcof.errors import UserError
from fedcof.results import FILE_NAME, RunResult, load_results
from simulations.display import console, results_table
from simulations.prediction import best_run, predict
from simulations.runner import execute_runs
from simulations.scenario import configure


def simulate_one(scenario: str, settings: list[str], output: Path) -> None:
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
    config = configure(scenario, settings)
    if load_results(output):
        raise UserError(f"The folder {output} holds results already: name a new one with --output.")
    _show(execute_runs({"": config}, output), config, output)


def compare_methods(scenario: str, settings: list[str], methods: list[str], seeds: list[str], output: Path) -> None:
    """Run methods and seeds, leaving out those that the folder holds already, and show all of them.

    Parameters
    ----------
    scenario, settings
        See :func:`simulations.scenario.configure`.
    methods, seeds : list of str
        What to compare.
    output : Path
        Folder for the results.

    Raises
    ------
    UserError
        If something cannot be run as asked.
    """
    base = configure(scenario, settings)
    runs = comparison_runs(base, methods, seeds)
    execute_runs(runs, output)
    _show(load_results(output), base, output)


def comparison_runs(base: RunConfig, methods: list[str], seeds: list[str]) -> dict[str, RunConfig]:
    """List the runs of a comparison, each with a folder of its own.

    Parameters
    ----------
    base : RunConfig
        What all runs have in common.
    methods, seeds : list of str
        What they differ in.

    Returns
    -------
    dict of str to RunConfig
        By folder; seeds outside, methods inside.

    Raises
    ------
    UserError
        If a method is unknown or a seed is not a whole number.
    """
    values = base.to_mapping()
    return {
        f"{method.strip()}-seed-{seed.strip()}": RunConfig.from_mapping(
            {**values, "method": method.strip(), "seed": seed.strip()}
        )
        for seed in seeds
        for method in methods
    }


def show_predictions(folder: Path, images: list[Path]) -> None:
    """Print the likeliest classes of each image.

    Parameters
    ----------
    folder : Path
        Output folder of a run.
    images : list of Path
        Image files.

    Raises
    ------
    UserError
        If there is no run, or a file is not an image.
    """
    run = best_run(folder)
    console.print(f"With {run.method}, seed {run.seed}, {run.accuracy:.2%} accurate on its test split:")
    for prediction in predict(folder, run, images):
        classes = ", ".join(f"{name} ({score:.3f})" for name, score in prediction.classes)
        console.print(f"{prediction.image}: {classes}", soft_wrap=True, highlight=False)


def _show(results: list[RunResult], config: RunConfig, output: Path) -> None:
    title = (
        f"{config.dataset} on {config.num_clients} clients, {config.partition} {config.alpha:g}, "
        f"{config.backbone} at {config.image_size} px"
    )
    console.print(results_table(results, title))
    for result in results:
        for client, reason in result.rejected.items():
            console.print(f"[yellow]{result.method}: client {client} was left out: {reason}[/]")
    console.print(f"Written to {output / FILE_NAME}", soft_wrap=True)
