"""Runs that differ only by their seed, averaged."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import mean, stdev
from typing import Any

from fedcof.covariance.diagnostic import CovarianceDiagnostic
from fedcof.run.client_accuracy import ClientAccuracy
from fedcof.run.energy import EnergyUse
from fedcof.run.results import RunResult
from fedcof.run.sample_groups import AccuracyBySamples
from fedcof.wire.section import GIVEN, WireSection
from simulations.comparison import published_values, varying_keys
from simulations.published import paper_accuracy
from simulations.report.methods_and_keys import default_config, is_telling, unused_keys


@dataclass(frozen=True)
class SeedAverage:
    """A method with its values, averaged over seeds.

    An average of numbers of which one is unknown is unknown: that of the others would look like one over all seeds.

    Attributes
    ----------
    method : str
        The method's name.
    values : dict of str to object
        Its values of the keys in which the comparison's runs differ, without those that mean nothing to the method.
    runs : list of RunResult
        One run a seed.
    form : str
        What stands for its values of the keys that papers have otherwise; empty where each is to be said.
    """

    method: str
    values: dict[str, object]
    runs: list[RunResult]
    form: str = ""

    @property
    def telling_values(self) -> dict[str, object]:
        """The values on which its accuracy or its upload may depend, without those that its form stands for."""
        told = {key: value for key, value in self.values.items() if is_telling(key)}
        implied = set(published_values()) if self.form else set()
        if told.keys() & WireSection.ways().keys():
            # Where one of these is said, it goes without saying that they are given.
            implied |= {key for key, value in WireSection.named(upload=GIVEN).items() if told.get(key) == value}
        return {key: value for key, value in told.items() if key not in implied}

    @property
    def values_label(self) -> str:
        """The telling values with their keys, for people."""
        return self._listed(", ", [f"{key} {value}" for key, value in self.telling_values.items()])

    @property
    def short_label(self) -> str:
        """The telling values with no more of their keys than they need, for a picture."""
        values = self.telling_values.items()
        return self._listed(" ", [v if isinstance(v, str) else f"{key} {v}" for key, v in values])

    @property
    def left_out(self) -> str:
        """Whose kept uploads were left out, for people; empty for nobody's."""
        names = list(self.runs[0].without)
        return "" if not names else f"without {names[0] if len(names) == 1 else f'{len(names)} clients'}"

    def _listed(self, between: str, values: list[str]) -> str:
        return between.join([part for part in (self.form, *values, self.left_out) if part])

    @property
    def label(self) -> str:
        """Method and telling values, for people."""
        return f"{self.method}, {self.values_label}" if self.values_label else self.method

    @property
    def accuracy(self) -> float | None:
        """Mean accuracy over the seeds, from 0 to 1; None where that of any is unknown."""
        return _mean_if_known([run.accuracy for run in self.runs])

    @property
    def paper_accuracy(self) -> float | None:
        """What the paper whose setting it is has for it, from 0 to 1; None for a setting of no paper."""
        return paper_accuracy(self.runs[0])

    @property
    def accuracy_deviation(self) -> float | None:
        """Sample standard deviation of the accuracy over the seeds; None for one seed, or where any is unknown."""
        known = [run.accuracy for run in self.runs if run.accuracy is not None]
        return stdev(known) if len(known) == len(self.runs) > 1 else None

    @property
    def diagnostic(self) -> CovarianceDiagnostic | None:
        """Mean of the runs' covariance diagnostics; None unless all have one."""
        found = [run.covariance for run in self.runs if run.covariance]
        if not found or len(found) < len(self.runs):
            return None
        values = [asdict(diagnostic) for diagnostic in found]
        return CovarianceDiagnostic(**{name: _mean([value[name] for value in values]) for name in values[0]})

    @property
    def client_accuracy(self) -> ClientAccuracy | None:
        """Mean of what the clients get; None unless every run knows it."""
        found = [run.client_accuracy for run in self.runs if run.client_accuracy]
        return ClientAccuracy.averaged(found) if len(found) == len(self.runs) else None

    @property
    def accuracy_by_samples(self) -> AccuracyBySamples | None:
        """Mean accuracies of classes by their training samples; None unless every run knows them."""
        found = [run.accuracy_by_samples for run in self.runs if run.accuracy_by_samples]
        return AccuracyBySamples.averaged(found) if len(found) == len(self.runs) else None

    @property
    def energy(self) -> EnergyUse | None:
        """Mean energy that was used; None unless it was measured for every run."""
        found = [run.energy for run in self.runs if run.energy]
        return EnergyUse.averaged(found) if len(found) == len(self.runs) else None

    @property
    def shrinkage(self) -> float | None:
        """Mean amount of shrinkage that was used; None where any run has not kept it."""
        return _mean_if_known([run.shrinkage for run in self.runs])

    def average_if_known(self, field: str) -> float | None:
        """Average a number that not every run has, named as in :meth:`average_of`; None where any run has none."""
        return _mean_if_known([getattr(run, field) for run in self.runs])

    def average_of(self, field: str) -> float:
        """Average a number over the seeds.

        Parameters
        ----------
        field : str
            Name of a number of :class:`fedcof.run.results.RunResult` that every run has.

        Returns
        -------
        float
            Its mean.
        """
        return float(mean(getattr(run, field) for run in self.runs))


