"""What a run keeps on disk as it goes, as callbacks: its best network, its checkpoint, and its results."""

from __future__ import annotations

from pathlib import Path

from fedcof.run.results import TRAIN, RoundResult, RunResult, append_result
from server.callbacks import Callback, RunInProgress
from server.checkpoint import save_checkpoint

BEST_FOLDER_NAME = "best"


class BestNetwork(Callback):
    """Keeps the network of the most accurate round of training beside the last.

    Parameters
    ----------
    folder : Path
        The run's.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def on_round_end(self, result: RoundResult, run: RunInProgress) -> None:
        """Write it, where this round's is the best so far."""
        if run.best is result:
            run.save_networks(self._folder / BEST_FOLDER_NAME)


class Checkpoints(Callback):
    """Keeps what an interrupted run goes on from.

    Parameters
    ----------
    folder : Path
        The run's.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def on_round_end(self, result: RoundResult, run: RunInProgress) -> None:
        """Write it, after a round of training."""
        if result.phase == TRAIN:
            save_checkpoint(self._folder, run.checkpoint())


class ResultsFile(Callback):
    """Adds what a run came to to the results of all.

    Parameters
    ----------
    output : Path
        Their folder.
    """

    def __init__(self, output: Path) -> None:
        self._output = output

    def on_run_end(self, result: RunResult) -> None:
        """Add it."""
        append_result(self._output, result)
