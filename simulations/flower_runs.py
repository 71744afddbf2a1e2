"""Runs handed to a SuperLink: what they need is looked up while Flower starts, and their replies are counted."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Collection, Hashable
from itertools import groupby
from pathlib import Path
from threading import Thread

from rich.progress import Progress

from fedcof.data.intake import bad_images_listed
from fedcof.data.kept_problem import believed
from fedcof.data.problem import (
    features_seem_kept,
    images_to_embed,
    labels_of,
    note_problem,
    source_of,
    split_features,
    take_earlier_note,
)
from fedcof.data.virtual_clients import client_indices
from fedcof.errors import UserError
from fedcof.files import write_whole
from fedcof.keys import Scalar
from fedcof.run.config import RunConfig
from fedcof.run.execution import ExecutionSection
from fedcof.run.failures import RunFailure, forget_failures, load_failures, note_failure
from fedcof.run.replies import expected_replies
from fedcof.run.results import load_results
from server.reporting import CHECKPOINT_FILE_NAME, FAILURE_FILE_NAME, FINISHED, PROGRESS
from simulations.bundle import stage_app
from simulations.comparison import unfinished
from simulations.extras import check_extras
from simulations.intakes import Intakes
from simulations.resources import client_resources
from simulations.runtime import Connection, Resources
from simulations.submission import FlowerRunError, Submission, submit

MOST_NODES = 100
LOG_FILE_NAME = "flower.log"

_STARTS_OF_RAY = 4

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
    goes_on : bool
        Whether a run that cannot be made is noted, and the others are made; otherwise its error is raised.
    """

    def __init__(
        self,
        runs: dict[str, RunConfig],
        output: Path,
        connection: Connection,
        notes: Path,
        bars: Progress,
        goes_on: bool = False,
    ) -> None:
        self._runs, self._output, self._goes_on = dict(runs), output, goes_on
        self._connection, self._notes, self._bars = connection, notes, bars
        self._app = Path()
        self._replies: dict[str, int] = {}

    def execute(self, meanwhile: Callable[[], object]) -> None:
        """Execute the runs; those that get the same of the machine are one Flower run.

        Parameters
        ----------
        meanwhile : callable
            Called in a thread while the clients are at work.

        Raises
        ------
        UserError
            If a run cannot be made as asked, or fails; if the others are to go on, only where Flower itself fails.
        """
        self._output.mkdir(parents=True, exist_ok=True)
        (self._output / FAILURE_FILE_NAME).unlink(missing_ok=True)
        forget_failures(self._output, self._runs.values())
        plans = self._plans()
        self._app = stage_app(self._connection.working_directory / "app")
        # Ray and the nodes start while the features are looked up; the ServerApp waits for that.
        submitted = None
        if plans and all(map(features_seem_kept, self._runs.values())):
            resources, names = plans[0]
            submitted = self._submit(resources, self._left_of(names), ready=False)
        self._look_up()
        if not self._runs:
            return
        Thread(target=meanwhile, daemon=True).start()
        follow = progress_of_replies(self._bars, sum(self._replies[name] for name in self._runs))
        last = [names for _, names in plans if self._left_of(names)][-1]
        for resources, names in plans:
            runs = self._left_of(names)
            if submitted:
                self._write_plan(runs, ready=True)
            elif not runs:
                continue
            self._complete(submitted, resources, runs, follow, names is last)
            submitted = None

    def _plans(self) -> list[tuple[Resources, list[str]]]:
        """Put together the runs that get the same of the machine."""
        found: dict[str, Resources] = {}

        def look(name: str, config: RunConfig) -> None:
            check_extras(config)
            _check_checkpoint(self._output / name, config)
            found[name] = client_resources(config, _num_nodes(config))

        self._for_each(look)
        groups = groupby(sorted(self._runs, key=found.__getitem__), key=found.__getitem__)
        return [(resources, list(names)) for resources, names in groups]

    def _left_of(self, names: list[str]) -> dict[str, RunConfig]:
        return {name: self._runs[name] for name in names if name in self._runs}

    def _look_up(self) -> None:
        intakes = Intakes(self._output)
        unknown = set(self._runs)
        for name, config in self._runs.items():
            if kept := take_earlier_note(config, self._notes):
                unknown.remove(name)
                intakes.say_lines(kept.summary)

        def read(_: str, config: RunConfig) -> None:
            intakes.say([config])
            labels_of(config, "train")

        def count(name: str, config: RunConfig) -> None:
            client_indices(config)
            self._replies[name] = expected_replies(config)

        def embed(_: str, config: RunConfig) -> None:
            with bad_images_listed(self._output):
                self._embed(config)
            note_problem(config, self._notes)
            # Decoding may have shown more images to be bad.
            intakes.say([config])

        self._for_each(read, lambda config: config.data.source, unknown)
        with believed(self._notes):
            self._for_each(count)
        self._for_each(embed, lambda config: (source_of(config), config.embedding.feature_cache), unknown)

    def _for_each(
        self,
        step: Callable[[str, RunConfig], object],
        subject: Callable[[RunConfig], Hashable] | None = None,
        among: Collection[str] | None = None,
    ) -> None:
        """Take a step for every run that is still to be made, and where it fails leave the run out, or raise.

        Runs of one subject share the step: what takes long to be found missing is looked for once.
        """
        ended: dict[Hashable, UserError | None] = {}
        for name, config in list(self._runs.items()):
            if among is not None and name not in among:
                continue
            shared = subject(config) if subject else name
            if shared not in ended:
                try:
                    step(name, config)
                    ended[shared] = None
                except UserError as error:
                    if not self._goes_on:
                        raise
                    ended[shared] = error
            if (reason := ended[shared]) is not None:
                note_failure(self._output, RunFailure.of(config, reason))
                del self._runs[name]

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
        state = {"driver": os.getpid(), "ready": ready, "goes_on": self._goes_on}
        write_whole(plan, json.dumps({**state, "runs": entries}))
        return plan

    def _complete(
        self,
        submitted: Submission | None,
        resources: Resources,
        runs: dict[str, RunConfig],
        follow: Callable[[str], None],
        is_last: bool,
    ) -> None:
        """Follow a Flower run, and hand it in again where Ray did not start in the time that it allows itself."""
        for left in reversed(range(_STARTS_OF_RAY)):
            submission = submitted or self._submit(resources, runs, ready=True)
            submitted = None
            try:
                self._follow(submission, runs, follow, is_last)
                return
            except FlowerRunError as error:
                if not left or not error.before_any_client:
                    raise

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
                failed = [failure.config for failure in load_failures(self._output)]
                open_runs = unfinished(runs, load_results(self._output)).values()
                return all(config.to_mapping() in failed for config in open_runs)

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
    finished, now, replies = 0, (0, 0), 0

    def on_line(line: str) -> None:
        nonlocal finished, now, replies
        found = _PROGRESS_LINE.search(line)
        if found:
            run, num_runs, reply, asked = map(int, found.groups())
            if run != now[0] or reply <= now[1]:
                # Another run began; the one before may have failed before its last reply.
                finished, replies = finished + replies, asked
            now = run, reply
            name = f"Run {run} of {num_runs}" if num_runs > 1 else "Clients"
            bars.update(task, description=name, completed=finished + reply)

    return on_line