def averages_over_seeds(results: list[RunResult], keys: Sequence[str] | None = None) -> list[SeedAverage]:
    """Group runs by everything but their seed.

    Parameters
    ----------
    results : list of RunResult
        Runs of one comparison.
    keys : sequence of str, optional
        Keys in which they differ, where others of the comparison are to be counted in; found if not given.

    Returns
    -------
    list of SeedAverage
        In the order in which their first runs ended.
    """
    keys = varying_keys(results) if keys is None else keys
    defaults = default_config()
    groups: dict[tuple[str, ...], list[RunResult]] = {}
    for run in results:
        config = {**defaults, **run.config}
        told = (str(config.get(key)) for key in keys)
        groups.setdefault((run.method, *told, *sorted(run.without)), []).append(run)
    averages = []
    for (method, *_), runs in groups.items():
        config, unused = {**defaults, **runs[0].config}, unused_keys(runs[0].config)
        values = {key: config[key] for key in keys if key in config and key not in unused}
        averages.append(SeedAverage(method, values, runs, _form(config, keys, unused)))
    return averages


def _form(config: Mapping[str, object], keys: Sequence[str], unused: Collection[str]) -> str:
    """Name the form of a method, where comparing forms is what two or more keys differ for."""
    published = published_values()
    meant = published.keys() - unused
    if len(published.keys() & set(keys)) < 2 or not meant.intersection(keys):
        return ""
    forms = {"paper's form": published, "default form": default_config()}
    return next((form for form, values in forms.items() if all(config[key] == values[key] for key in meant)), "")


def with_known_accuracy(averages: Sequence[SeedAverage]) -> list[SeedAverage]:
    """Leave out the averages whose accuracy nobody knows.

    Parameters
    ----------
    averages : sequence of SeedAverage
        Any.

    Returns
    -------
    list of SeedAverage
        The others, in their order.
    """
    return [average for average in averages if average.accuracy is not None]


def told_apart(averages: Sequence[SeedAverage]) -> list[SeedAverage]:
    """Leave one of those whose label is the same, because a picture shows them in the same place.

    Parameters
    ----------
    averages : sequence of SeedAverage
        Any.

    Returns
    -------
    list of SeedAverage
        Of each label that of most seeds; of those one whose accuracy is known; of those the first.
    """
    found: dict[str, SeedAverage] = {}
    for average in averages:
        other = found.setdefault(average.label, average)
        if (len(average.runs), average.accuracy is not None) > (len(other.runs), other.accuracy is not None):
            found[average.label] = average
    return list(found.values())


def accuracy_of(average: SeedAverage) -> float:
    """Give an accuracy from 0 to 1 to calculate with and to draw: NaN, which no plot shows, where it is unknown."""
    return math.nan if average.accuracy is None else average.accuracy


def most_accurate_of_each_method(averages: Sequence[SeedAverage]) -> list[SeedAverage]:
    """Choose the first of those with the highest known accuracy.

    Parameters
    ----------
    averages : sequence of SeedAverage
        Any.

    Returns
    -------
    list of SeedAverage
        One a method, without methods of which no accuracy is known.
    """
    known = with_known_accuracy(averages)
    methods = dict.fromkeys(average.method for average in known)
    return [max((a for a in known if a.method == method), key=accuracy_of) for method in methods]


def _mean_if_known(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return mean(known) if len(known) == len(values) else None


def _mean(values: list[Any]) -> Any:  # noqa: ANN401
    """Average numbers, or lists of them place by place; None where one of them is."""
    if isinstance(values[0], list):
        return [_mean(list(place)) for place in zip(*values, strict=True)]
    if any(value is None for value in values):
        return None
    # Ranks stay whole numbers.
    return values[0] if len(set(values)) == 1 else mean(values)
