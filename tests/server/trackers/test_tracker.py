"""What trackers are handed: plain numbers, and settings without anybody's name or path."""

import pytest

from fedcof.run.config import RunConfig
from server.callbacks import Tolerated
from server.trackers.registry import TRACKERS, trackers_of
from server.trackers.tracker import numbers_of, settings_of
from tests.server.trackers.recorded import CONFIG, PRIVATE, RESULT, ROUNDS


def test_of_a_round_all_that_is_known_is_a_number():
    assert numbers_of(ROUNDS[0]) == {"clients": 2, "accuracy": 0.5, "uplink_bytes": 100, "downlink_bytes": 200}
    assert numbers_of(ROUNDS[1]) == {
        "clients": 2,
        "accuracy": 0.625,
        "uplink_bytes": 300,
        "downlink_bytes": 400,
        "loss": 0.75,
        "client_accuracy": 0.5,
        "worst_tenth_accuracy": 0.25,
    }
    assert "accuracy" not in numbers_of(ROUNDS[2])


def test_of_a_run_too_with_its_joules():
    numbers = numbers_of(RESULT)
    assert numbers.items() >= {"accuracy": 0.875, "uplink_bytes": 700, "seconds": 1.5, "joules": 7.0}.items()
    assert numbers.keys().isdisjoint({"seed", "format", "nodes", "rejected", "client_joules"})
    assert all(type(value) is float for value in numbers.values())


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ({"dataset": "parquet:/srv/anna/cifar100"}, {"dataset": "parquet:cifar100"}),
        ({"dataset": "digits", "output": "/srv/anna", "ray_address": "anna:6379"}, {"dataset": "digits"}),
        ({"dataset": "digits", "weights": "/srv/anna/own.safetensors"}, {"weights": "own.safetensors"}),
    ],
)
def test_settings_are_those_that_a_result_depends_on_without_paths(values, shown):
    settings = settings_of(RunConfig(**values))
    assert settings.items() >= shown.items()
    assert not any(word in str(settings) for word in PRIVATE)
    assert settings.keys().isdisjoint({"output", "plan", "ray-address", "trackers"})


def test_of_nodes_too():
    settings = settings_of(CONFIG)
    assert settings["test-data"] == "test"
    assert not any(word in str(settings) for word in PRIVATE)


def test_each_run_has_trackers_of_its_own():
    config = RunConfig(trackers="tensorboard,wandb,mlflow")
    first, second = trackers_of(config), trackers_of(config)
    assert len(first) == len(second) == 3
    assert all(isinstance(tracker, Tolerated) for tracker in first)
    assert not set(map(id, first)) & set(map(id, second))
    assert [TRACKERS.get(name).name for name in config.execution.tracker_names] == [
        "tensorboard",
        "wandb",
        "mlflow",
    ]
    assert trackers_of(RunConfig(trackers="none")) == []
