"""Runs that could not be made, put together for people: by setting, with the sentence that says why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fedcof.run.failures import RunFailure
from fedcof.run.results import RunResult
from simulations.comparison import varying_keys
from simulations.report.machine_paths import without_folders
from simulations.report.methods_and_keys import default_config, method_place, unused_keys


@dataclass(frozen=True)
class FailedSetting:
    """A method with its values, of which runs failed for one reason.

    Attributes
    ----------
    method : str
        The method's name.
    values : dict of str to object
        Its values of the keys in which the runs of the folder differ, the failed ones included.
    seeds : list of int
        The seeds of the runs that failed.
    reason : str
        Why, in one sentence.
    """

    method: str
    values: dict[str, object]
    seeds: list[int]
    reason: str

    @property
    def label(self) -> str:
        """Method and values, for people."""
        return ", ".join([self.method, *(f"{key} {value}" for key, value in self.values.items())])

    @property
    def whole_label(self) -> str:
        """The label, with the seeds."""
        return f"{self.label}, seed{'s' if len(self.seeds) > 1 else ''} {', '.join(map(str, self.seeds))}"


def failed_settings(failures: Sequence[RunFailure], results: Sequence[RunResult]) -> list[FailedSetting]:
    """Group runs that failed by setting and reason.

    Parameters
    ----------
    failures : sequence of RunFailure
        Those of a folder.
    results : sequence of RunResult
        The runs of the folder that did not fail.

    Returns
    -------
    list of FailedSetting
        In the order of methods, and of when they failed.
    """
    keys = varying_keys([*results, *failures])
    settings: dict[tuple[str, ...], FailedSetting] = {}
    for failure in sorted(failures, key=lambda failure: method_place(failure.method)):
        config, unused = {**default_config(), **failure.config}, unused_keys(failure.config)
        values = {key: without_folders(key, config[key]) for key in keys if key in config and key not in unused}
        group = failure.method, *map(str, values.values()), failure.reason
        setting = settings.setdefault(group, FailedSetting(failure.method, values, [], failure.reason))
        setting.seeds.append(failure.seed)
    return list(settings.values())
