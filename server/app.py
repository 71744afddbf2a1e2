"""The Flower ServerApp: wait for the clients, then run what was planned."""

from __future__ import annotations

import gc
import json
import os
import time
from contextlib import nullcontext, suppress
from logging import getLogger
from pathlib import Path
from typing import Any

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from fedcof import UserError
from fedcof.data.class_list import class_names_of, classes_text
from fedcof.data.intake import bad_images_listed, write_left_out
from fedcof.data.problem import dataset_of, fingerprint_of, labels_of
from fedcof.errors import refused_by_system
from fedcof.files import nobody_else, write_whole
from fedcof.run.config import RunConfig
from fedcof.run.failures import RunFailure, note_failure
from fedcof.run.replies import expected_replies
from server.callbacks import Callback
from server.federation import Federation
from server.name_book import NameBook
from server.reporting import FAILURE_FILE_NAME, FINISHED, PROGRESS
from server.run import execute
from server.run_files import ResultsFile
from server.trackers.registry import trackers_of
from server.upload_store import UploadStore

POLL_SECONDS = 0.05

# Kept free while a run lasts, so that a disk that has become full has room for the sentence that says so.
ROOM_FILE_NAME = ".room"
ROOM_BYTES = 2**16

logger = getLogger("flwr")

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run what the run-config asks for: one run, or those that its plan lists."""
    base = RunConfig.from_mapping(context.run_config)
    output = Path(base.execution.output or Path.home() / ".fedcof" / "runs" / str(context.run_id))
    # Of nodes' uploads nobody else on the server is to know, of a simulation's whoever may.
    with nobody_else() if base.data.on_nodes else nullcontext():
        _run(grid, base, output)


def _run(grid: Grid, base: RunConfig, output: Path) -> None:
    room = output / ROOM_FILE_NAME
    try:
        # What an earlier run failed of is not what this one does.
        (output / FAILURE_FILE_NAME).unlink(missing_ok=True)
        write_whole(room, bytes(ROOM_BYTES))
        _run_all(grid, base, output)
    except (UserError, OSError) as error:
        sentence = refused_by_system(error) if isinstance(error, OSError) else error
        # Flower passes the sentence on, with words of its own around it.
        with suppress(OSError):
            room.unlink(missing_ok=True)
            write_whole(output / FAILURE_FILE_NAME, str(sentence))
        raise sentence from error
    finally:
        with suppress(OSError):
            room.unlink(missing_ok=True)
    logger.info("%s %s", FINISHED, output)


def _say_intake(config: RunConfig, output: Path) -> None:
    """Log what is taken of the server's own test data; what is left out of images is listed beside the results."""
    if config.data.is_precomputed:
        # Features are all used, or none of them.
        logger.info("test: %d features", len(labels_of(config, "test")))
        return
    with bad_images_listed(output):
        intake = dataset_of(config).intake
    for line in intake.summary():
        logger.info("%s", line)
    if intake.left_out:
        write_left_out(intake.left_out, output)


def _run_all(grid: Grid, base: RunConfig, output: Path) -> None:
    # Flower collects garbage after each reply of some strategies: what was imported is none.
    gc.freeze()
    runs = planned_runs(base)
    federation, num_clients = None, 0
    if runs:
        # The nodes join while the command that made the plan may still be looking up what the runs need.
        folder, first = runs[0]
        if base.data.on_nodes:
            _say_intake(first, output)
        _check_driver(base)
        federation, num_clients = _federation(grid, first, output / folder), first.data.num_clients
        _await_command(base)
        # A run for which there turned out not to be what it needs is no longer planned.
        runs = planned_runs(base)
    for number, (folder, config) in enumerate(runs, start=1):
        _check_driver(base)
        if federation is None or num_clients != config.data.num_clients:
            federation, num_clients = _federation(grid, config, output / folder), config.data.num_clients
        try:
            progress = Progress(number, len(runs), expected_replies(config))
            callbacks = [progress, ResultsFile(output), *trackers_of(config)]
            execute(federation, config, output, folder, callbacks)
        except UserError as error:
            if not _plan(base).get("goes_on"):
                raise
            note_failure(output, RunFailure.of(config, error))
            logger.warning("%s, seed %d failed: %s", config.method.name, config.data.seed, error)


def _federation(grid: Grid, config: RunConfig, folder: Path) -> Federation:
    # A node whose upload is kept is not needed, so it is not waited for.
    if not config.data.on_nodes:
        return Federation(grid, config.data.num_clients, config.execution.node_timeout)
    store = UploadStore(folder, config, fingerprint_of(config))
    known = [name for name in store.names() if store.read(name)]
    return Federation(grid, config.data.num_clients, config.execution.node_timeout, known, NameBook(folder))


def planned_runs(base: RunConfig) -> list[tuple[str, RunConfig]]:
    """List the runs to execute.

    Parameters
    ----------
    base : RunConfig
        The Flower run's own configuration.

    Returns
    -------
    list of (str, RunConfig)
        For each run the folder of its files, relative to the output, and its configuration.
    """
    if base.data.on_nodes:
        # The nodes cannot read the server's files.
        base = base.replaced(classes=classes_text(class_names_of(base.data.classes)))
    if not base.execution.plan:
        return [("", base)]
    return [(run["folder"], RunConfig.from_mapping(run["config"])) for run in _plan(base)["runs"]]


def _plan(base: RunConfig) -> dict[str, Any]:
    """Read the plan as it is now: who made it, whether it is ready, its runs, and whether they go on past one."""
    if not base.execution.plan:
        return {}
    plan: dict[str, Any] = json.loads(Path(base.execution.plan).read_text(encoding="utf-8"))
    return plan


def _await_command(base: RunConfig) -> None:
    """Wait for the command that made the plan, which may still be looking up what the runs need."""
    while not _plan(base).get("ready", True):
        _check_driver(base)
        time.sleep(POLL_SECONDS)


def _check_driver(base: RunConfig) -> None:
    """Stop where the command that made the plan is gone: started again, it plans what is missing anew."""
    if not base.execution.plan:
        return
    try:
        os.kill(_plan(base)["driver"], 0)
    except ProcessLookupError as error:
        raise UserError("The command that planned these runs was killed: start it again to go on.") from error


class Progress(Callback):
    """Logs about a hundred lines a run, however many replies there are; the command reads them.

    Parameters
    ----------
    number, num_runs : int
        Which of how many runs it is.
    num_replies : int
        How many replies it takes.
    """

    def __init__(self, number: int, num_runs: int, num_replies: int) -> None:
        self._number, self._num_runs, self._num_replies = number, num_runs, num_replies
        self._step = max(num_replies // 100, 1)
        self._replies = 0

    def on_reply(self, client: int) -> None:
        """Count it."""
        self._replies += 1
        if self._replies % self._step == 0 or self._replies == self._num_replies:
            logger.info(PROGRESS, self._number, self._num_runs, self._replies, self._num_replies)
