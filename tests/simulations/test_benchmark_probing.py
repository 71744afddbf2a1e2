"""Probing in steps, by hand: it learns, forgets where it sees new samples alone, and counts its heads' bytes."""

import json

import numpy as np
import pytest

from fedcof import UserError
from fedcof.run.config import RunConfig
from simulations.benchmarks import probing_in_steps
from simulations.benchmarks.probing_in_steps import WAYS, held_of, probe_in_steps

CLASSES, DIM, CLIENTS, ROUNDS = 6, 16, 4, 4


@pytest.fixture
def dataset(tmp_path, monkeypatch):
    """Features of six classes that are far apart."""
    monkeypatch.setenv("FEDCOF_CACHE", str(tmp_path / "cache"))
    generator = np.random.default_rng(0)
    centres = generator.standard_normal((CLASSES, DIM)) * 2
    for split, count in (("train", 240), ("test", 120)):
        labels = np.arange(count) % CLASSES
        features = (centres[labels] + generator.standard_normal((count, DIM))).astype(np.float32)
        np.save(tmp_path / f"{split}_features.npy", features)
        np.save(tmp_path / f"{split}_labels.npy", labels)
    return f"features:{tmp_path}"


def test_only_new_samples_make_it_forget(dataset):
    config = RunConfig(dataset=dataset, num_clients=CLIENTS, partition="iid", class_steps=3, class_order="listed")
    training = probing_in_steps._probing(config, ROUNDS)
    held = held_of(config)
    on, replay, scratch = (probe_in_steps(training, held, way) for way in WAYS)
    assert [step.classes for step in on] == [2, 4, 6]
    assert on[-1].old_accuracy + 0.2 < on[-1].new_accuracy
    assert on[-1].forgetting > 0.2 > max(replay[-1].forgetting, scratch[-1].forgetting)
    # All ways begin alike, from zeros and with the same samples.
    assert on[0] == replay[0] == scratch[0]
    heads = [classes * (DIM + 1) * 4 for classes in (2, 4, 6)]
    assert [step.uplink_bytes for step in on] == [CLIENTS * ROUNDS * sum(heads[: i + 1]) for i in range(3)]
    assert probe_in_steps(training, held, WAYS[2]) == scratch


def test_the_command_writes_what_it_finds(dataset, tmp_path):
    settings = [f"dataset={dataset}", f"num-clients={CLIENTS}", "class-steps=2"]
    arguments = [part for setting in settings for part in ("-c", setting)]
    numbers = tmp_path / "found.json"
    probing_in_steps.main(
        [*arguments, "--ways", "scratch", "--rounds", "1", "--seeds", "0,1", "--json", str(numbers)]
    )
    found = json.loads(numbers.read_text())
    assert [(one["way"], one["seed"], len(one["steps"])) for one in found] == [("scratch", 0, 2), ("scratch", 1, 2)]
    with pytest.raises(UserError, match="run of one moment"):
        probing_in_steps.main(["-c", f"dataset={dataset}"])
