"""Steps of a federation that changes over time, averaged over seeds."""

from __future__ import annotations

from dataclasses import dataclass, fields
from statistics import fmean

from fedcof.run.steps import StepResult
from simulations.report.seed_averages import SeedAverage


@dataclass(frozen=True)
class StepAverage:
    """Means over seeds of what :class:`fedcof.run.steps.StepResult` has; None where any seed's is unknown."""

    step: float
    clients: float
    uploads: float
    left: float
    classes: float
    new_classes: float
    accuracy: float | None
    old_accuracy: float | None
    new_accuracy: float | None
    average_accuracy: float | None
    forgetting: float | None
    uplink_bytes: float
    downlink_bytes: float


def step_averages(average: SeedAverage) -> list[StepAverage]:
    """Average the steps of a setting, as far as all of its runs went.

    Parameters
    ----------
    average : SeedAverage
        Any.

    Returns
    -------
    list of StepAverage
        Empty where its runs have no steps.
    """
    of_runs = [run.steps for run in average.runs]
    return [_averaged([steps[number] for steps in of_runs]) for number in range(min(map(len, of_runs)))]


def _averaged(steps: list[StepResult]) -> StepAverage:
    means: dict[str, float | None] = {}
    for named in fields(StepAverage):
        known = [value for step in steps if (value := getattr(step, named.name)) is not None]
        means[named.name] = fmean(known) if len(known) == len(steps) else None
    return StepAverage(**means)  # type: ignore[arg-type]
