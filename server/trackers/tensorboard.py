"""TensorBoard: curves of a run that has several rounds, in its own folder, by the writer of torch."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from fedcof.run.config import RunConfig
from fedcof.run.results import RoundResult, RunResult
from server.callbacks import RunInProgress
from server.trackers.tracker import Tracker, numbers_of, settings_of

_WRITER_MODULE = "torch.utils.tensorboard"


class TensorBoard(Tracker):
    """Event files: a curve of every number of a round, the settings as a text, and the run's numbers at its end.

    One round is no curve, and ``results.json`` has it, so nothing is imported or written before the second.
    """

    name = "tensorboard"

    def __init__(self) -> None:
        self._settings = ""
        self._folder = Path()
        self._rounds: list[RoundResult] = []
        self._writer: Any = None

    def on_run_start(self, config: RunConfig, output: Path, folder: str) -> None:
        """Note where to write."""
        self._folder = output / folder
        rows = "".join(f"| {name} | {value} |\n" for name, value in settings_of(config).items())
        self._settings = f"| key | value |\n|---|---|\n{rows}"
        if config.training.follows:
            # It takes a third of a second, which is not to be a part of the first rounds' time.
            import_module(_WRITER_MODULE)

    def on_resume(self, rounds: Sequence[RoundResult]) -> None:
        """Write the rounds before once more: what an interrupted run has written may lack the last of them."""
        for result in rounds:
            self._add(result)

    def on_round_end(self, result: RoundResult, run: RunInProgress) -> None:
        """Write the round, where it is not the only one."""
        self._add(result)
        if self._writer:
            self._writer.flush()

    def on_run_end(self, result: RunResult) -> None:
        """Write the run's numbers, beside its curves."""
        if self._writer:
            for name, value in numbers_of(result).items():
                self._writer.add_scalar(f"run/{name}", value, self._rounds[-1].round)
        self._close()

    def on_failure(self, error: Exception) -> None:
        """Close the file."""
        self._close()

    def _add(self, result: RoundResult) -> None:
        self._rounds.append(result)
        if self._writer:
            self._write(result)
        elif len(self._rounds) > 1:
            first = self._rounds[0].round
            # Of what an earlier run has left in the folder nothing is shown from this round on.
            self._writer = import_module(_WRITER_MODULE).SummaryWriter(str(self._folder), purge_step=first)
            self._writer.add_text("settings", self._settings, first)
            for earlier in self._rounds:
                self._write(earlier)

    def _write(self, result: RoundResult) -> None:
        for name, value in numbers_of(result).items():
            self._writer.add_scalar(name, value, result.round)

    def _close(self) -> None:
        if self._writer:
            self._writer.close()
            self._writer = None
