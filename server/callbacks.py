"""What is told how a run goes while it goes: its own files, the command's progress, and trackers."""

from __future__ import annotations

from collections.abc import Sequence
from logging import getLogger
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from fedcof.errors import first_line

if TYPE_CHECKING:
    from fedcof.run.config import RunConfig
    from fedcof.run.results import RoundResult, RunResult
    from server.checkpoint import Checkpoint

logger = getLogger("flwr")


class RunInProgress(Protocol):
    """What a callback may ask of the run, after a round.

    Attributes
    ----------
    best : RoundResult or None
        The first of the rounds of training with the highest known accuracy; None without any.
    """

    @property
    def best(self) -> RoundResult | None:
        """See above."""

    def save_networks(self, folder: Path) -> None:
        """Write the classifier as it is now, and what else was trained, into a folder."""

    def checkpoint(self) -> Checkpoint:
        """Give all that the next round depends on, once there was one of training."""


class Callback:
    """What is told how a run goes; each of these does nothing unless it is overridden.

    They are called in the ServerApp's process, one after another. What one raises ends the run, unless it is a
    tracker (:class:`Tolerated`).
    """

    def on_run_start(self, config: RunConfig, output: Path, folder: str) -> None:
        """Be told that a run begins.

        Parameters
        ----------
        config : RunConfig
            What it does.
        output : Path
            Folder of the results of all runs.
        folder : str
            Folder of this run's files within it.
        """

    def on_resume(self, rounds: Sequence[RoundResult]) -> None:
        """Be told that it goes on from a checkpoint, and how the rounds before went."""

    def on_reply(self, client: int) -> None:
        """Be told that a client has answered a request for its statistics, or to train; or has failed to."""

    def on_round_end(self, result: RoundResult, run: RunInProgress) -> None:
        """Be told how far the run is after a round; a method that asks no clients has none."""

    def on_run_end(self, result: RunResult) -> None:
        """Be told what the run came to, once its files are written."""

    def on_failure(self, error: Exception) -> None:
        """Be told that the run has failed, in place of its end."""


class Callbacks(Callback):
    """Several callbacks as one.

    Parameters
    ----------
    callbacks : sequence of Callback
        They are told in this order.
    """

    def __init__(self, callbacks: Sequence[Callback]) -> None:
        self._callbacks = tuple(callbacks)

    def on_run_start(self, config: RunConfig, output: Path, folder: str) -> None:
        """Tell all."""
        self._tell("on_run_start", config, output, folder)

    def on_resume(self, rounds: Sequence[RoundResult]) -> None:
        """Tell all."""
        self._tell("on_resume", rounds)

    def on_reply(self, client: int) -> None:
        """Tell all."""
        self._tell("on_reply", client)

    def on_round_end(self, result: RoundResult, run: RunInProgress) -> None:
        """Tell all."""
        self._tell("on_round_end", result, run)

    def on_run_end(self, result: RunResult) -> None:
        """Tell all."""
        self._tell("on_run_end", result)

    def on_failure(self, error: Exception) -> None:
        """Tell all."""
        self._tell("on_failure", error)

    def _tell(self, event: str, *what: object) -> None:
        for callback in self._callbacks:
            getattr(callback, event)(*what)


class Tolerated(Callbacks):
    """A callback that must not cost a run: after its first error, said in a line, it is told nothing more.

    Parameters
    ----------
    name : str
        What it is called, for people.
    callback : Callback
        The callback.
    """

    def __init__(self, name: str, callback: Callback) -> None:
        super().__init__([callback])
        self._name = name

    def _tell(self, event: str, *what: object) -> None:
        try:
            super()._tell(event, *what)
        except Exception as error:
            # Whatever a stranger's code raises.
            reason = f"{type(error).__name__}: {first_line(error)}"
            logger.warning("The tracker %s has failed, so the run goes on without it (%s).", self._name, reason)
            self._callbacks = ()
