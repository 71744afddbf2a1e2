"""Runs that differ only by their seed, taken together as one setting."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from statistics import mean, stdev
from typing import Any

from fedcof.covariance.diagnosis import CovarianceDiagnostic
from fedcof.run.config import keys_without_effect
from fedcof.run.results import RunResult
from simulations.comparison import varying_keys


@dataclass(frozen=True)
class Setting:
    """A method with its values, over its seeds.

    Attributes
    ----------
    method : str
        The method's name.
    values : dict of str to object
        Its values of the keys in which the comparison's runs differ, without those that mean nothing to the method.
    runs : list of RunResult
        One run a seed.
    """

    method: str
    values: dict[str, object]
    runs: list[RunResult]

    @property
    def label(self) -> str:
        """Method and values, for people."""
        return ", ".join([self.method, *(f"{key} {value}" for key, value in self.values.items())])

    @property
    def accuracy(self) -> float:
        """Mean accuracy over the seeds, from 0 to 1."""
        return mean(run.accuracy for run in self.runs)

    @property
    def accuracy_deviation(self) -> float | None:
        """Sample standard deviation of the accuracy over the seeds; None for one seed."""
        return stdev(run.accuracy for run in self.runs) if len(self.runs) > 1 else None

    @property
    def diagnostic(self) -> CovarianceDiagnostic | None:
        """Mean of the runs' covariance diagnostics; None unless all have one."""
        found = [run.covariance for run in self.runs if run.covariance]
        if not found or len(found) < len(self.runs):
            return None
        values = [asdict(diagnostic) for diagnostic in found]
        return CovarianceDiagnostic(**{name: _mean([value[name] for value in values]) for name in values[0]})

    def average_of(self, field: str) -> float:
        """Average a number over the seeds.

        Parameters
        ----------
        field : str
            Name of a number of :class:`fedcof.results.RunResult`.

        Returns
        -------
        float
            Its mean.
        """
        return float(mean(getattr(run, field) for run in self.runs))


def settings_of(results: list[RunResult]) -> list[Setting]:
    """Group runs by everything but their seed.

    Parameters
    ----------
    results : list of RunResult
        Runs of one comparison.

    Returns
    -------
    list of Setting
        In the order in which their first runs ended.
    """
    keys = varying_keys(results)
    groups: dict[tuple[str, ...], list[RunResult]] = {}
    for run in results:
        groups.setdefault((run.method, *(str(run.config[key]) for key in keys)), []).append(run)
    settings = []
    for (method, *_), runs in groups.items():
        without_effect = keys_without_effect(runs[0].config)
        settings.append(Setting(method, {k: runs[0].config[k] for k in keys if k not in without_effect}, runs))
    return settings


def _mean(values: list[Any]) -> Any:  # noqa: ANN401
    """Average numbers, or lists of them place by place; None where one of them is."""
    if isinstance(values[0], list):
        return [_mean(list(place)) for place in zip(*values, strict=True)]
    if any(value is None for value in values):
        return None
    # Ranks stay whole numbers.
    return values[0] if len(set(values)) == 1 else mean(values)
