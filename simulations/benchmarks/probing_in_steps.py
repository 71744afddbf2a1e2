"""Measure what federated linear probing makes of a federation that changes over steps, beside its closed form.

    python -m simulations.benchmarks.probing_in_steps cifar100 -c dataset=parquet:DIR -c class-steps=10

Clients, samples and steps are those of the run that the same settings describe; all is computed in this process,
from features in the cache, and no message is sent. Heads grow with the classes: those that have not arrived are in
no softmax. A round is FedAvg over all clients that have a sample to train on, with the step size that each derives
from its own features, as ``continue=linear-probe`` has it.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clients.training import LocalTraining, step_of_head, train
from fedcof.data.problem import labels_of, problem_of
from fedcof.data.schedule import Schedule, schedule_of
from fedcof.data.virtual_clients import samples_of_client
from fedcof.errors import UserError
from fedcof.heads.classifier import Classifier
from fedcof.heads.trainable import Network
from fedcof.run.config import RunConfig
from fedcof.run.steps import StepCourse, StepResult, Turnover
from fedcof.run.training import TrainingSection
from server.evaluation import features_of
from simulations.scenario import DEFAULT_SCENARIO, configure
from simulations.steps_table import steps_table
from simulations.terminal import console, say

BYTES_OF_A_NUMBER = 4

IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class Way:
    """How probing meets a new step.

    Attributes
    ----------
    name, words : str
        For the command, and for people.
    goes_on : bool
        Whether from the head of the step before, and not from zeros.
    replays : bool
        Whether on all samples so far, and not on the new ones alone.
    """

    name: str
    words: str
    goes_on: bool
    replays: bool


WAYS = (
    Way("on", "On from the last head, new samples alone", goes_on=True, replays=False),
    Way("replay", "On from the last head, all samples so far", goes_on=True, replays=True),
    Way("scratch", "From scratch, all samples so far", goes_on=False, replays=True),
)


@dataclass(frozen=True, eq=False)
class Held:
    """The training features of everybody, and when each client has each of its samples first."""

    features: Tensor
    labels: Tensor
    schedule: Schedule
    samples: list[IntArray]
    steps: list[IntArray]

    def clients(self, step: int, replays: bool) -> Iterator[tuple[int, Tensor]]:
        """Give the clients that train at a step, each with its samples."""
        for client in self.schedule.here(step).tolist():
            came = self.steps[client]
            mine = self.samples[client][(came >= 1) & (came <= step) if replays else came == step]
            if len(mine):
                yield client, torch.from_numpy(mine)


def held_of(config: RunConfig) -> Held:
    """Look up what a run's clients hold, and when."""
    schedule, labels = schedule_of(config), labels_of(config, "train")
    samples = [samples_of_client(config, client, held_out=False) for client in range(schedule.num_clients)]
    steps = [schedule.step_of_samples(client, labels[own]) for client, own in enumerate(samples)]
    return Held(features_of(config, split="train"), torch.tensor(labels), schedule, samples, steps)


def probe_in_steps(config: RunConfig, held: Held, way: Way) -> list[StepResult]:
    """Train a head at each step, and evaluate it.

    Parameters
    ----------
    config : RunConfig
        A run over several steps; its section on training says how.
    held : Held
        What its clients hold.
    way : Way
        From what head, and on which samples.

    Returns
    -------
    list of StepResult
        Bytes are those of the heads' numbers alone, both ways.
    """
    test, test_labels = features_of(config), labels_of(config, "test")
    course = StepCourse(test_labels, problem_of(config).num_classes)
    seen = np.zeros(problem_of(config).num_classes, bool)
    network = Network(len(seen), problem_of(config).feature_dim)
    _set_to_zero(network)
    sent = 0
    for step in range(1, held.schedule.steps + 1):
        training = list(held.clients(step, way.replays))
        seen[[int(label) for _, own in training for label in torch.unique(held.labels[own])]] = True
        if not way.goes_on:
            _set_to_zero(network)
        grown = _of_classes(network, seen)
        for number in range(1, config.training.rounds + 1):
            _round(config, held, grown, training, seen, (step - 1) * config.training.rounds + number)
            sent += len(training) * BYTES_OF_A_NUMBER * sum(p.numel() for p in grown.parameters())
        _put_back(network, grown, seen)
        classifier: Classifier = network.classifier(torch.from_numpy(seen))
        right = (classifier.predict(test) == torch.tensor(test_labels)).numpy()
        here, left = held.schedule.here(step), held.schedule.leaving(step)
        course.add(right, seen, Turnover(len(here), len(training), len(left), sent, sent))
    return course.results


