"""Runs on Flower's simulation runtime: start Flower, and meanwhile import and look up what the runs need."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Self

from fedcof.data.kept_problem import FOLDER_VARIABLE
from fedcof.errors import UserError
from fedcof.run.config import RunConfig
from fedcof.run.results import RunResult, load_results
from simulations.runtime import Connection, simulation_superlink
from simulations.terminal import progress_bars


class Flower:
    """Flower for the runs of one command: started once, and stopped with all that it started.

    It may be started before the runs are known: what checks them takes as long to import as Flower to start.
    """

    def __init__(self) -> None:
        self._until_the_end = ExitStack()
        self._connection: Connection | None = None
        self._notes = Path()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._until_the_end.__exit__(kind, error, traceback)

    def start(self, output: Path, ray_address: str = "") -> tuple[Connection, Path]:
        """Start the SuperLink, unless it has been started; it need not answer yet.

        Parameters
        ----------
        output : Path
            Folder for the results.
        ray_address : str, optional
            HOST:PORT of a Ray cluster to use.

        Returns
        -------
        tuple of (Connection, Path)
            The SuperLink, and the folder in which Flower's processes look for what was looked up here.

        Raises
        ------
        UserError
            If Flower is not installed, or nothing answers at the cluster's address.
        """
        if self._connection is None:
            scratch = Path(self._until_the_end.enter_context(_scratch(output, ray_address)))
            self._notes = scratch / "problems"
            variables = {FOLDER_VARIABLE: str(self._notes)}
            superlink = simulation_superlink(scratch, ray_address, variables, wait=False)
            self._connection = self._until_the_end.enter_context(superlink)
        return self._connection, self._notes


def execute_runs(
    runs: dict[str, RunConfig],
    output: Path,
    meanwhile: Callable[[], object] = lambda: None,
    flower: Flower | None = None,
    goes_on: bool = False,
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
    flower : Flower, optional
        Where it may have been started already; the caller ends it.
    goes_on : bool
        Whether a run that cannot be made is noted among the failures of ``output``, and the others are made.

    Returns
    -------
    list of RunResult
        All results that the folder holds by now.

    Raises
    ------
    UserError
        If a run cannot be made as asked, or fails; with ``goes_on`` only where Flower itself fails.
    """
    output = output.absolute()
    with ExitStack() as until_the_end:
        bars = until_the_end.enter_context(progress_bars())
        flower = flower or until_the_end.enter_context(Flower())
        connection, notes = flower.start(output, _ray_address(runs.values()))
        # This imports torch, while the SuperLink starts.
        from simulations.flower_runs import FlowerRuns

        FlowerRuns(runs, output, connection, notes, bars, goes_on).execute(meanwhile)
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
