"""Runs on Flower's simulation runtime: start Flower, and meanwhile import and look up what the runs need."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

from fedcof.data.kept_problem import FOLDER_VARIABLE
from fedcof.errors import UserError
from fedcof.run.config import RunConfig
from fedcof.run.results import RunResult, load_results
from simulations.runtime import simulation_superlink
from simulations.terminal import progress_bars


def execute_runs(
    runs: dict[str, RunConfig], output: Path, meanwhile: Callable[[], object] = lambda: None
) -> list[RunResult]:
    """Execute runs one after another, and show how far they are.

    Runs with the same number of SuperNodes and the same share of the machine for each are one Flower run.

    Parameters
    ----------
    runs : dict of str to RunConfig
        For each run the folder of its files within ``output``, and its configuration.
    output : Path
        Folder for the results.
    meanwhile : callable
        Called in a thread while the clients are at work, for example to import what comes after the runs.

    Returns
    -------
    list of RunResult
        All results that the folder holds by now.

    Raises
    ------
    UserError
        If a run cannot be made as asked, or fails.
    """
    output = output.absolute()
    ray_address = _ray_address(runs.values())
    with progress_bars() as bars, _scratch(output, ray_address) as scratch:
        notes = Path(scratch) / "problems"
        variables = {FOLDER_VARIABLE: str(notes)}
        with simulation_superlink(Path(scratch), ray_address, variables, wait=False) as connection:
            # This imports torch, while the SuperLink starts.
            from simulations.flower_runs import FlowerRuns

            FlowerRuns(runs, output, connection, notes, bars).execute(meanwhile)
    return load_results(output)


def _ray_address(configs: Iterable[RunConfig]) -> str:
    addresses = sorted({config.execution.ray_address for config in configs})
    if len(addresses) > 1:
        raise UserError(
            f"The key ray-address takes one value for all runs, but it is {' and '.join(map(repr, addresses))}:"
            " compare on one Ray cluster."
        )
    return addresses[0] if addresses else ""


def _scratch(output: Path, ray_address: str) -> TemporaryDirectory[str]:
    """Make a folder for Flower's home and the app, which the machines of a cluster find where they find results."""
    if ray_address:
        output.mkdir(parents=True, exist_ok=True)
    return TemporaryDirectory(prefix=".fedcof-" if ray_address else "fedcof-", dir=output if ray_address else None)
