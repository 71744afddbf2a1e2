"""A run on a CLIP image tower leaves as ONNX, and not as one of timm's models."""

import json

import pytest
import torch

from fedcof import UserError
from simulations.export import export
from simulations.prediction import predict
from tests.fedcof.embedding.clip_folders import known_to_open_clip
from tests.simulations.test_prediction import odd_images, saved_run

TINY = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16},
    "text_cfg": {"context_length": 8, "vocab_size": 16, "width": 16, "heads": 2, "layers": 1},
}


@pytest.fixture
def saved(tmp_path, monkeypatch):
    pytest.importorskip("open_clip")
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": TINY}))
    known_to_open_clip(monkeypatch, tmp_path, "Tiny")
    return saved_run(tmp_path, "open_clip:Tiny", 0)


def test_an_onnx_file_gives_the_scores_of_prediction(tmp_path, saved):
    onnxruntime = pytest.importorskip("onnxruntime")
    _, head, backbone = saved
    export(tmp_path, "onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    (of_onnx,) = session.run(["scores"], {"images": images.numpy()})
    with torch.inference_mode():
        expected = head.scores(backbone.module(images))
    torch.testing.assert_close(torch.from_numpy(of_onnx), expected, rtol=1e-3, atol=1e-3)
    described = session.get_modelmeta().custom_metadata_map
    assert json.loads(described["crop_pct"]) == 1.0
    assert json.loads(described["mean"])[0] == pytest.approx(0.48145466)


def test_images_are_predicted(tmp_path, saved):
    run, *_ = saved
    assert [len(found.classes) for found in predict(tmp_path, run, odd_images(tmp_path)[:2])] == [3, 3]


def test_timms_format_is_refused_in_a_sentence(tmp_path, saved):
    with pytest.raises(UserError, match="open_clip:Tiny is none of timm's: give --format onnx"):
        export(tmp_path, "timm")
