"""A run that asks for what is not installed is told so before Flower starts."""

import pytest

import fedcof.embedding.clip_names
import fedcof.embedding.sentence_encoder
import server.energy
import server.trackers.tracker
from fedcof import UserError
from fedcof.run.config import RunConfig
from simulations.extras import check_extras

RUNS = {
    "names": {"text_prior": "names"},
    "clip": {"backbone": "open_clip:ViT-B-32-quickgelu"},
    "energy": {"energy": True},
    "wandb": {"trackers": "tensorboard,wandb"},
    "mlflow": {"trackers": "mlflow"},
}


@pytest.fixture
def nothing_installed(monkeypatch):
    asking = (
        fedcof.embedding.clip_names,
        fedcof.embedding.sentence_encoder,
        server.energy,
        server.trackers.tracker,
    )
    for module in asking:
        monkeypatch.setattr(module, "find_spec", lambda name: None)


@pytest.mark.parametrize("extra", RUNS)
def test_the_sentence_says_what_to_install(nothing_installed, extra):
    with pytest.raises(UserError, match=rf"pip install 'fedcof\[{extra}\]'"):
        check_extras(RunConfig(dataset="digits", **RUNS[extra]))


def test_a_run_that_asks_for_none_needs_none(nothing_installed):
    check_extras(RunConfig(dataset="digits"))


def test_a_tracker_that_there_is_not_is_said_at_once():
    with pytest.raises(UserError, match="Unknown tracker 'tensorbord': choose one of tensorboard, wandb, mlflow"):
        check_extras(RunConfig(dataset="digits", trackers="tensorboard, tensorbord"))


@pytest.mark.parametrize("trackers", ["", "none,wandb", "wandb,,mlflow"])
def test_what_is_no_list_of_trackers_is_refused(trackers):
    with pytest.raises(UserError, match="trackers is .*names separated by commas, or none alone"):
        RunConfig(trackers=trackers)


def test_trackers_are_named_once_each_and_none_is_nobody():
    assert RunConfig(trackers="wandb, mlflow,wandb").execution.tracker_names == ["wandb", "mlflow"]
    assert RunConfig(trackers="none").execution.tracker_names == []


def test_names_by_a_text_tower_that_a_backbone_has_not_are_refused_at_once():
    with pytest.raises(UserError, match="has no text tower that could read class names"):
        RunConfig(dataset="digits", text_prior="clip")
