"""Whole runs in memory, with the real ClientApp: starts, rounds, bytes, and runs that are broken off."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from clients.app import app as client_app
from fedcof import LinearClassifier, UserError
from fedcof.data.problem import split_features
from fedcof.data.virtual_clients import client_indices
from fedcof.embedding.transform import transformed
from fedcof.merging.registry import MERGES
from fedcof.run.config import RunConfig
from fedcof.run.results import START, TRAIN, append_result, load_results
from fedcof.run.training import STRATEGIES
from server.federated_run import FederatedRun
from server.federation import Federation
from server.quality import Predictions
from server.run import execute
from server.run_files import BEST_FOLDER_NAME
from tests.server.breaking_off import BreakOff, BrokenOffError
from tests.server.in_memory_grid import InMemoryGrid

CLIENTS, CLASSES, DIM = 6, 4, 8


@pytest.fixture
def dataset(tmp_path, monkeypatch):
    """Features of four classes that overlap."""
    monkeypatch.setenv("FEDCOF_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "features"
    folder.mkdir()
    generator = np.random.default_rng(0)
    centres = generator.standard_normal((CLASSES, DIM)) * 1.2
    for split, count in (("train", 240), ("test", 400)):
        labels = np.arange(count) % CLASSES
        features = centres[labels] + generator.standard_normal((count, DIM)) * (1 + np.arange(DIM) / 4)
        np.save(folder / f"{split}_features.npy", features.astype(np.float32))
        np.save(folder / f"{split}_labels.npy", labels)
    return f"features:{folder}"


def config_of(dataset, strategy="fedavg", **values):
    settings = {"continue_": "linear-probe", "continue_rounds": 4, "continue_fraction": 0.5, "batch_size": 8}
    settings |= {"num_clients": CLIENTS, "partition": "iid"}
    # Bulyan makes nothing of two.
    own = {
        "fedprox": {"proximal_mu": 0.1},
        "q-fedavg": {"learning_rate": 0.1},
        "bulyan": {"continue_fraction": 1.0},
    }
    settings |= own.get(strategy, {})
    return RunConfig(dataset=dataset, continue_strategy=strategy, **{**settings, **values})


def run(config, folder, break_at=None, seed=0, nodes=CLIENTS, callbacks=()):
    grid = InMemoryGrid(client_app, nodes, run_config=config.to_mapping(), seed=seed)
    federated = FederatedRun(Federation(grid, CLIENTS), config, folder, [BreakOff(break_at), *callbacks])
    return federated, federated.execute()


@pytest.mark.parametrize("method", ["fedncm", "fedcof", "fed3r"])
def test_training_starts_at_the_accuracy_of_the_closed_form(dataset, tmp_path, method):
    probe, last = run(config_of(dataset, method=method), tmp_path / "probe")
    # Training starts from a linear classifier, which of FedCOF is not what it solves where nothing follows.
    linear = {"head": "ridge"} if method == "fedcof" else {}
    alone, closed_form = run(config_of(dataset, method=method, continue_="none", **linear), tmp_path / "alone")
    assert [entry.phase for entry in probe.rounds] == [START] + [TRAIN] * 4
    assert probe.rounds[0].accuracy == alone.rounds[0].accuracy > 0.4
    assert not torch.equal(last.weight, closed_form.weight)
    assert [entry.round for entry in probe.rounds] == [1, 2, 3, 4, 5]
    assert [entry.clients for entry in probe.rounds] == [6, 3, 3, 3, 3]
    assert all(0 < entry.loss < 10 for entry in probe.rounds[1:])


def test_a_random_start_asks_for_no_statistics(dataset, tmp_path):
    random, _ = run(config_of(dataset, method="random", continue_rounds=8), tmp_path)
    assert random.rounds[0] == replace(random.rounds[0], round=0, clients=0, uplink_bytes=0, downlink_bytes=0)
    assert {occasion.message for occasion, _ in random.ledger.entries()} == {"train", "evaluate"}
    assert random.rounds[-1].accuracy > random.rounds[0].accuracy + 0.1


def test_a_round_of_probing_costs_the_head_both_ways(dataset, tmp_path):
    probe, _ = run(config_of(dataset, broadcast=False), tmp_path)
    head = 4 * (CLASSES * DIM + CLASSES)
    training = [traffic for occasion, traffic in probe.ledger.entries() if occasion.message == "train"]
    assert len(training) == 4 * 3
    for traffic in training:
        # What Flower adds, with the run-config on the way down.
        assert head < traffic.uplink < head + 1600
        assert head < traffic.downlink < head + 3500
    statistics = sum(t.uplink for o, t in probe.ledger.entries() if o.message == "query.statistics")
    assert probe.ledger.uplink_bytes == statistics + sum(traffic.uplink for traffic in training)
    assert (
        probe.expected_uplink_bytes - 12 * head
        == run(config_of(dataset, continue_="none"), tmp_path / "alone")[0].expected_uplink_bytes
    )


def test_the_last_and_the_best_are_kept(dataset, tmp_path):
    config = config_of(dataset, learning_rate=2.0, gradient_clip=0.0, continue_rounds=6)
    grid = InMemoryGrid(client_app, CLIENTS, run_config=config.to_mapping())
    result = execute(Federation(grid, CLIENTS), config, tmp_path, "run")
    accuracies = [entry.accuracy for entry in result.rounds[1:]]
    assert result.accuracy == accuracies[-1]
    assert result.best_accuracy == max(accuracies)
    assert result.rounds[result.best_round - 1].accuracy == max(accuracies)
    labels = torch.from_numpy(np.load(dataset.partition(":")[2] + "/test_labels.npy"))
    features = split_features(config, "test").features[:]
    features = transformed(torch.tensor(features), config.embedding.feature_transform)
    for folder, accuracy in (("run", result.accuracy), (f"run/{BEST_FOLDER_NAME}", result.best_accuracy)):
        head = LinearClassifier.load(tmp_path / folder / "head.safetensors")
        assert float((head.predict(features) == labels).double().mean()) == accuracy


def test_clients_evaluate_on_what_they_hold_out(dataset, tmp_path):
    probe, _ = run(config_of(dataset, client_test_share=0.25), tmp_path)
    for entry in probe.rounds[1:]:
        assert 0 <= entry.worst_tenth_accuracy <= entry.client_accuracy <= 1
    asked = [occasion for occasion, _ in probe.ledger.entries() if occasion.message == "evaluate"]
    assert len(asked) == 4 * CLIENTS


def test_a_client_without_samples_keeps_no_round_from_its_quorum(dataset, tmp_path):
    """A Dirichlet of few classes leaves most clients without any."""
    dealt = {"partition": "dirichlet", "alpha": 0.01}
    config = config_of(dataset, method="fedncm", quorum=1.0, continue_fraction=1.0, **dealt)
    sizes = [len(indices) for indices in client_indices(config)]
    assert 0 < sizes.count(0) < CLIENTS
    probe, _ = run(config, tmp_path)
    assert [entry.clients for entry in probe.rounds[1:]] == [CLIENTS - sizes.count(0)] * 4


MERGED = [("fedavg", merge) for merge in MERGES.names() if merge not in ("mean", "core-space")]


@pytest.mark.parametrize("method", ["fedcof", "random"])
@pytest.mark.parametrize(("strategy", "merge"), [*((name, "mean") for name in STRATEGIES), *MERGED])
def test_broken_off_and_gone_on_with_it_ends_the_same(dataset, tmp_path, strategy, merge, method):
    config = config_of(dataset, strategy, method=method, client_test_share=0.2, dropout=0.1, quorum=0.1)
    config = config.replaced(continue_merge=merge)
    whole, expected = run(config, tmp_path / "whole")
    collecting = 0 if method == "random" else CLIENTS
    # In the middle of the third round, then in the first round after that.
    for break_at in (collecting + 8, 2):
        with pytest.raises(BrokenOffError):
            run(config, tmp_path / "broken", break_at, seed=break_at, nodes=3)
    resumed, classifier = run(config, tmp_path / "broken", seed=5)
    assert torch.equal(classifier.weight, expected.weight)
    assert torch.equal(classifier.bias, expected.bias)
    assert resumed.rounds == whole.rounds
    assert resumed.ledger.to_rows() == whole.ledger.to_rows()
    assert (resumed.rejected, resumed.clients) == (whole.rejected, whole.clients)
    assert resumed.backbone_scores == whole.backbone_scores
    assert resumed.expected_uplink_bytes == whole.expected_uplink_bytes
    heads = [
        LinearClassifier.load(tmp_path / name / BEST_FOLDER_NAME / "head.safetensors")
        for name in ("whole", "broken")
    ]
    assert torch.equal(heads[0].weight, heads[1].weight)
    assert torch.equal(heads[0].bias, heads[1].bias)


@pytest.mark.parametrize("method", ["fedcof", "fed3r", "oracle", "fedncm"])
def test_the_result_says_what_the_statistics_say_of_the_features(dataset, tmp_path, method):
    """Fed3R and the oracle know all samples' products, so they agree; FedCOF knows them from class means."""
    transform = {"feature_transform": "none", "encoding": "float32", "upload": "given"}
    config = config_of(dataset, continue_="none", method=method, **transform)
    grid = InMemoryGrid(client_app, CLIENTS, run_config=config.to_mapping())
    append_result(tmp_path, execute(Federation(grid, CLIENTS), config, tmp_path, "run"))
    (result,) = load_results(tmp_path)
    features, labels = (np.load(f"{dataset.partition(':')[2]}/train_{name}.npy") for name in ("features", "labels"))
    kernel = features.astype(float) @ features.T.astype(float)
    same = np.where(labels[:, None] == labels[None, :], 1.0, -1.0)
    expected = np.corrcoef(kernel.ravel(), same.ravel())[0, 1]
    if method == "fedncm":
        assert result.label_correlation is None
    else:
        assert result.label_correlation == pytest.approx(expected, rel=0.2 if method == "fedcof" else 1e-6)
    assert (result.leave_one_out_likelihood is None) == (method in ("fed3r", "fedncm"))


