"""Whole runs on few samples, in memory: every method sees as few, and few and many are told apart."""

import numpy as np
import pytest
import torch

from clients.app import app as client_app
from fedcof import Oracle
from fedcof.data.few_samples import held_samples
from fedcof.data.problem import labels_of
from fedcof.data.virtual_clients import client_indices, samples_of_client
from fedcof.heads.classifiers import load_classifier
from fedcof.run.config import RunConfig
from fedcof.run.results import append_result, load_results
from server.federation import Federation
from server.run import execute
from tests.server.in_memory_grid import InMemoryGrid

CLASSES, DIM = 5, 8


@pytest.fixture
def dataset(tmp_path, monkeypatch):
    monkeypatch.setenv("FEDCOF_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "features"
    folder.mkdir()
    generator = np.random.default_rng(0)
    centres = 3 + generator.standard_normal((CLASSES, DIM)) * 2
    for split, count in (("train", 400), ("test", 300)):
        labels = np.arange(count) % CLASSES
        features = centres[labels] + generator.standard_normal((count, DIM))
        np.save(folder / f"{split}_features.npy", features.astype(np.float32))
        np.save(folder / f"{split}_labels.npy", labels)
    return f"features:{folder}"


def run(dataset, tmp_path, **values):
    config = RunConfig(**{"dataset": dataset, "num_clients": 6, "feature_transform": "none", **values})
    clients = config.data.num_clients
    grid = InMemoryGrid(client_app, clients, run_config=config.to_mapping())
    return config, execute(Federation(grid, clients), config, tmp_path, "run")


@pytest.mark.parametrize("method", ["fedncm", "fedcof", "fed3r", "oracle"])
@pytest.mark.parametrize("number", [1, 2, 4])
def test_every_method_makes_a_classifier_of_few_samples(dataset, tmp_path, method, number):
    _, result = run(dataset, tmp_path, method=method, samples_per_class=number)
    assert result.accuracy > 0.5
    found = result.accuracy_by_samples
    assert (found.few.classes, found.few.accuracy) == (CLASSES, pytest.approx(result.accuracy))
    assert not found.tells_apart
    counts = np.load(tmp_path / "run" / "federation.npz")["counts"]
    assert counts.sum(axis=0).tolist() == [number] * CLASSES
    assert not result.clients_rejected
    append_result(tmp_path, result)
    assert load_results(tmp_path) == [result]


@pytest.mark.parametrize("partition", ["inner-dirichlet", "iid", "shard"])
def test_clients_without_a_sample_take_part(dataset, tmp_path, partition):
    _, result = run(dataset, tmp_path, samples_per_class=1, num_clients=9, partition=partition)
    assert (result.clients, result.clients_rejected) == (9, 0)
    assert result.client_accuracy.clients == CLASSES
    assert result.accuracy > 0.5


@pytest.mark.parametrize("method", ["fedncm", "fedcof", "fed3r", "oracle"])
def test_classes_that_nobody_holds_are_never_right(dataset, tmp_path, method):
    _, result = run(dataset, tmp_path, method=method, unheld_classes=0.4)
    found = result.accuracy_by_samples
    assert (found.none.classes, found.few.classes, found.many.classes) == (2, 0, 3)
    assert found.none.accuracy == 0
    assert found.many.accuracy * 0.6 == pytest.approx(result.accuracy)
    classifier = load_classifier(tmp_path / result.head)
    assert classifier.present.sum() == 3
    assert [accuracy == 0 for accuracy in result.class_accuracy] == [not held for held in classifier.present]


def test_the_oracle_and_the_diagnosis_see_what_the_clients_have(dataset, tmp_path):
    narrow = {"samples_per_class": 6, "unheld_classes": 0.2}
    config, ceiling = run(dataset, tmp_path, method="oracle", **narrow)
    kept = held_samples(config)
    assert len(kept) == 24
    place = config.data.dataset.partition(":")[2]
    by_hand = Oracle(CLASSES, DIM, head=config.method.chosen_head)
    by_hand.add_samples(np.load(f"{place}/train_features.npy")[kept], np.load(f"{place}/train_labels.npy")[kept])
    tested = torch.from_numpy(np.load(f"{place}/test_features.npy"))
    expected = by_hand.solve().predict(tested)
    assert torch.equal(load_classifier(tmp_path / ceiling.head).predict(tested), expected)
    _, result = run(dataset, tmp_path, diagnose=True, **narrow)
    assert result.covariance.oracle_accuracy == ceiling.accuracy


def test_what_clients_keep_for_evaluation_is_no_training_sample(dataset, tmp_path):
    config, result = run(dataset, tmp_path, samples_per_class=30, client_test_share=0.5, partition="iid")
    learnt = np.concatenate([samples_of_client(config, client, held_out=False) for client in range(6)])
    labels = labels_of(config, "train")
    # Of the thirty of each class about half, so that there are few and not many.
    assert np.bincount(labels[np.concatenate(client_indices(config))]).tolist() == [30] * CLASSES
    assert np.bincount(labels[learnt]).max() <= 20
    assert result.accuracy_by_samples.few.classes == CLASSES


def test_training_goes_on_from_few_samples(dataset, tmp_path):
    values = {"continue_": "linear-probe", "continue_rounds": 2, "samples_per_class": 1, "num_clients": 9}
    _, result = run(dataset, tmp_path, **values)
    assert [entry.phase for entry in result.rounds] == ["start", "train", "train"]
    assert result.accuracy > 0.4
    assert result.accuracy_by_samples.few.classes == CLASSES
