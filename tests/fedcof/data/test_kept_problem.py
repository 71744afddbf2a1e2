"""Notes of what was looked up: they stand for dataset and backbone, and only while the features are there."""

import shutil

import numpy as np
import pytest

from fedcof.data import kept_problem, problem
from fedcof.data.problem import (
    features_seem_kept,
    kept_problem_of,
    labels_of,
    note_problem,
    problem_notes_dir,
    problem_of,
    split_features,
)
from fedcof.data.virtual_clients import client_indices, client_samples
from fedcof.embedding.feature_table import feature_cache_dir
from fedcof.errors import UserError
from fedcof.run.config import RunConfig
from tests.simulations.conftest import image_folder  # noqa: F401

TINY = {"backbone": "test_efficientnet", "weights": "none", "image_size": 32, "num_clients": 3, "partition": "iid"}


@pytest.fixture
def run(
    image_folder,  # noqa: F811
    tmp_path,
    monkeypatch,
):
    """A run on image files, whose features are in a cache of its own."""
    monkeypatch.setenv("FEDCOF_CACHE", str(tmp_path / "cache"))
    return RunConfig(dataset=f"folder:{image_folder}", **TINY)


def forbid(monkeypatch):
    def refuse(config):
        raise AssertionError("looked up again")

    monkeypatch.setattr(problem, "dataset_of", refuse)
    monkeypatch.setattr(problem, "backbone_of", refuse)


def what_is_seen(config):
    tables = [split_features(config, split) for split in ("train", "test")]
    samples = [client_samples(config, client) for client in range(3)]
    return [
        problem_of(config),
        *(array for table in tables for array in (np.array(table.features), table.labels)),
        *(labels_of(config, split) for split in ("train", "test")),
        *(tensor.numpy() for pair in samples for tensor in pair),
        *client_indices(config),
    ]


def test_with_a_note_the_same_is_seen_without_dataset_and_backbone(run, tmp_path, monkeypatch):
    assert not features_seem_kept(run)
    looked_up = what_is_seen(run)
    note_problem(run, tmp_path / "notes")
    assert kept_problem_of(run) is None
    assert features_seem_kept(run)
    monkeypatch.setenv(kept_problem.FOLDER_VARIABLE, str(tmp_path / "notes"))
    forbid(monkeypatch)
    for before, noted in zip(looked_up, what_is_seen(run), strict=True):
        assert np.array_equal(before, noted) if isinstance(before, np.ndarray) else before == noted
    with pytest.raises(UserError, match="Unknown split 'half'"):
        labels_of(run, "half")


@pytest.mark.parametrize(
    "other", [{"image_size": 48}, {"backbone": "test_resnet"}, {"label_column": "label"}, {"weights": "pretrained"}]
)
def test_a_note_is_of_one_source(run, other, tmp_path, monkeypatch):
    note_problem(run, tmp_path / "notes")
    monkeypatch.setenv(kept_problem.FOLDER_VARIABLE, str(tmp_path / "notes"))
    assert kept_problem_of(run)
    assert kept_problem_of(run.replaced(**other)) is None


def test_what_has_no_kept_features_has_no_note(run, tmp_path):
    note_problem(run.replaced(feature_cache=False), tmp_path / "notes")
    assert not (tmp_path / "notes").exists()
    assert not problem_notes_dir().exists()


@pytest.mark.parametrize("harm", ["cleared", "damaged", "half a note"])
def test_a_note_of_features_that_are_gone_is_not_believed(run, harm, tmp_path, monkeypatch):
    before = split_features(run, "train")
    features = np.array(before.features)
    note_problem(run, tmp_path / "notes")
    monkeypatch.setenv(kept_problem.FOLDER_VARIABLE, str(tmp_path / "notes"))
    assert kept_problem_of(run)
    if harm == "cleared":
        shutil.rmtree(feature_cache_dir())
    elif harm == "damaged":
        for description in feature_cache_dir().glob("*/meta.json"):
            description.write_text("{}")
    else:
        (note,) = (tmp_path / "notes").iterdir()
        note.write_text(note.read_text()[:40])
    assert kept_problem_of(run) is None
    assert np.array_equal(split_features(run, "train").features, features)


def test_a_note_that_comes_later_is_found(run, tmp_path, monkeypatch):
    monkeypatch.setenv(kept_problem.FOLDER_VARIABLE, str(tmp_path / "notes"))
    assert kept_problem_of(run) is None
    note_problem(run, tmp_path / "notes")
    assert kept_problem_of(run)
