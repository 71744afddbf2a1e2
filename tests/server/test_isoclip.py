"""Whole runs on a small CLIP tower: what clients send before its projector, and what the server makes of it."""

import pytest
import torch

from clients.app import app as client_app
from fedcof import UserError
from fedcof.data.clip_features import projection_of
from fedcof.data.problem import problem_of
from fedcof.embedding.clip_models import clip_projectors
from fedcof.embedding.clip_projection import projection_matrix
from fedcof.heads.classifiers import load_classifier
from fedcof.run.config import RunConfig
from server.federation import Federation
from server.run import execute
from tests.fedcof.embedding.clip_folders import write_clip
from tests.server.in_memory_grid import InMemoryGrid

pytest.importorskip("open_clip")

BEFORE, AFTER = 32, 16
CUT = {"clip_cut_top": 3, "clip_cut_bottom": 2}


@pytest.fixture
def clip(tmp_path, monkeypatch):
    monkeypatch.setenv("FEDCOF_CACHE", str(tmp_path / "cache"))
    folder = write_clip(tmp_path / "clip")
    keys = {"dataset": "digits", "backbone": "open_clip", "weights": folder, "image_size": 0, "num_clients": 4}
    return {**keys, "feature_transform": "none"}


@pytest.mark.parametrize("method", ["fedcof", "fedncm", "oracle"])
def test_clients_send_what_is_before_the_projector_and_the_server_maps_it(clip, tmp_path, method):
    config = RunConfig(**clip, **CUT, clip_projection="iso", method=method)
    assert problem_of(config).feature_dim == BEFORE
    grid = InMemoryGrid(client_app, 4, run_config=config.to_mapping())
    result = execute(Federation(grid, 4), config, tmp_path, "run")
    assert result.clients == (0 if method == "oracle" else 4)
    assert result.accuracy > 0.2
    classifier = load_classifier(tmp_path / result.head)
    assert classifier.feature_dim == BEFORE
    matrix = projection_of(config)
    assert matrix.shape == (BEFORE, AFTER - 5)
    # Nothing that the projection leaves out decides anything.
    left_out = torch.eye(BEFORE, dtype=torch.float64) - matrix @ torch.linalg.pinv(matrix)
    weight = classifier.weight.double()
    assert float((weight @ left_out.T).abs().max()) < 1e-4 * float(weight.abs().max())


def test_the_projection_is_of_the_models_own_projectors(clip):
    config = RunConfig(**clip, **CUT, clip_projection="iso")
    projectors = clip_projectors("open_clip", clip["weights"])
    assert torch.equal(projection_of(config), projection_matrix("iso", projectors.image, projectors.text, 3, 2))
    assert projection_of(RunConfig(**clip)) is None


@pytest.mark.parametrize(("projection", "dimension"), [("full", AFTER), ("none", BEFORE)])
def test_features_are_those_after_the_projector_or_before_it(clip, projection, dimension):
    assert problem_of(RunConfig(**clip, clip_projection=projection)).feature_dim == dimension


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"feature_transform": "power"}, "it must be none where clip-projection is iso"),
        ({"method": "fed3r"}, "for class means"),
        ({"diagnose": True, "head": "ridge"}, "not diagnosed"),
        ({"text_prior": "clip"}, "after CLIP's projector"),
        ({"backbone": "resnet18"}, "clip-projection"),
    ],
)
def test_what_cannot_be_projected_is_refused_in_a_sentence(clip, changes, says):
    with pytest.raises(UserError, match=says):
        RunConfig(**{**clip, "clip_projection": "iso", **changes})


def test_a_model_of_which_nothing_is_published_asks_for_the_cut(clip):
    with pytest.raises(UserError, match="set clip-cut-top and clip-cut-bottom"):
        projection_of(RunConfig(**clip, clip_projection="iso"))