def test_a_run_whose_rounds_are_done_needs_no_client(dataset, tmp_path):
    config = config_of(dataset)
    _, expected = run(config, tmp_path)
    again, classifier = run(config, tmp_path, break_at=1)
    assert torch.equal(classifier.weight, expected.weight)
    assert len(again.rounds) == 5


def test_a_checkpoint_of_another_configuration_is_refused(dataset, tmp_path):
    run(config_of(dataset), tmp_path)
    with pytest.raises(UserError, match="its local-epochs is 1, and not 2"):
        run(config_of(dataset, local_epochs=2), tmp_path)


@pytest.mark.parametrize(
    "values",
    [{}, {"upload": "paper"}, {"encoding": "coded", "groups": 3}, {"epsilon": 50.0, "clip_norm": 6.0}],
)
def test_a_run_puts_its_covariance_beside_the_oracles(dataset, tmp_path, values):
    config = config_of(dataset, continue_="none", continue_rounds=20, diagnose=True, **values)
    grid = InMemoryGrid(client_app, CLIENTS, run_config=config.to_mapping())
    result = execute(Federation(grid, CLIENTS), config, tmp_path, "run")
    oracle = RunConfig(dataset=dataset, method="oracle")
    ceiling = execute(Federation(grid, CLIENTS), oracle, tmp_path, "oracle")
    assert result.covariance.oracle_accuracy == ceiling.accuracy
    rows = result.covariance.rows_per_class
    # The best upload has as many rows as its bytes hold.
    assert rows == CLIENTS * values.get("groups", 1) if values else rows > CLIENTS
    assert 0 < result.covariance.relative_error < 2
    append_result(tmp_path, result)
    assert load_results(tmp_path) == [result]


