"""MLflow: a run there for each here, in a database beside the results unless a tracking server is named."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from fedcof.run.config import RunConfig
from fedcof.run.results import RoundResult, RunResult
from server.callbacks import RunInProgress
from server.trackers.tracker import Tracker, check_installed, numbers_of, settings_of, title_of

EXPERIMENT = "fedcof"
DATABASE_NAME = "mlflow.db"
FILES_FOLDER_NAME = "mlflow"
# What MLflow's stores take of a value.
MOST_CHARACTERS = 500


class MLflow(Tracker):
    """Settings as parameters, and the numbers of every round and of the run as metrics."""

    name = "mlflow"

    def __init__(self) -> None:
        self._client: Any = None
        self._run_id = ""
        self._last_round = 0

    @classmethod
    def check(cls) -> None:
        """Check that the extra is installed; raises UserError."""
        check_installed("mlflow", cls.name)

    def on_run_start(self, config: RunConfig, output: Path, folder: str) -> None:
        """Begin a run; by a client of its own, which leaves what else uses MLflow in this process alone."""
        # It would tell its makers how it is used.
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        output = output.absolute()
        output.mkdir(parents=True, exist_ok=True)
        # Files in place of a database are what MLflow 3 refuses unless one insists.
        server = os.environ.get("MLFLOW_TRACKING_URI")
        self._client = import_module("mlflow.tracking").MlflowClient(
            tracking_uri=server or f"sqlite:///{output / DATABASE_NAME}"
        )
        name = f"{folder}: {title_of(config)}" if folder else title_of(config)
        self._run_id = self._client.create_run(
            self._experiment(None if server else output), run_name=name
        ).info.run_id
        settings = {key: str(value)[:MOST_CHARACTERS] for key, value in settings_of(config).items()}
        entities = import_module("mlflow.entities")
        self._client.log_batch(self._run_id, params=[entities.Param(*setting) for setting in settings.items()])

    def on_resume(self, rounds: Sequence[RoundResult]) -> None:
        """Send the rounds before: the run there is a new one."""
        for result in rounds:
            self._log(numbers_of(result), result.round)

    def on_round_end(self, result: RoundResult, run: RunInProgress) -> None:
        """Send the round."""
        self._log(numbers_of(result), result.round)

    def on_run_end(self, result: RunResult) -> None:
        """Send the run's numbers."""
        self._log({f"run/{name}": value for name, value in numbers_of(result).items()}, self._last_round)
        self._client.set_terminated(self._run_id)

    def on_failure(self, error: Exception) -> None:
        """Say that it failed, but not why: the sentence may name a node."""
        if self._run_id:
            self._client.set_terminated(self._run_id, status="FAILED")

    def _experiment(self, output: Path | None) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT
        known = self._client.get_experiment_by_name(name)
        # Else MLflow notes a folder below where this process stands, which ends with it.
        files = (output / FILES_FOLDER_NAME).as_uri() if output else None
        return str(known.experiment_id if known else self._client.create_experiment(name, files))

    def _log(self, numbers: Mapping[str, float], step: int) -> None:
        self._last_round = step
        metric, now = import_module("mlflow.entities").Metric, int(1000 * time.time())
        self._client.log_batch(self._run_id, metrics=[metric(*number, now, step) for number in numbers.items()])
