"""Notes of what was looked up: they stand for dataset and backbone, and only while the features are there."""

import shutil

import numpy as np
import pytest

from fedcof.data import kept_problem, problem, unchanged
from fedcof.data.problem import (
    features_seem_kept,
    kept_problem_of,
    labels_of,
    note_problem,
    problem_notes_dir,
    problem_of,
    split_features,
    take_earlier_note,
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


def test_an_earlier_note_spares_the_look_up(run, tmp_path, monkeypatch):
    assert not take_earlier_note(run, tmp_path / "later")
    looked_up = what_is_seen(run)
    note_problem(run, tmp_path / "notes")
    forbid(monkeypatch)
    assert take_earlier_note(run, tmp_path / "later")
    with kept_problem.believed(tmp_path / "later"):
        for before, noted in zip(looked_up, what_is_seen(run), strict=True):
            assert np.array_equal(before, noted) if isinstance(before, np.ndarray) else before == noted
    assert kept_problem_of(run) is None


def touch(folder):
    path = next(folder.glob("train/dark/*.png"))
    path.write_bytes(path.read_bytes())


def add(folder):
    shutil.copy(next(folder.glob("train/dark/*.png")), folder / "test" / "dark" / "another.png")


def remove(folder):
    next(folder.glob("train/dark/*.png")).unlink()


def rename(folder):
    (folder / "test" / "dark").rename(folder / "test" / "darker")


def link(folder):
    (folder / "train" / "dark" / "link.png").symlink_to(next(folder.glob("train/dark/*.png")))


@pytest.mark.parametrize("change", [touch, add, remove, rename, link])
def test_an_earlier_note_is_not_believed_once_something_has_changed(run, image_folder, change, tmp_path):  # noqa: F811
    note_problem(run, tmp_path / "notes")
    assert take_earlier_note(run, tmp_path / "later")
    change(image_folder)
    assert not take_earlier_note(run, tmp_path / "later")


def test_other_versions_and_a_cleared_cache_ask_for_a_new_look(run, tmp_path, monkeypatch):
    note_problem(run, tmp_path / "notes")
    with monkeypatch.context() as other:
        other.setattr(unchanged, "version", lambda package: "99")
        assert not take_earlier_note(run, tmp_path / "later")
    assert take_earlier_note(run, tmp_path / "later")
    shutil.rmtree(feature_cache_dir())
    assert not take_earlier_note(run, tmp_path / "later")


@pytest.mark.parametrize("source", [{"dataset": "hub:a/b"}, {"backbone": "resnet18", "weights": "pretrained"}])
def test_what_may_change_unseen_is_always_looked_up(run, source):
    assert unchanged.stamp_of(run)
    assert unchanged.stamp_of(run.replaced(**source)) == ""


def test_weights_in_a_file_are_told_by_their_time_of_change(run, tmp_path):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(b"first")
    config = run.replaced(weights=str(path))
    first = unchanged.stamp_of(config)
    assert first == unchanged.stamp_of(config)
    path.write_bytes(b"other")
    assert unchanged.stamp_of(config) not in ("", first)


def test_weights_in_a_folder_are_told_by_all_files_in_it(run, tmp_path):
    folder = tmp_path / "weights"
    folder.mkdir()
    (folder / "weights.safetensors").write_bytes(b"first")
    config = run.replaced(weights=str(folder))
    seen = [unchanged.stamp_of(config)]
    assert seen == [unchanged.stamp_of(config)]
    with (folder / "weights.safetensors").open("ab") as file:
        file.write(b"more")
    seen.append(unchanged.stamp_of(config))
    (folder / "open_clip_config.json").write_text("{}")
    seen.append(unchanged.stamp_of(config))
    assert len({*seen, ""}) == 4