def test_a_run_that_was_not_asked_has_no_diagnostic(dataset, tmp_path):
    config = config_of(dataset, continue_="none", continue_rounds=20)
    grid = InMemoryGrid(client_app, CLIENTS, run_config=config.to_mapping())
    assert execute(Federation(grid, CLIENTS), config, tmp_path, "run").covariance is None


@pytest.mark.parametrize("continuation", ["none", "linear-probe"])
def test_an_accuracy_that_nobody_knows_is_null_and_no_round_the_best(dataset, tmp_path, monkeypatch, continuation):
    monkeypatch.setattr(FederatedRun, "_accuracy", lambda *_: None)
    nothing = torch.zeros(0, dtype=torch.int64)
    monkeypatch.setattr(
        "server.run.predictions_of", lambda *_: Predictions(nothing, nothing, torch.zeros(0), CLASSES)
    )
    monkeypatch.setattr("server.run.accuracy_of_clients", lambda *_: None)
    monkeypatch.setattr("server.run._write_files", lambda *_: None)
    config = config_of(dataset, continue_=continuation)
    grid = InMemoryGrid(client_app, CLIENTS, run_config=config.to_mapping())
    result = execute(Federation(grid, CLIENTS), config, tmp_path, "run")
    assert result.accuracy is result.best_accuracy is result.best_round is None
    assert {entry.accuracy for entry in result.rounds} == {None}
    assert not (tmp_path / "run" / BEST_FOLDER_NAME).exists()
    append_result(tmp_path, result)
    assert "NaN" not in (tmp_path / "results.json").read_text()
    assert load_results(tmp_path) == [result]


def test_of_rounds_that_are_partly_unknown_the_best_known_is_kept(dataset, tmp_path, monkeypatch):
    accuracies = iter([0.9, 0.9, None, 0.3, None, 0.2])
    monkeypatch.setattr(FederatedRun, "_accuracy", lambda *_: next(accuracies))
    probe, _ = run(config_of(dataset), tmp_path)
    assert [entry.accuracy for entry in probe.rounds] == [0.9, None, 0.3, None, 0.2]
    assert (probe.best.round, probe.best.accuracy) == (3, 0.3)
    assert (tmp_path / BEST_FOLDER_NAME / "head.safetensors").exists()
