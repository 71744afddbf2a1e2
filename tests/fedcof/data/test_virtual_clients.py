"""Virtual clients on features from elsewhere: who holds what, and what a run needs to know of the problem."""

import datetime
from decimal import Decimal

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import torch

from fedcof import UserError
from fedcof.data.problem import backbone_of, images_to_embed, labels_of, problem_of, split_features
from fedcof.data.virtual_clients import client_indices, client_samples
from fedcof.embedding.transform import transformed
from fedcof.run.config import RunConfig
from tests.fedcof.images import png


@pytest.fixture
def features_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("FEDCOF_CACHE", str(tmp_path / "cache"))
    generator = np.random.default_rng(0)
    for split, count in (("train", 60), ("test", 9)):
        np.save(tmp_path / f"{split}_features.npy", generator.standard_normal((count, 4), dtype=np.float32))
        np.save(tmp_path / f"{split}_labels.npy", np.arange(count) % 3)
    np.save(tmp_path / "train_owners.npy", generator.permutation(60) % 7)
    return tmp_path


@pytest.mark.parametrize("feature_cache", [True, False])
@pytest.mark.parametrize(
    ("partition", "num_clients", "transform"),
    [("natural", 7, "power"), ("iid", 5, "none"), ("inner-dirichlet", 5, "l2")],
)
def test_clients_hold_every_sample_once(features_folder, partition, num_clients, transform, feature_cache):
    config = RunConfig(
        dataset=f"features:{features_folder}",
        partition=partition,
        num_clients=num_clients,
        feature_cache=feature_cache,
        feature_transform=transform,
    )
    held = client_indices(config)
    assert np.array_equal(np.sort(np.concatenate(held)), np.arange(60))
    features, labels = (np.load(features_folder / f"train_{kind}.npy") for kind in ("features", "labels"))
    for client, indices in enumerate(held):
        samples, classes = client_samples(config, client)
        assert torch.equal(samples, transformed(torch.from_numpy(features[indices]), transform))
        assert torch.equal(classes, torch.from_numpy(labels[indices]))


def test_the_natural_partition_is_by_owner(features_folder):
    config = RunConfig(dataset=f"features:{features_folder}", partition="natural", num_clients=7)
    owners = np.load(features_folder / "train_owners.npy")
    assert [set(owners[indices]) for indices in client_indices(config)] == [{owner} for owner in range(7)]


def test_without_owners_there_is_no_natural_partition(features_folder):
    (features_folder / "train_owners.npy").unlink()
    with pytest.raises(UserError, match="has no train_owners.npy"):
        client_indices(RunConfig(dataset=f"features:{features_folder}", partition="natural", num_clients=7))


def test_the_problem_needs_no_backbone(features_folder):
    config = RunConfig(dataset=f"features:{features_folder}", backbone="there is none")
    problem = problem_of(config)
    assert (problem.num_classes, problem.feature_dim, problem.class_names) == (3, 4, ("0", "1", "2"))
    assert np.array_equal(labels_of(config, "test"), np.arange(9) % 3)
    assert split_features(config, "test").features.shape == (9, 4)
    assert images_to_embed(config, "train") == images_to_embed(config, "test") == 0
    with pytest.raises(UserError, match="not from a backbone"):
        backbone_of(config)


def test_images_have_a_problem_too():
    config = RunConfig(feature_cache=False)
    problem = problem_of(config)
    assert (problem.num_classes, problem.feature_dim) == (10, 1280)
    assert len(labels_of(config, "test")) == images_to_embed(config, "test")
    assert images_to_embed(config, "train") == 0


OWNERS = [
    (pa.array([0.5, 2.0, 0.5, -1.0]), [[3], [0, 2], [1]]),
    (pa.array([True, False, True, True]), [[1], [0, 2, 3]]),
    (pa.array(["b", "a\0", "a", "b"]), [[2], [1], [0, 3]]),
    (pa.array(["b", "a", "", "b"], pa.large_string()), [[2], [1], [0, 3]]),
    (pa.array(["b", "a", "b", "b"]).dictionary_encode(), [[1], [0, 2, 3]]),
    (pa.array([2**63 + 1, 2**63, 0, 0], pa.uint64()), [[2, 3], [1], [0]]),
    (pa.array([datetime.date(2024, 1, day) for day in (2, 1, 2, 2)]), [[1], [0, 2, 3]]),
    (pa.array([Decimal("1.5"), Decimal("1.25"), Decimal("1.5"), Decimal(0)]), [[3], [1], [0, 2]]),
]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "hugging-face"))


def write_owners(folder, owners):
    image = {"bytes": png(np.zeros((2, 2), np.uint8)), "path": None}
    for split in ("train", "test"):
        table = pa.table({"image": [image] * len(owners), "label": [0, 1] * (len(owners) // 2), "owner": owners})
        pa.parquet.write_table(table, folder / f"{split}.parquet")
    return {"dataset": f"parquet:{folder}", "partition": "natural", "partition_column": "owner"}


@pytest.mark.parametrize(("owners", "expected"), OWNERS)
def test_a_column_of_any_type_names_owners(tmp_path, owners, expected):
    config = RunConfig(**write_owners(tmp_path, owners), num_clients=len(expected), feature_cache=False)
    assert [list(indices) for indices in client_indices(config)] == expected


@pytest.mark.parametrize(
    ("owners", "sentence"),
    [
        (pa.array([1.0, None, np.nan, 2.0]), "names none in 2 rows, first in row 2"),
        (pa.array(["a", "b", "c", None]), "names none in 1 rows, first in row 4"),
        (pa.array([[1], [1], [2], [2]]), "owner .* holds list"),
    ],
)
def test_a_column_that_names_no_owners(tmp_path, owners, sentence):
    config = RunConfig(**write_owners(tmp_path, owners), num_clients=2, feature_cache=False)
    with pytest.raises(UserError, match=sentence):
        client_indices(config)
