"""Weights & Biases: a run there for each here; on this machine alone, unless a key says that it may be sent."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from fedcof.run.config import RunConfig
from fedcof.run.results import RoundResult, RunResult
from server.callbacks import RunInProgress
from server.trackers.tracker import Tracker, check_installed, numbers_of, settings_of, title_of

PROJECT = "fedcof"


class WeightsAndBiases(Tracker):
    """Settings, the numbers of every round, and those of the run as its summary."""

    name = "wandb"

    def __init__(self) -> None:
        self._run: Any = None

    @classmethod
    def check(cls) -> None:
        """Check that the extra is installed; raises UserError."""
        check_installed("wandb", cls.name)

    def on_run_start(self, config: RunConfig, output: Path, folder: str) -> None:
        """Begin a run, whose files are in the folder of the results."""
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        wandb = import_module("wandb")
        keyless = not os.environ.get("WANDB_API_KEY")
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT") or PROJECT,
            name=f"{folder}: {title_of(config)}" if folder else title_of(config),
            config=settings_of(config),
            dir=str(output),
            mode=os.environ.get("WANDB_MODE") or ("offline" if keyless else "online"),
            # Nothing of the machine, its user, its processes, its code and its console.
            settings=wandb.Settings(
                console="off",
                silent=True,
                disable_code=True,
                disable_git=True,
                x_disable_machine_info=True,
                x_save_requirements=False,
            ),
        )

    def on_resume(self, rounds: Sequence[RoundResult]) -> None:
        """Send the rounds before: the run there is a new one."""
        for result in rounds:
            self._run.log(numbers_of(result), step=result.round)

    def on_round_end(self, result: RoundResult, run: RunInProgress) -> None:
        """Send the round."""
        self._run.log(numbers_of(result), step=result.round)

    def on_run_end(self, result: RunResult) -> None:
        """Send the run's numbers."""
        self._run.summary.update({f"run/{name}": value for name, value in numbers_of(result).items()})
        self._run.finish(exit_code=0)

    def on_failure(self, error: Exception) -> None:
        """Say that it failed, but not why: the sentence may name a node."""
        if self._run:
            self._run.finish(exit_code=1)
