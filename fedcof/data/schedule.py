"""Time in a simulation: at which step each client is there, each class arrives, and each sample comes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from fedcof.data.problem import Sampled, labels_of, problem_of
from fedcof.data.schedule_file import Told, read_schedule
from fedcof.data.section import LISTED_ORDER, DataSection
from fedcof.data.virtual_clients import samples_of_client
from fedcof.errors import UserError

NEVER = 0

# Behind the seed, as in fedcof.data.few_samples, so that no two things are drawn by the same numbers.
_OF_CLASS_ORDER, _OF_PARTS = (0, 3), (0, 4)

IntArray = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Schedule:
    """Who is there, and what comes, at each step of a federation.

    Attributes
    ----------
    steps : int
        Number of steps, which are counted from 1.
    joins, leaves : ndarray of shape (clients,), int64
        Step from which each client is there, and from which it is gone again with all that it sent; one more than
        there are steps where it stays.
    arrives : ndarray of shape (C,), int64
        Step from which there are samples of each class.
    parts : int
        Parts in which a client's samples of a class come, one a step, from when both are there.
    seed : int or None
        What draws who is in which part; None for the order in which samples are stored.
    """

    steps: int
    joins: IntArray
    leaves: IntArray
    arrives: IntArray
    parts: int = 1
    seed: int | None = None

    @property
    def num_clients(self) -> int:
        """Number of clients that are there at any step."""
        return len(self.joins)

    def here(self, step: int) -> IntArray:
        """List the clients that are there at a step, ascending."""
        return np.flatnonzero((self.joins <= step) & (step < self.leaves))

    def leaving(self, step: int) -> IntArray:
        """List the clients that are gone from this step on, ascending."""
        return np.flatnonzero(self.leaves == step)

    def step_of_samples(self, client: int, labels: IntArray) -> IntArray:
        """Say when a client has each of its samples first.

        Parameters
        ----------
        client : int
            Client number, from 0.
        labels : ndarray of shape (n,), int64
            Class of each of its samples, in the order in which it holds them.

        Returns
        -------
        ndarray of shape (n,), int64
            Steps, from 1; ``NEVER`` for those that come when the client is gone.
        """
        steps = np.maximum(self.joins[client], self.arrives[labels]) + self._parts(client, labels)
        return np.where(steps < self.leaves[client], steps, NEVER)

    def _parts(self, client: int, labels: IntArray) -> IntArray:
        """Divide the samples of each class into parts whose sizes differ by one at most: shape (n,), from 0."""
        parts = np.zeros(len(labels), np.int64)
        if self.parts == 1 or not len(labels):
            return parts
        order = np.arange(len(labels))
        if self.seed is not None:
            order = np.random.default_rng([self.seed, *_OF_PARTS, client]).permutation(len(labels))
        by_class = order[np.argsort(labels[order], kind="stable")]
        _, first, sizes = np.unique(labels[by_class], return_index=True, return_counts=True)
        rank = np.arange(len(labels)) - np.repeat(first, sizes)
        parts[by_class] = rank * self.parts // np.repeat(sizes, sizes)
        return parts


def schedule_of(config: Sampled) -> Schedule:
    """Make the schedule of a simulation that goes over several steps.

    Parameters
    ----------
    config : Sampled
        The run's sections on data and embedding.

    Returns
    -------
    Schedule
        The same in every process.

    Raises
    ------
    UserError
        If the schedule's file cannot be read, or tells of clients, classes or steps that there are not.
    """
    return _schedule(config.data, problem_of(config).class_names)


def new_samples(config: Sampled, client: int, step: int) -> IntArray:
    """Which training samples a client learns from that it has not had before a step.

    Parameters
    ----------
    config : Sampled
        A simulation that goes over several steps.
    client : int
        Client number, from 0.
    step : int
        Number of the step, from 1.

    Returns
    -------
    ndarray
        Ascending sample numbers, int64.
    """
    samples = samples_of_client(config, client, held_out=False)
    labels = labels_of(config, "train")[samples]
    new: IntArray = samples[schedule_of(config).step_of_samples(client, labels) == step]
    return new


def clients_with_something_new(config: Sampled) -> dict[int, list[int]]:
    """List by step, from 1, the clients that have something new then, ascending."""
    schedule, labels = schedule_of(config), labels_of(config, "train")
    found: dict[int, list[int]] = {step: [] for step in range(1, schedule.steps + 1)}
    for client in range(schedule.num_clients):
        own = labels[samples_of_client(config, client, held_out=False)]
        for step in np.unique(schedule.step_of_samples(client, own)).tolist():
            if step != NEVER:
                found[step].append(client)
    return found


@lru_cache(maxsize=8)
def _schedule(data: DataSection, class_names: tuple[str, ...]) -> Schedule:
    told = read_schedule(data.schedule, data.num_clients, class_names) if data.schedule else Told()
    if data.class_steps and told.arrivals:
        raise UserError(
            f"Both class-steps and the schedule {data.schedule} say when classes arrive: leave one of them out."
        )
    joins, leaves = np.ones(data.num_clients, np.int64), np.zeros(data.num_clients, np.int64)
    arrives = _in_steps(data, len(class_names)) if data.class_steps else np.ones(len(class_names), np.int64)
    for changed, said in ((joins, told.joins), (leaves, told.leaves), (arrives, told.arrivals)):
        changed[list(said)] = list(said.values())
    last_part = int(max(joins.max(), arrives.max())) + told.parts - 1
    steps = told.steps or max(last_part, int(leaves.max()))
    if max(last_part, int(leaves.max())) > steps:
        raise UserError(
            f"The schedule {data.schedule} has {steps} steps, but something happens at step "
            f"{max(last_part, int(leaves.max()))}: raise steps, or leave it out."
        )
    leaves[leaves == NEVER] = steps + 1
    _check_somebody_is_there(data.schedule, joins, leaves, steps)
    return Schedule(steps, joins, leaves, arrives, told.parts, data.seed if told.by_seed else None)


def _in_steps(data: DataSection, num_classes: int) -> IntArray:
    """Deal the classes to steps, as many to each as can be."""
    if data.class_steps > num_classes:
        raise UserError(
            f"The key class-steps is {data.class_steps}, but there are {num_classes} classes, and one at least "
            f"arrives at each step: give at most {num_classes}."
        )
    order = np.arange(num_classes)
    if data.class_order != LISTED_ORDER:
        order = np.random.default_rng([data.seed, *_OF_CLASS_ORDER]).permutation(num_classes)
    arrives = np.empty(num_classes, np.int64)
    for step, classes in enumerate(np.array_split(order, data.class_steps), start=1):
        arrives[classes] = step
    return arrives


def _check_somebody_is_there(file: str, joins: IntArray, leaves: IntArray, steps: int) -> None:
    gone = np.flatnonzero(leaves <= joins)
    if len(gone):
        raise UserError(
            f"By the schedule {file} client {gone[0]} leaves at step {leaves[gone[0]]}, but joins at step "
            f"{joins[gone[0]]} only: let it leave later, or join earlier."
        )
    for step in range(1, steps + 1):
        if not ((joins <= step) & (step < leaves)).any():
            raise UserError(f"By the schedule {file} no client is there at step {step}: let one stay, or join.")
