"""Runs handed to a SuperLink: what they need is looked up while Flower starts, and their replies are counted."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from itertools import groupby
from pathlib import Path
from threading import Thread

from rich.progress import Progress

from fedcof.data.intake import bad_images_listed
from fedcof.data.kept_problem import believed
from fedcof.data.problem import (
    features_seem_kept,
    images_to_embed,
    note_problem,
    split_features,
    take_earlier_note,
)
from fedcof.data.virtual_clients import client_indices
from fedcof.errors import UserError
from fedcof.files import write_whole
from fedcof.keys import Scalar
from fedcof.run.config import RunConfig
from fedcof.run.execution import ExecutionSection
from fedcof.run.results import load_results
from server.reporting import CHECKPOINT_FILE_NAME, FAILURE_FILE_NAME, FINISHED, PROGRESS
from simulations.bundle import stage_app
from simulations.comparison import unfinished
from simulations.intakes import Intakes
from simulations.resources import client_resources
from simulations.runtime import Connection, Resources
from simulations.submission import Submission, submit

MOST_NODES = 100
LOG_FILE_NAME = "flower.log"

_PROGRESS_LINE = re.compile(PROGRESS.replace("%d", r"(\d+)"))


class FlowerRuns:
    """Runs for one SuperLink.

    Parameters
    ----------
    runs : dict of str to RunConfig
        For each run the folder of its files within ``output``, and its configuration.
    output : Path
        Folder for the results.
    connection : Connection
        The SuperLink, which need not answer yet.
    notes : Path
        Folder in which Flower's processes look for what was looked up here.
    bars : Progress
        Where to show how far the runs are.
    """

    def __init__(
        self, runs: dict[str, RunConfig], output: Path, connection: Connection, notes: Path, bars: Progress
    ) -> None:
        self._runs, self._output, self._connection, self._notes, self._bars = runs, output, connection, notes, bars
        self._app = Path()

    def execute(self, meanwhile: Callable[[], object]) -> None:
        """Execute the runs; those that get the same of the machine are one Flower run.

        Parameters
        ----------
        meanwhile : callable
            Called in a thread while the clients are at work.

        Raises
        ------
        UserError
            If a run cannot be made as asked, or fails.
        """
        for name, config in self._runs.items():
            _check_checkpoint(self._output / name, config)
        self._output.mkdir(parents=True, exist_ok=True)
        (self._output / FAILURE_FILE_NAME).unlink(missing_ok=True)
        self._app = stage_app(self._connection.working_directory / "app")
        groups = groupby(sorted(self._runs.items(), key=_resources), key=_resources)
        plans = [(resources, dict(group)) for resources, group in groups]
        # Ray and the nodes start while the features are looked up; the ServerApp waits for that.
        submitted = None
        if all(map(features_seem_kept, self._runs.values())):
            submitted = self._submit(*plans[0], ready=False)
        self._look_up()
        Thread(target=meanwhile, daemon=True).start()
        follow = progress_of_replies(self._bars, sum(config.num_replies for config in self._runs.values()))
        for resources, runs in plans:
            if submitted:
                self._write_plan(runs, ready=True)
            is_last = runs is plans[-1][1]
            self._follow(submitted or self._submit(resources, runs, ready=True), runs, follow, is_last)
            submitted = None

    def _look_up(self) -> None:
        intakes = Intakes(self._output)
        unknown = []
        for config in self._runs.values():
            kept = take_earlier_note(config, self._notes)
            if kept:
                intakes.say_lines(kept.summary)
            else:
                unknown.append(config)
        intakes.say(unknown)
        with believed(self._notes):
            for config in self._runs.values():
                client_indices(config)
        for config in unknown:
            with bad_images_listed(self._output):
                self._embed(config)
            note_problem(config, self._notes)
        # Decoding may have shown more images to be bad.
        intakes.say(unknown)

    def _embed(self, config: RunConfig) -> None:
        """Embed both splits, once, where the clients are to find them."""
        for split in ("train", "test"):
            total = images_to_embed(config, split)
            if not total:
                continue
            bar = self._bars.add_task(f"Embed {split} images", total=total, visible=False)

            def advance(images: int, bar: object = bar) -> None:
                self._bars.update(bar, advance=images, visible=True)  # type: ignore[arg-type]

            split_features(config, split, advance)

    def _submit(self, resources: Resources, runs: dict[str, RunConfig], ready: bool) -> Submission:
        plan = self._write_plan(runs, ready)
        values: dict[str, Scalar] = ExecutionSection.named(output=str(self._output), plan=str(plan))
        return submit(self._connection, self._app, values, resources)

    def _write_plan(self, runs: dict[str, RunConfig], ready: bool) -> Path:
        plan = self._connection.working_directory / "plan.json"
        entries = [{"folder": name, "config": config.to_mapping()} for name, config in runs.items()]
        write_whole(plan, json.dumps({"driver": os.getpid(), "ready": ready, "runs": entries}))
        return plan

    def _follow(
        self, submission: Submission, runs: dict[str, RunConfig], follow: Callable[[str], None], is_last: bool
    ) -> None:
        """Follow a Flower run, keep its log, and put the app's own sentence before Flower's where it failed."""
        with (self._output / LOG_FILE_NAME).open("a", encoding="utf-8") as log:

            def on_line(line: str) -> None:
                log.write(line.rstrip("\n") + "\n")
                log.flush()
                follow(line)

            def is_done() -> bool:
                return not unfinished(runs, load_results(self._output))

            # A Ray of one's own ends with the SuperLink; a cluster is to be left as it was found.
            ends_with_us = is_last and not any(config.execution.ray_address for config in runs.values())
            try:
                submission.follow(on_line, is_done=is_done, last_words=FINISHED if ends_with_us else "")
            except UserError as error:
                failure = self._output / FAILURE_FILE_NAME
                if failure.exists():
                    raise UserError(failure.read_text(encoding="utf-8")) from error
                raise


def _check_checkpoint(folder: Path, config: RunConfig) -> None:
    if (folder / CHECKPOINT_FILE_NAME).exists():
        from server.checkpoint import load_checkpoint

        load_checkpoint(folder, config)


def _resources(run: tuple[str, RunConfig]) -> Resources:
    """Decide what a run's SuperNodes get."""
    return client_resources(run[1], _num_nodes(run[1]))


def _num_nodes(config: RunConfig) -> int:
    """How many SuperNodes host a run's clients: one each, up to a hundred, unless asked otherwise."""
    if config.execution.clients_per_node:
        return -(-config.data.num_clients // config.execution.clients_per_node)
    return min(config.data.num_clients, MOST_NODES)


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
