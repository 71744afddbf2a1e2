"""Runs on Flower's simulation runtime: embed once, start Flower, hand it the runs, collect the results."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.progress import Progress

from fedcof.data.virtual_clients import client_indices, images_to_embed, split_features
from fedcof.errors import UserError
from fedcof.files import write_whole
from fedcof.run.config import RunConfig, Scalar
from fedcof.run.results import RunResult, load_results
from server.app import FAILURE_FILE_NAME, PROGRESS
from server.checkpoint import load_checkpoint
from simulations.bundle import stage_app
from simulations.display import progress_bars
from simulations.resources import client_resources
from simulations.runtime import Connection, Resources, run_app, simulation_superlink

MOST_NODES = 100
LOG_FILE_NAME = "flower.log"

_PROGRESS_LINE = re.compile(PROGRESS.replace("%d", r"(\d+)"))


def execute_runs(runs: dict[str, RunConfig], output: Path) -> list[RunResult]:
    """Execute runs one after another, and show how far they are.

    Runs with the same number of SuperNodes and the same share of the machine for each are one Flower run.

    Parameters
    ----------
    runs : dict of str to RunConfig
        For each run the folder of its files within ``output``, and its configuration.
    output : Path
        Folder for the results.

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
    for name, config in runs.items():
        load_checkpoint(output / name, config)
    output.mkdir(parents=True, exist_ok=True)
    (output / FAILURE_FILE_NAME).unlink(missing_ok=True)
    ray_address = _ray_address(runs.values())
    for config in runs.values():
        client_indices(config)
    with progress_bars() as bars, _scratch(output, ray_address) as scratch:
        _embed(runs.values(), bars)
        follow = progress_of_replies(bars, sum(config.num_replies for config in runs.values()))
        with simulation_superlink(Path(scratch), ray_address) as connection:
            app = stage_app(Path(scratch) / "app")
            for resources, group in groupby(sorted(runs.items(), key=_resources), key=_resources):
                plan = _write_plan(Path(scratch), dict(group))
                values: dict[str, Scalar] = {"output": str(output), "plan": str(plan)}
                _run_in_flower(connection, app, values, resources, follow)
    return load_results(output)


def _ray_address(configs: Iterable[RunConfig]) -> str:
    addresses = sorted({config.ray_address for config in configs})
    if len(addresses) > 1:
        raise UserError(
            f"The key ray-address takes one value for all runs, but it is {' and '.join(map(repr, addresses))}:"
            " compare on one Ray cluster."
        )
    return addresses[0] if addresses else ""


def _scratch(output: Path, ray_address: str) -> TemporaryDirectory[str]:
    """Make a folder for Flower's home and the app, which the machines of a cluster find where they find results."""
    return TemporaryDirectory(prefix=".fedcof-" if ray_address else "fedcof-", dir=output if ray_address else None)


def _resources(run: tuple[str, RunConfig]) -> Resources:
    """Decide what a run's SuperNodes get."""
    return client_resources(run[1], _num_nodes(run[1]))


def _num_nodes(config: RunConfig) -> int:
    """How many SuperNodes host a run's clients: one each, up to a hundred, unless asked otherwise."""
    if config.clients_per_node:
        return -(-config.num_clients // config.clients_per_node)
    return min(config.num_clients, MOST_NODES)


def _embed(configs: Iterable[RunConfig], bars: Progress) -> None:
    """Embed every split once, before Flower starts, where the clients are to find it."""
    for config in configs:
        for split in ("train", "test"):
            total = images_to_embed(config, split)
            if not total:
                continue
            bar = bars.add_task(f"Embed {split} images", total=total, visible=False)

            def advance(images: int, bar: object = bar) -> None:
                bars.update(bar, advance=images, visible=True)  # type: ignore[arg-type]

            split_features(config, split, advance)


def _write_plan(folder: Path, runs: dict[str, RunConfig]) -> Path:
    plan = folder / "plan.json"
    entries = [{"folder": name, "config": config.to_mapping()} for name, config in runs.items()]
    write_whole(plan, json.dumps({"driver": os.getpid(), "runs": entries}))
    return plan


def _run_in_flower(
    connection: Connection,
    app: Path,
    values: dict[str, Scalar],
    resources: Resources,
    follow: Callable[[str], None],
) -> None:
    """Run the app, keep its log, and put its own sentence before Flower's where it failed."""
    output = Path(str(values["output"]))
    with (output / LOG_FILE_NAME).open("a") as log:

        def on_line(line: str) -> None:
            log.write(line.rstrip("\n") + "\n")
            log.flush()
            follow(line)

        try:
            run_app(connection, app, values, resources, on_line)
        except UserError as error:
            failure = output / FAILURE_FILE_NAME
            if failure.exists():
                raise UserError(failure.read_text(encoding="utf-8")) from error
            raise


def progress_of_replies(bars: Progress, num_replies: int) -> Callable[[str], None]:
    """Turn the ServerApp's progress lines into one bar for all replies of all runs.

    Parameters
    ----------
    bars : Progress
        Where the bar goes.
    num_replies : int
        How many replies all runs take.

    Returns
    -------
    callable
        To be called with every line of Flower's log.
    """
    task = bars.add_task("Flower starts", total=num_replies)
    finished = 0

    def on_line(line: str) -> None:
        nonlocal finished
        found = _PROGRESS_LINE.search(line)
        if found:
            run, num_runs, reply, replies = map(int, found.groups())
            name = f"Run {run} of {num_runs}" if num_runs > 1 else "Clients"
            bars.update(task, description=name, completed=finished + reply)
            if reply == replies:
                finished += replies

    return on_line