def _round(
    config: RunConfig,
    held: Held,
    network: Network,
    training: Sequence[tuple[int, Tensor]],
    seen: NDArray[np.bool_],
    number: int,
) -> None:
    """Do one round of FedAvg, in place."""
    if not training:
        return
    start = network.to_arrays()
    place = torch.from_numpy(np.cumsum(seen) - 1)
    mean = {name: np.zeros(array.shape) for name, array in start.items()}
    total = sum(len(own) for _, own in training)
    for client, own in training:
        network.load_arrays(start)
        features = held.features[own]
        rate = step_of_head(config.training, network, features.__getitem__, len(own))
        settings = LocalTraining.of(config.training, config.embedding.batch_size, number, rate)
        seed = int(np.random.SeedSequence([config.data.seed, number, client]).generate_state(1)[0])
        generator = torch.Generator().manual_seed(seed)
        train(network, features.__getitem__, place[held.labels[own]], settings, generator)
        for name, array in network.to_arrays().items():
            mean[name] += array.astype(np.float64) * (len(own) / total)
    network.load_arrays({name: array.astype(np.float32) for name, array in mean.items()})


def _set_to_zero(network: Network) -> None:
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()


def _of_classes(network: Network, seen: NDArray[np.bool_]) -> Network:
    """Make a network of the classes that have arrived, with the weights they have."""
    grown = Network(int(seen.sum()), network.head.in_features)
    return grown.load_arrays({name: array[seen] for name, array in network.to_arrays().items()})


def _put_back(network: Network, grown: Network, seen: NDArray[np.bool_]) -> None:
    arrays = network.to_arrays()
    for name, array in grown.to_arrays().items():
        arrays[name][seen] = array
    network.load_arrays(arrays)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print a table for each way and seed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("scenario", nargs="?", default=DEFAULT_SCENARIO)
    parser.add_argument("-c", dest="settings", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--ways", default=",".join(way.name for way in WAYS))
    parser.add_argument("--rounds", type=int, default=20, help="rounds of training at each step")
    parser.add_argument("--json", type=Path, help="file for the numbers")
    asked = parser.parse_args(arguments)
    config = configure(asked.scenario, asked.settings)
    if not config.data.in_steps:
        raise UserError("The settings describe a run of one moment: set class-steps, or name a schedule.")
    found = []
    for seed in map(int, asked.seeds.split(",")):
        own = config.replaced(seed=seed)
        held = held_of(own)
        training = _probing(own, asked.rounds)
        for way in (one for one in WAYS if one.name in asked.ways.split(",")):
            steps = probe_in_steps(training, held, way)
            say(f"{way.words}, {asked.rounds} rounds a step, seed {seed}")
            console.print(steps_table(steps))
            found.append({"way": way.name, "seed": seed, "steps": [asdict(step) for step in steps]})
            if asked.json:
                asked.json.write_text(json.dumps(found, indent=1), encoding="utf-8")


def _probing(config: RunConfig, rounds: int) -> RunConfig:
    """Give a run the number of rounds of one that trains, which one over steps is not."""
    return RunConfig.loosely({**config.to_mapping(), **TrainingSection.named(rounds=rounds)})


if __name__ == "__main__":
    main()
