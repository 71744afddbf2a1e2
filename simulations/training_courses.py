"""Starts of training compared: how each goes over rounds and bytes, and how soon it is as good as another ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedcof.run.results import TRAIN, RoundResult
from simulations.runs_over_seeds import Setting


@dataclass(frozen=True)
class Course:
    """How a setting goes, averaged over seeds as far as all of them went.

    Attributes
    ----------
    rounds : ndarray of shape (r,), float64
        Rounds of training, 0 for the start; or without training the rounds in which clients were asked, from 1.
    megabytes : ndarray of shape (r,), float64
        Uplink so far in 10^6 bytes.
    accuracy : ndarray of shape (r,), float64
        In per cent.
    """

    rounds: NDArray[np.float64]
    megabytes: NDArray[np.float64]
    accuracy: NDArray[np.float64]


@dataclass(frozen=True)
class Reached:
    """When a setting is first as accurate as asked.

    Attributes
    ----------
    rounds : int
        Rounds of training.
    megabytes : float
        Uplink until then in 10^6 bytes.
    """

    rounds: int
    megabytes: float


def is_trained(setting: Setting) -> bool:
    """Say whether rounds of training followed the closed form."""
    return any(entry.phase == TRAIN for run in setting.runs for entry in run.rounds)


def course_of(setting: Setting) -> Course:
    """Average how a setting's runs went.

    Parameters
    ----------
    setting : Setting
        Any.

    Returns
    -------
    Course
        Empty where its runs have no rounds.
    """
    entries = [_shown(run.rounds) for run in setting.runs]
    length = min(map(len, entries))
    numbers = [
        [(number, entry.uplink_bytes / 1e6, entry.accuracy * 100) for number, entry in run[:length]]
        for run in entries
    ]
    averages = np.array(numbers, dtype=np.float64).reshape(len(numbers), length, 3).mean(axis=0)
    return Course(*averages.T)


def how_soon(settings: Sequence[Setting]) -> tuple[list[Setting], list[list[Reached | None]]]:
    """Find when each start is as accurate as each of them is in the end.

    Parameters
    ----------
    settings : sequence of Setting
        All settings; the best of each method that was trained is looked at.

    Returns
    -------
    tuple of (list of Setting, list of list)
        The starts, the least accurate in the end first; and for each of them when it is as accurate as each, None
        where it never is.
    """
    best: dict[str, Setting] = {}
    for setting in filter(is_trained, settings):
        if setting.method not in best or setting.accuracy > best[setting.method].accuracy:
            best[setting.method] = setting
    starts = sorted(best.values(), key=lambda setting: course_of(setting).accuracy[-1])
    targets = [float(course_of(setting).accuracy[-1]) for setting in starts]
    return starts, [[_reached(course_of(setting), target) for target in targets] for setting in starts]


def _shown(rounds: Sequence[RoundResult]) -> list[tuple[int, RoundResult]]:
    training = [number for number, entry in enumerate(rounds) if entry.phase == TRAIN]
    if not training:
        return [(entry.round, entry) for entry in rounds]
    start = training[0] - 1
    return list(enumerate(rounds[start:]))


def _reached(course: Course, target: float) -> Reached | None:
    there = np.flatnonzero(course.accuracy >= target)
    return Reached(int(course.rounds[there[0]]), float(course.megabytes[there[0]])) if len(there) else None
