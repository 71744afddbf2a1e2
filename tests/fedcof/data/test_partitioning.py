"""Partitions: every sample on exactly one client, the same ones for a seed, and the shape that each promises."""

import math
import re
import subprocess
import sys

import numpy as np
import pytest
from datasets import Dataset
from flwr_datasets.partitioner import IidPartitioner, InnerDirichletPartitioner
from hypothesis import given, settings
from hypothesis import strategies as st

from fedcof import UserError
from fedcof.data.partitioning import PARTITIONS, describe_partition, partition_indices

RANDOM_PARTITIONS = [name for name in PARTITIONS if name != "natural"]


def some_labels(num_samples=240, num_classes=6):
    return np.random.default_rng(0).permutation(np.arange(num_samples) % num_classes)


def dealt(partition, num_clients=8, **options):
    labels = some_labels()
    owners = [f"user{row % 8}" for row in range(len(labels))] if partition == "natural" else None
    return partition_indices(labels, num_clients, partition, natural_ids=owners, **options)


@settings(max_examples=40, deadline=None)
@given(data=st.data(), partition=st.sampled_from(RANDOM_PARTITIONS), seed=st.integers(0, 1000))
def test_every_sample_is_on_exactly_one_client(data, partition, seed):
    num_clients = data.draw(st.integers(1, 12))
    num_classes = data.draw(st.integers(1, 4))
    num_samples = data.draw(st.integers(max(num_clients, num_classes) * 8, 160))
    gap = data.draw(st.integers(1, 3))
    alpha = data.draw(st.sampled_from([0.1, 1.0, 100.0]))
    labels = np.random.default_rng(seed).permutation(np.arange(num_samples) % num_classes) * gap
    classes_per_client = num_classes if num_clients < num_classes else min(2, num_classes)
    if partition == "pathological":
        # A class may be wanted by all clients.
        num_clients = min(num_clients, num_samples // num_classes)
    clients = partition_indices(labels, num_clients, partition, alpha, seed, classes_per_client=classes_per_client)
    assert len(clients) == num_clients
    np.testing.assert_array_equal(np.sort(np.concatenate(clients)), np.arange(num_samples))
    for client in clients:
        assert client.dtype == np.int64
        assert (np.diff(client) > 0).all()
    if partition in ("inner-dirichlet", "iid"):
        sizes = [len(client) for client in clients]
        assert max(sizes) - min(sizes) <= 1


OWNERS = [st.integers(-5, 5), st.sampled_from([-0.5, 0.0, 1e300]), st.booleans(), st.sampled_from("aäb")]


@given(owners=st.one_of([st.lists(owner, min_size=1, max_size=60) for owner in OWNERS]))
def test_natural_puts_each_owner_on_a_client_of_its_own(owners):
    clients = partition_indices(np.zeros(len(owners), dtype=np.int64), 0, "natural", natural_ids=owners)
    assert [[owners[row] for row in client] for client in clients] == [
        [owner] * owners.count(owner) for owner in sorted(set(owners))
    ]
    assert all((np.diff(client) > 0).all() and client.dtype == np.int64 for client in clients)


@pytest.mark.parametrize("partition", PARTITIONS)
def test_the_same_seed_gives_the_same_clients(partition):
    for one, other in zip(dealt(partition, seed=3), dealt(partition, seed=3), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("partition", RANDOM_PARTITIONS)
def test_another_seed_gives_other_clients(partition):
    one, other = dealt(partition, seed=3), dealt(partition, seed=4)
    assert any(a.tolist() != b.tolist() for a, b in zip(one, other, strict=True))


def test_global_random_state_is_neither_used_nor_changed():
    program = (
        "import random; import numpy as np; from fedcof.data.partitioning import *\n"
        # Other libraries' imports may draw numbers; the dealing itself must not.
        "import flwr_datasets.partitioner\n"
        "np.random.seed(99); random.seed(99); before = (str(np.random.get_state()), random.getstate())\n"
        f"for name in {RANDOM_PARTITIONS}:\n"
        "    print([client.tolist() for client in partition_indices(np.arange(240) % 6, 8, name)])\n"
        "print((str(np.random.get_state()), random.getstate()) == before)"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    here = [[c.tolist() for c in partition_indices(np.arange(240) % 6, 8, name)] for name in RANDOM_PARTITIONS]
    assert ended.stdout.splitlines() == [*map(str, here), "True"]
    assert ended.stderr == ""


def test_iid_is_what_the_librarys_partitioner_deals():
    order = np.random.default_rng([5, 0]).permutation(240)
    partitioner = IidPartitioner(7)
    partitioner.dataset = Dataset.from_dict({"index": order})
    for client, indices in enumerate(dealt("iid", num_clients=7, seed=5)):
        assert indices.tolist() == sorted(partitioner.load_partition(client)["index"][:])


def test_clients_are_those_that_the_librarys_partitioner_loads():
    labels = some_labels()
    order = np.random.default_rng([5, 0]).permutation(240)
    partitioner = InnerDirichletPartitioner([30] * 8, "label", 0.1, shuffle=False, seed=5)
    partitioner.dataset = Dataset.from_dict({"index": order, "label": labels[order]})
    for client, indices in enumerate(dealt("inner-dirichlet", seed=5)):
        assert indices.tolist() == sorted(partitioner.load_partition(client)["index"][:])


def test_a_small_alpha_leaves_few_classes_on_a_client():
    for partition in ("inner-dirichlet", "dirichlet"):
        few, many = (
            (describe_partition(dealt(partition, alpha=alpha), some_labels(), 6) > 0).sum()
            for alpha in (0.05, 100.0)
        )
        assert few < many


def test_dirichlet_gives_a_client_without_data_an_empty_array():
    clients = dealt("dirichlet", num_clients=200, alpha=0.05)
    assert len(clients) == 200
    assert min(len(client) for client in clients) == 0
    assert all(client.dtype == np.int64 for client in clients)


def test_pathological_puts_the_number_of_classes_asked_for_on_each_client():
    counts = describe_partition(dealt("pathological", classes_per_client=3), some_labels(), 6)
    assert ((counts > 0).sum(axis=1) == 3).all()


def test_shard_gives_two_blocks_of_the_sorted_labels():
    counts = describe_partition(dealt("shard", num_clients=12), some_labels(), 6)
    assert (counts.sum(axis=1) == 20).all()
    assert ((counts > 0).sum(axis=1) <= 2).all()


def test_the_stored_order_of_the_samples_does_not_reach_the_clients():
    labels = np.repeat([0, 1], 500)
    for partition in RANDOM_PARTITIONS:
        clients = partition_indices(labels, 2, partition, alpha=100.0)
        early = [(client[labels[client] == 0] < 250).mean() for client in clients if (labels[client] == 0).any()]
        assert max(early) - min(early) < 0.2, partition


def test_describe_partition_counts_as_a_loop_does():
    labels = some_labels()
    clients = [*dealt("dirichlet"), np.array([], dtype=np.int64)]
    counts = describe_partition(clients, labels, 7)
    assert counts.dtype == np.int64
    np.testing.assert_array_equal(counts, [np.bincount(labels[client], minlength=7) for client in clients])


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"partition": "even"}, "Unknown partition 'even': choose one of inner-dirichlet, dirichlet, iid"),
        ({"num_clients": 0}, "number of clients is 0, but it must be at least 1"),
        ({"num_clients": 241}, "241 clients but only 240 training samples"),
        ({"alpha": 0.0}, "alpha is 0.0"),
        ({"alpha": float("nan")}, "alpha is nan"),
        ({"alpha": 1e-4}, "class probabilities underflow"),
        ({"seed": -1}, "seed is -1"),
        ({"partition": "natural"}, "set partition-column"),
        ({"partition": "natural", "natural_ids": [1] * 9}, "one number, text or truth value per sample"),
        ({"partition": "natural", "natural_ids": [1.0] * 239 + [math.nan]}, "without missing values"),
        ({"partition": "natural", "natural_ids": [1] * 239 + [None]}, "without missing values"),
        ({"partition": "natural", "natural_ids": list(range(240))}, "240 clients, .* num-clients is 8: set"),
        ({"partition": "natural", "natural_ids": [0, 1] * 120}, "2 clients, .* set num-clients to 2"),
        ({"partition": "pathological", "classes_per_client": 0}, "a number from 1 to 6"),
        ({"partition": "pathological", "classes_per_client": 7}, "a number from 1 to 6"),
        ({"partition": "pathological", "num_clients": 2, "classes_per_client": 2}, "leaves classes on none"),
        ({"partition": "pathological", "num_clients": 3, "classes_per_client": 2}, "drew . of 6 classes"),
        ({"partition": "pathological", "num_clients": 240, "classes_per_client": 5}, "wanted by more clients"),
    ],
)
def test_what_cannot_be_dealt_is_one_sentence(options, sentence):
    with pytest.raises(UserError, match=sentence) as error:
        partition_indices(some_labels(), **{"num_clients": 8, "partition": "inner-dirichlet", **options})
    assert "\n" not in str(error.value)
    assert str(error.value).endswith(".")


