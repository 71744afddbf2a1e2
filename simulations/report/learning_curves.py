"""Starts of training compared: how each goes over rounds and bytes, and how soon it is as good as another ends."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedcof.run.results import TRAIN, RoundResult
from simulations.report.seed_averages import SeedAverage, most_accurate_of_each_method


@dataclass(frozen=True)
class LearningCurve:
    """How accuracy goes over rounds and bytes, averaged over seeds as far as all of them went.

    Attributes
    ----------
    rounds : ndarray of shape (r,), float64
        Rounds of training, 0 for the start; or without training the rounds in which clients were asked, from 1.
    megabytes : ndarray of shape (r,), float64
        Uplink so far in 10^6 bytes.
    accuracy : ndarray of shape (r,), float64
        In per cent; NaN for a round after which that of any seed is unknown.
    """

    rounds: NDArray[np.float64]
    megabytes: NDArray[np.float64]
    accuracy: NDArray[np.float64]


@dataclass(frozen=True)
class Reached:
    """When a start is first as accurate as asked.

    Attributes
    ----------
    rounds : int
        Rounds of training.
    megabytes : float
        Uplink until then in 10^6 bytes.
    """

    rounds: int
    megabytes: float


def is_trained(average: SeedAverage) -> bool:
    """Say whether rounds of training followed the closed form."""
    return any(entry.phase == TRAIN for run in average.runs for entry in run.rounds)


def learning_curve(average: SeedAverage) -> LearningCurve:
    """Average how the runs of a setting went.

    Parameters
    ----------
    average : SeedAverage
        Any.

    Returns
    -------
    LearningCurve
        Empty where its runs have no rounds.
    """
    entries = [_shown(run.rounds) for run in average.runs]
    length = min(map(len, entries))
    numbers = [
        [(number, entry.uplink_bytes / 1e6, _percent(entry)) for number, entry in run[:length]] for run in entries
    ]
    averages = np.array(numbers, dtype=np.float64).reshape(len(numbers), length, 3).mean(axis=0)
    return LearningCurve(*averages.T)


def how_soon(averages: Sequence[SeedAverage]) -> tuple[list[SeedAverage], list[list[Reached | None]]]:
    """Find when each start is as accurate as each of them is in the end.

    Parameters
    ----------
    averages : sequence of SeedAverage
        All settings; the best of each method that was trained, as far as accuracies are known, is looked at.

    Returns
    -------
    tuple of (list of SeedAverage, list of list)
        The starts, the least accurate in the end first; and for each of them when it is as accurate as each, None
        where it never is.
    """
    ended = [average for average in averages if is_trained(average) and _ends_known(average)]
    best = most_accurate_of_each_method(ended)
    curves = {average.method: learning_curve(average) for average in best}
    starts = sorted(best, key=lambda average: curves[average.method].accuracy[-1])
    targets = [float(curves[start.method].accuracy[-1]) for start in starts]
    return starts, [[_reached(curves[start.method], target) for target in targets] for start in starts]


def _ends_known(average: SeedAverage) -> bool:
    curve = learning_curve(average).accuracy
    return len(curve) > 0 and not np.isnan(curve[-1])


def _percent(entry: RoundResult) -> float:
    return math.nan if entry.accuracy is None else entry.accuracy * 100


def _shown(rounds: Sequence[RoundResult]) -> list[tuple[int, RoundResult]]:
    training = [number for number, entry in enumerate(rounds) if entry.phase == TRAIN]
    if not training:
        return [(entry.round, entry) for entry in rounds]
    start = max(training[0] - 1, 0)
    return list(enumerate(rounds[start:]))


def _reached(curve: LearningCurve, target: float) -> Reached | None:
    there = np.flatnonzero(curve.accuracy >= target)
    return Reached(int(curve.rounds[there[0]]), float(curve.megabytes[there[0]])) if len(there) else None
