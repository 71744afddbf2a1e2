"""The benchmarks: the federation that is drawn, how messages are counted, and that each measures what it says."""

import os

import numpy as np
import psutil
import pytest

from fedcof.data.precomputed import load_features
from fedcof.errors import UserError
from server.federation import CLIENTS_PER_MESSAGE
from simulations.benchmarks import embedding, nodes, rounds
from simulations.benchmarks.federations import (
    chosen_clients,
    class_probabilities,
    client_sizes,
    write_federation,
)


def test_drawn_sizes_have_the_shape_of_the_real_ones(monkeypatch):
    monkeypatch.delenv("FEDCOF_INAT_SIZES", raising=False)
    sizes = client_sizes()
    assert len(sizes) == 9275
    assert sizes.sum() == 120_293
    assert np.median(sizes) == 2
    assert sizes.min() >= 1
    assert np.array_equal(sizes, client_sizes())


def test_sizes_come_from_a_file(tmp_path, monkeypatch):
    path = tmp_path / "sizes.csv"
    path.write_text("num_images\n18\n2\n1\n")
    assert client_sizes(path).tolist() == [18, 2, 1]
    monkeypatch.setenv("FEDCOF_INAT_SIZES", str(path))
    assert client_sizes().tolist() == [18, 2, 1]
    path.write_text("num_images\n18\nmany\n")
    with pytest.raises(UserError, match="cannot be read"):
        client_sizes()
    with pytest.raises(UserError, match="cannot be read"):
        client_sizes(tmp_path / "missing.csv")


@pytest.mark.parametrize("num_clients", [10, 100, 1000])
def test_a_smaller_federation_has_clients_as_large(num_clients):
    sizes = client_sizes()
    chosen = chosen_clients(sizes, num_clients)
    assert len(chosen) == num_clients
    assert chosen.mean() == pytest.approx(sizes.mean(), rel=0.02)
    assert chosen.min() >= 1
    with pytest.raises(UserError, match="ask for fewer"):
        chosen_clients(sizes, len(sizes) + 1)


def test_all_clients_are_the_federation_itself():
    sizes = client_sizes()
    assert np.array_equal(np.sort(chosen_clients(sizes, len(sizes))), np.sort(sizes))


def test_clients_hold_as_many_classes_as_asked(tmp_path):
    sizes = chosen_clients(client_sizes(), 300)
    federation = write_federation(tmp_path, sizes, feature_dim=3)
    assert federation.num_rows / federation.num_samples == pytest.approx(82_822 / 120_293, rel=0.05)
    features = load_features(tmp_path)
    assert np.array_equal(np.bincount(features.owners), sizes)
    pairs = {(owner, label) for owner, label in zip(features.owners, features.train.labels, strict=True)}
    assert len(pairs) == federation.num_rows
    assert features.num_classes == 1203
    probabilities = class_probabilities(sizes)
    assert probabilities.sum() == pytest.approx(1)
    assert (np.diff(probabilities) < 0).all()


def test_messages_are_counted_as_the_federation_sends_them():
    assert rounds.num_messages(100, 100) == 100
    assert rounds.num_messages(CLIENTS_PER_MESSAGE + 1, 1) == 2
    assert rounds.num_messages(9275, 100) == 300


def test_peak_memory_is_watched_only_meanwhile(monkeypatch):
    with rounds.peak_memory() as memory:
        assert "FEDCOF_BENCHMARK" in os.environ
    assert "FEDCOF_BENCHMARK" not in os.environ
    assert memory == rounds.PeakMemory()


def test_memory_of_many_processes_is_the_most_at_one_time():
    load, this = nodes.Load(), psutil.Process()
    load.look([this])
    once = load.memory
    assert 0 < once <= this.memory_info().rss + 2**24
    load.look([this, this])
    load.look([])
    assert load.memory > 1.5 * once
    assert load.processes == 2
    assert load.cpu == pytest.approx(sum(this.cpu_times()[:2]), abs=1)
    assert nodes.table_of([nodes.Deployment(3, 3, 20.0, load.cpu, load.memory, 2, None)]).row_count == 1


def test_embedding_compares_equal_features():
    figures = embedding.measure(image_size=32, num_images=6, batch_size=4, repeats=1)
    assert figures["difference"] < embedding.LARGEST_DIFFERENCE
    assert figures["ratio"] == pytest.approx(figures["fedcof"] / figures["timm"])


@pytest.mark.flower
def test_a_round_is_measured_both_ways(tmp_path, monkeypatch):
    monkeypatch.setenv("FEDCOF_CACHE", str(tmp_path / "cache"))
    comparison = rounds.compare(3, None, tmp_path / "run")
    assert (comparison.clients, comparison.nodes, comparison.messages) == (3, 3, 3)
    assert comparison.ratios["round"] == comparison.fedcof.round_seconds / comparison.idle.round_seconds
    assert comparison.fedcof.memory.driver > comparison.idle.memory.driver > 0
    assert comparison.rows * 1280 / 2 < comparison.uplink_bytes
    assert rounds.table_of([comparison]).row_count == 1
