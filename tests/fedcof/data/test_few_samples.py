"""Few samples of a class, and classes that nobody holds: what is drawn, and how it is dealt."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedcof import UserError
from fedcof.data.few_samples import draw_samples, held_samples
from fedcof.data.problem import labels_of
from fedcof.data.section import DataSection
from fedcof.data.virtual_clients import client_indices, client_samples
from fedcof.embedding.transform import transformed
from fedcof.run.config import RunConfig

SIZES = [7, 1, 0, 12, 3, 30]
DEALT = ["inner-dirichlet", "dirichlet", "iid", "pathological", "shard"]


def some_labels():
    return np.random.default_rng(4).permutation(np.repeat(np.arange(len(SIZES)), SIZES))


@pytest.fixture
def features_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("FEDCOF_CACHE", str(tmp_path / "cache"))
    generator = np.random.default_rng(0)
    for split, count in (("train", 120), ("test", 24)):
        np.save(tmp_path / f"{split}_features.npy", generator.standard_normal((count, 4), dtype=np.float32))
        np.save(tmp_path / f"{split}_labels.npy", np.arange(count) % 6)
    np.save(tmp_path / "train_owners.npy", generator.permutation(120) % 7)
    return tmp_path


def run(folder, **values):
    return RunConfig(dataset=f"features:{folder}", **values)


@given(st.integers(1, 40), st.integers(0, 5))
def test_each_class_has_so_many_samples_or_all_that_it_has(number, seed):
    labels = some_labels()
    drawn = draw_samples(labels, DataSection(samples_per_class=number, seed=seed))
    assert np.array_equal(drawn, np.unique(drawn))
    assert np.bincount(labels[drawn], minlength=6).tolist() == [min(size, number) for size in SIZES]


@pytest.mark.parametrize(("share", "unheld"), [(0.01, 1), (0.1, 1), (0.4, 2), (0.6, 3), (0.99, 4)])
def test_a_share_of_the_classes_is_held_by_nobody(share, unheld):
    labels = some_labels()
    drawn = draw_samples(labels, DataSection(unheld_classes=share))
    counts = np.bincount(labels[drawn], minlength=6)
    # Of the six classes one has no sample from the start.
    assert (counts == 0).sum() == unheld + 1
    assert all(count in (0, size) for count, size in zip(counts, SIZES, strict=True))


def test_one_class_alone_is_held():
    assert draw_samples(np.zeros(5, np.int64), DataSection(unheld_classes=0.9)).tolist() == [0, 1, 2, 3, 4]


@given(st.integers(0, 9))
def test_fewer_are_a_part_of_more(seed):
    labels = some_labels()
    numbers = [draw_samples(labels, DataSection(samples_per_class=k, seed=seed)) for k in (1, 2, 4, 0)]
    numbers[-1] = np.arange(len(labels))
    shares = [draw_samples(labels, DataSection(unheld_classes=u, seed=seed)) for u in (0.8, 0.4, 0.1)]
    both = draw_samples(labels, DataSection(samples_per_class=2, unheld_classes=0.4, seed=seed))
    for smaller, larger in [*pairwise(numbers), *pairwise(shares)]:
        assert set(smaller) < set(larger)
    assert set(both) == set(numbers[1]) & set(shares[1])


def test_other_seeds_draw_others():
    labels = np.arange(400) % 20
    for values in ({"samples_per_class": 2}, {"unheld_classes": 0.3}):
        draws = {tuple(draw_samples(labels, DataSection(seed=seed, **values))) for seed in range(4)}
        assert len(draws) == 4


@pytest.mark.parametrize("partition", DEALT)
@pytest.mark.parametrize("values", [{"samples_per_class": 8}, {"unheld_classes": 0.4}])
def test_clients_hold_what_is_drawn_and_no_more(features_folder, partition, values):
    config = run(features_folder, partition=partition, num_clients=6, **values)
    dealt = client_indices(config)
    assert np.array_equal(np.sort(np.concatenate(dealt)), held_samples(config))
    labels, features = labels_of(config, "train"), np.load(features_folder / "train_features.npy")
    for client, samples in enumerate(dealt):
        found, classes = client_samples(config, client)
        assert (np.diff(samples) > 0).all()
        assert np.array_equal(classes, labels[samples])
        assert torch.equal(found, transformed(torch.from_numpy(features[samples]), "power"))


def test_the_partition_of_few_samples_is_kept_apart(features_folder):
    numbers = [0, 4, 8, 4, 0]
    dealt = [client_indices(run(features_folder, num_clients=6, samples_per_class=number)) for number in numbers]
    assert [sum(map(len, parts)) for parts in dealt] == [120, 24, 48, 24, 120]


@pytest.mark.parametrize("partition", ["inner-dirichlet", "dirichlet", "iid", "shard"])
@pytest.mark.parametrize("number", [1, 2])
def test_more_clients_than_samples_leave_clients_without_any(features_folder, partition, number):
    config = run(features_folder, partition=partition, num_clients=50, samples_per_class=number)
    sizes = [len(samples) for samples in client_indices(config)]
    assert (len(sizes), sum(sizes)) == (50, 6 * number)
    if partition != "dirichlet":
        assert max(sizes) == 1
    assert sorted(np.concatenate(client_indices(config))) == held_samples(config).tolist()
    empty = sizes.index(0)
    assert client_samples(config, empty)[0].shape == (0, 4)


def test_a_full_split_is_not_dealt_to_more_clients_than_it_has_samples(features_folder):
    # Also not where few samples of as large a split have been dealt before.
    assert len(client_indices(run(features_folder, num_clients=121, samples_per_class=20))) == 121
    with pytest.raises(UserError, match="121 clients but only 120 training samples"):
        client_indices(run(features_folder, num_clients=121))


def test_classes_on_each_client_cannot_be_promised(features_folder):
    config = run(features_folder, partition="pathological", num_clients=50, samples_per_class=1)
    with pytest.raises(UserError, match="50 clients but only 6 training samples"):
        client_indices(config)


def test_owners_who_lose_all_samples_are_clients_still(features_folder):
    owners = np.load(features_folder / "train_owners.npy")
    config = run(features_folder, partition="natural", num_clients=7, samples_per_class=1)
    dealt = client_indices(config)
    assert sorted(np.concatenate(dealt)) == held_samples(config).tolist()
    assert [len(samples) for samples in dealt] == np.bincount(owners[held_samples(config)], minlength=7).tolist()
    assert 0 in map(len, dealt)


def test_nodes_have_what_they_have():
    config = RunConfig(dataset="nodes", classes="a,b", samples_per_class=2, unheld_classes=0.5)
    assert held_samples(config) is None
    assert not {"samples-per-class", "unheld-classes"} & set(config.with_effect())