ADVICE = re.compile(r"(num-clients|classes-per-client|alpha) to (?:at most )?([\d.e+-]*\d)")


@pytest.mark.parametrize(
    "options",
    [
        {"partition": "pathological", "num_clients": 2},
        {"partition": "pathological", "num_clients": 3},
        {"partition": "pathological", "num_clients": 4, "classes_per_client": 1},
        {"partition": "pathological", "num_clients": 240, "classes_per_client": 5},
        {"partition": "pathological", "num_clients": 100, "classes_per_client": 3, "seed": 3},
        {"partition": "inner-dirichlet", "alpha": 1e-4},
        {"partition": "inner-dirichlet", "alpha": 1e-3, "num_clients": 30},
        {"partition": "inner-dirichlet", "alpha": 1e-100},
        {"partition": "inner-dirichlet", "alpha": 1e308},
        {"partition": "iid", "num_clients": 241},
    ],
)
def test_the_values_that_are_suggested_work(options):
    options = {"num_clients": 8, **options}
    with pytest.raises(UserError) as error:
        partition_indices(some_labels(), **options)
    suggested = ADVICE.findall(str(error.value))
    assert suggested, error.value
    for key, value in suggested:
        number = float(value) if key == "alpha" else int(value)
        clients = partition_indices(some_labels(), **{**options, key.replace("-", "_"): number})
        assert sum(map(len, clients)) == 240


def test_the_nearest_number_of_clients_is_suggested():
    labels = np.repeat(np.arange(6), [40, 40, 40, 40, 40, 5])
    options = {"partition": "pathological", "classes_per_client": 2}
    with pytest.raises(UserError, match="wanted by more clients") as error:
        partition_indices(labels, 30, **options)
    (nearest,) = (int(value) for key, value in ADVICE.findall(str(error.value)) if key == "num-clients")
    assert nearest < 30
    for number in range(nearest + 1, 30):
        with pytest.raises(UserError):
            partition_indices(labels, number, **options)


def test_a_large_dataset_is_not_dealt_again_and_again_for_a_sentence(monkeypatch):
    monkeypatch.setattr("fedcof.data.partition_advice.MOST_SAMPLES_TRIED", 100)
    with pytest.raises(UserError, match="raise alpha, or choose another partition"):
        dealt("inner-dirichlet", alpha=1e-4)
