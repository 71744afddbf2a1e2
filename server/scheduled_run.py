"""A run over several steps: clients join and leave, classes arrive, and each step is solved and evaluated."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from flwr.app import MetricRecord

from fedcof.data.problem import labels_of
from fedcof.data.schedule import clients_with_something_new, schedule_of
from fedcof.errors import UserError
from fedcof.files import write_whole
from fedcof.run.steps import StepCourse, Turnover
from server.evaluation import rightly_classified
from server.federated_run import FederatedRun
from server.reporting import SCHEDULE_FILE_NAME
from server.run_strategy import strategy_of
from server.scheduled_strategy import ScheduledStrategy


class ScheduledRun(FederatedRun):
    """One run of a simulation whose federation changes; see :class:`server.federated_run.FederatedRun`."""

    def _collect_and_train(self) -> None:
        schedule, to_ask = schedule_of(self.config), clients_with_something_new(self.config)
        if self.config.data.schedule:
            keep_schedule(Path(self.config.data.schedule), self.folder)
        make = partial(ScheduledStrategy, schedule=schedule, to_ask=to_ask)
        self.strategy = strategy_of(self.config, self._callbacks.on_reply, make=make)
        self._schedule = schedule
        self._course = StepCourse(labels_of(self.config, "test"), self._problem.num_classes)
        self.strategy.start(self._federation, num_rounds=schedule.steps, **self._common_arguments())

    def _after_collecting(self) -> MetricRecord:
        record = super()._after_collecting()
        strategy = self.strategy
        assert isinstance(strategy, ScheduledStrategy)
        classifier = strategy.solved()
        step = len(self.rounds)
        turnover = Turnover(
            strategy.num_accepted, strategy.num_taken, len(self._schedule.leaving(step)), *self._bytes_so_far()
        )
        right = rightly_classified(classifier, self.config).numpy()
        self.steps.append(self._course.add(right, classifier.present.numpy(), turnover))
        return record


def keep_schedule(schedule: Path, folder: Path) -> None:
    """Copy a schedule beside what a run comes to, so that it can be read there what was run.

    Parameters
    ----------
    schedule : Path
        Its file.
    folder : Path
        Folder of the run.

    Raises
    ------
    UserError
        If the run was begun in that folder with another one.
    """
    kept, content = folder / SCHEDULE_FILE_NAME, schedule.read_bytes()
    if kept.exists() and kept.read_bytes() != content:
        raise UserError(
            f"The schedule {schedule} is not the one that the run in {folder} was begun with, which is kept there"
            f" as {SCHEDULE_FILE_NAME}: give that one, or write to another folder."
        )
    write_whole(kept, content)
