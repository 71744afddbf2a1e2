"""Linear probing at its default step: no start is hurt, whatever the features' scale."""

import numpy as np
import pytest
import torch
from flwr.app import ConfigRecord

from clients.app import app as client_app
from clients.app import training_of_client
from fedcof.data.problem import split_features
from fedcof.data.virtual_clients import client_indices
from fedcof.embedding.transform import transformed
from fedcof.heads.step_size import gradient_step
from fedcof.run.config import RunConfig
from fedcof.run.training import ADAMW, FEDADAM, FEDAVG, FEDAVGM, SGD
from server.federated_run import FederatedRun
from server.federation import Federation
from server.step_size import with_step_of_head
from tests.server.in_memory_grid import InMemoryGrid

CLIENTS, CLASSES, DIM = 8, 6, 16


@pytest.fixture
def scale():
    return 4.0


@pytest.fixture
def dataset(scale, tmp_path, monkeypatch):
    """Features of overlapping classes around a mean far from zero; as long as a backbone's at a scale of 4."""
    monkeypatch.setenv("FEDCOF_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "features"
    folder.mkdir()
    generator = np.random.default_rng(0)
    centres = generator.standard_normal((CLASSES, DIM)) * 0.8 + 2
    for split, count in (("train", 480), ("test", 1200)):
        labels = np.arange(count) % CLASSES
        features = centres[labels] + generator.standard_normal((count, DIM)) * (1 + np.arange(DIM) / 8)
        np.save(folder / f"{split}_features.npy", (features * scale).astype(np.float32))
        np.save(folder / f"{split}_labels.npy", labels)
    return f"features:{folder}"


def config_of(dataset, method, **values):
    settings = {"continue_": "linear-probe", "continue_rounds": 5, "batch_size": 16, "alpha": 0.3}
    return RunConfig(dataset=dataset, method=method, num_clients=CLIENTS, **{**settings, **values})


def run(config, folder, app=client_app):
    grid = InMemoryGrid(app, CLIENTS, run_config=config.to_mapping())
    probe = FederatedRun(Federation(grid, CLIENTS), config, folder)
    probe.execute()
    return probe


def course(probe):
    """Accuracy before training and after each round; a random head has no round of uploads, but a round 0."""
    return [entry.accuracy for entry in probe.rounds]


@pytest.mark.parametrize("scale", [0.02, 4.0])
@pytest.mark.parametrize("method", ["random", "fedncm", "fedcof", "fed3r"])
def test_five_default_rounds_end_no_lower_than_they_start(dataset, method, tmp_path):
    accuracies = course(run(config_of(dataset, method), tmp_path / "run"))
    assert len(accuracies) == 6
    assert accuracies[-1] >= accuracies[0]
    # No round on the way hurts by more than a handful of the test samples.
    assert min(accuracies) >= accuracies[0] - 0.01


def test_a_step_that_does_not_fit_the_features_hurts(dataset, tmp_path):
    accuracies = course(run(config_of(dataset, "fedcof", learning_rate=0.5), tmp_path / "run"))
    assert min(accuracies) < accuracies[0] - 0.01


def steps_asked_for(config, folder, monkeypatch):
    asked = []

    def training(client, content, context):
        asked.append(float(content.config_records["config"]["learning-rate"]))
        return training_of_client(client, content, context)

    monkeypatch.setattr("clients.app.training_of_client", training)
    run(config, folder)
    return set(asked)


def true_step(config):
    """The step of all features as clients have them."""
    raw = torch.tensor(split_features(config, "train").features[:]).double()
    features = transformed(raw, config.embedding.feature_transform)
    return gradient_step(float(features.square().sum(dim=1).mean()), CLASSES)


@pytest.mark.parametrize("method", ["fedncm", "fedcof", "fed3r"])
def test_clients_are_told_the_step_that_follows_from_the_uploads(dataset, method, tmp_path, monkeypatch):
    config = config_of(dataset, method, continue_rounds=2)
    (step,) = steps_asked_for(config, tmp_path / "run", monkeypatch)
    assert sum(map(len, client_indices(config))) == len(split_features(config, "train").labels)
    true = true_step(config)
    # Moments tell it exactly, and means that scatter nearly.
    assert step == pytest.approx(true, rel=1e-5 if method == "fed3r" else 0.15)
    said = config_of(dataset, method, continue_rounds=1, learning_rate=0.001)
    assert steps_asked_for(said, tmp_path / "said", monkeypatch) == {0.001}


def test_without_uploads_clients_go_by_their_own_features(dataset, tmp_path, monkeypatch):
    config = config_of(dataset, "random", continue_rounds=1)
    used = []

    def of(section, batch_size, training_round, learning_rate):
        used.append(learning_rate)
        return original(section, batch_size, training_round, learning_rate)

    from clients.training import LocalTraining

    original = LocalTraining.of
    monkeypatch.setattr("clients.training.LocalTraining.of", of)
    assert steps_asked_for(config, tmp_path / "run", monkeypatch) == {0.0}
    assert len(used) == CLIENTS
    assert used == pytest.approx([true_step(config)] * CLIENTS, rel=0.3)


def test_who_tells_clients_nothing_of_the_step_goes_on_doing_so():
    assert with_step_of_head(None, 9.0, 4, 5) is None
    mine = ConfigRecord({"lr": 0.1})
    assert with_step_of_head(mine, 9.0, 4, 5) is mine
    told = ConfigRecord({"learning-rate": 0.0, "optimizer": SGD, "lr": 0.1})
    stepping = with_step_of_head(told, 9.0, 4, 5)
    assert {**stepping} == {**told, "learning-rate": pytest.approx(0.32)}
    small = with_step_of_head(ConfigRecord({**told, "optimizer": ADAMW}), 9.0, 4, 5)
    assert 0 < small["learning-rate"] < 0.1
    assert with_step_of_head(told, 0.0, 4, 5) is told


@pytest.mark.parametrize(("strategy", "optimizer"), [(FEDAVG, ADAMW), (FEDAVGM, SGD), (FEDADAM, SGD)])
def test_no_way_of_stepping_hurts(strategy, optimizer, dataset, tmp_path):
    config = config_of(dataset, "fedcof", continue_strategy=strategy, optimizer=optimizer)
    accuracies = course(run(config, tmp_path / "run"))
    assert accuracies[-1] >= accuracies[0] - 0.01
