"""Backbones: the packaged weights, local files, seeded weights, and what a user is told."""

import re

import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

from fedcof.embedding import backbones
from fedcof.embedding.backbones import PACKAGED, load_backbone, packaged_state_dict, shared_backbone
from fedcof.errors import UserError

SMALL = "test_resnet"
SMALL_VIT = "test_vit"


@pytest.fixture
def no_hub(monkeypatch):
    """A hub that nobody reaches, at once, as on a machine without a network."""
    tried = []

    def refuse(self, repository, **options):
        tried.append(repository)
        raise ConnectionError("Name or service not known")

    monkeypatch.setattr(backbones.HfApi, "model_info", refuse)
    monkeypatch.setattr(backbones, "try_to_load_from_cache", lambda *_, **__: None)
    return tried


def test_packaged_weights_have_a_name_for_each_of_timms():
    model = timm.create_model(PACKAGED)
    renamed = packaged_state_dict(model)
    assert list(renamed) == list(model.state_dict())
    model.load_state_dict(renamed, strict=True)


def test_a_packaged_name_without_counterpart_is_an_error():
    model = timm.create_model(PACKAGED)
    with pytest.raises(KeyError):
        backbones.rename_efficientnet_lite({"_blocks.3._squeeze.weight": torch.zeros(1)}, model)
    with pytest.raises(KeyError):
        backbones.rename_efficientnet_lite({"_swish.weight": torch.zeros(1)}, model)


@pytest.mark.parametrize(("picture", "classes"), [("chelsea", {281, 282, 285}), ("coffee", {967})])
def test_packaged_weights_know_a_cat_and_an_espresso(picture, classes):
    data = pytest.importorskip("skimage.data")
    backbone = load_backbone(PACKAGED)
    model = timm.create_model(PACKAGED).eval()
    state = packaged_state_dict(model)
    image = backbone.transform(Image.fromarray(getattr(data, picture)()))[None]
    with torch.inference_mode():
        features = backbone.module(image)
    logits = features @ state["classifier.weight"].T + state["classifier.bias"]
    assert int(logits.argmax()) in classes


def test_a_backbone_is_frozen_and_evaluates():
    backbone = load_backbone(SMALL, 32, "none")
    assert not backbone.module.training
    assert not any(parameter.requires_grad for parameter in backbone.module.parameters())
    image = backbone.transform(Image.new("RGB", (50, 40), "red"))
    assert image.shape == (3, 32, 32)
    assert image.dtype == torch.float32
    assert backbone.module(image[None]).shape == (1, backbone.feature_dim)


def test_preprocessing_is_timms_own_evaluation():
    backbone = load_backbone(PACKAGED, weights="none")
    model = timm.create_model(PACKAGED)
    expected = timm.data.create_transform(**timm.data.resolve_model_data_config(model), is_training=False)
    assert str(backbone.transform) == str(expected)


def test_random_weights_are_the_same_each_time_and_leave_the_generator_alone():
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    first = load_backbone(SMALL, 32, "none")
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(2)
    second = load_backbone(SMALL, 32, "none")
    assert first.fingerprint == second.fingerprint
    for key, tensor in first.module.state_dict().items():
        assert torch.equal(tensor, second.module.state_dict()[key])


def test_fingerprint_tells_architecture_weights_and_size(tmp_path):
    random = load_backbone(SMALL, 32, "none")
    state = {key: tensor.contiguous() for key, tensor in random.module.state_dict().items()}
    save_file(state, tmp_path / "same.safetensors")
    state["conv1.0.weight"].flatten()[0] += 1e-6
    save_file(state, tmp_path / "other.safetensors")
    same = load_backbone(SMALL, 32, str(tmp_path / "same.safetensors"))
    assert same.fingerprint == random.fingerprint
    others = {
        load_backbone(SMALL, 32, str(tmp_path / "other.safetensors")).fingerprint,
        load_backbone(SMALL, 48, "none").fingerprint,
        load_backbone(SMALL, 0, "none").fingerprint,
        load_backbone("test_efficientnet", 32, "none").fingerprint,
    }
    assert len(others | {random.fingerprint}) == 5


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
@pytest.mark.parametrize("name", [SMALL, SMALL_VIT])
def test_a_local_file_loads_without_its_classifier(tmp_path, name, suffix):
    torch.manual_seed(3)
    model = timm.create_model(name, num_classes=7).eval()
    path = tmp_path / f"weights.{suffix}"
    (torch.save if suffix == "pth" else save_file)(model.state_dict(), path)
    backbone = load_backbone(name, weights=str(path))
    model.reset_classifier(0)
    size = model.pretrained_cfg["input_size"][-1]
    images = torch.rand(2, 3, size, size)
    with torch.inference_mode():
        torch.testing.assert_close(backbone.module(images), model(images))


def test_position_embeddings_of_a_local_file_are_resampled(tmp_path):
    model = timm.create_model(SMALL_VIT, num_classes=0)
    save_file(model.state_dict(), tmp_path / "weights.safetensors")
    backbone = load_backbone(SMALL_VIT, 64, str(tmp_path / "weights.safetensors"))
    expected = model.eval()
    expected.set_input_size(img_size=(64, 64))
    images = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(backbone.module(images), expected(images))


@pytest.mark.parametrize("change", ["missing", "unknown", "shape", "other model"])
def test_a_file_of_other_weights_is_refused(tmp_path, change):
    state = timm.create_model(SMALL, num_classes=0).state_dict()
    if change == "missing":
        del state["conv1.0.weight"]
    elif change == "unknown":
        state["conv9.weight"] = torch.zeros(1)
    elif change == "shape":
        state["conv1.0.weight"] = torch.zeros(1, 3, 3, 3)
    else:
        state = timm.create_model(SMALL_VIT).state_dict()
    save_file(state, tmp_path / "weights.safetensors")
    with pytest.raises(UserError, match="does not hold the weights of test_resnet"):
        load_backbone(SMALL, weights=str(tmp_path / "weights.safetensors"))


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_a_broken_or_pickled_file_is_refused(tmp_path, suffix):
    path = tmp_path / f"weights.{suffix}"
    path.write_bytes(b"not weights")
    with pytest.raises(UserError, match="does not hold the weights"):
        load_backbone(SMALL, weights=str(path))
    torch.save({"conv1.weight": torch.nn.Linear(1, 1)}, tmp_path / "pickled.pth")
    with pytest.raises(UserError, match="does not hold the weights"):
        load_backbone(SMALL, weights=str(tmp_path / "pickled.pth"))


def test_a_file_that_is_not_there():
    with pytest.raises(UserError, match="no weights at nowhere.pth"):
        load_backbone(SMALL, weights="nowhere.pth")


@pytest.mark.parametrize(
    ("name", "suggested"),
    [("restnet18", "resnet18"), ("resnet18.nope", r"resnet18\.a1_in1k"), ("", "names in timm")],
)
def test_an_unknown_name_brings_close_ones(name, suggested):
    with pytest.raises(UserError, match=f"(?s)Unknown backbone {re.escape(repr(name))}.*{suggested}"):
        load_backbone(name, weights="none")


def test_an_image_size_that_does_not_suit():
    with pytest.raises(UserError, match="test_vit cannot be built at image-size 3"):
        load_backbone(SMALL_VIT, 3, "none")


def test_a_hub_out_of_reach_is_tried_once(no_hub):
    with pytest.raises(UserError, match="could not be fetched from the hub .* set weights to a local"):
        load_backbone("resnet18")
    assert no_hub == ["timm/resnet18.a1_in1k"]


def test_a_download_that_breaks_off_is_the_hubs_fault(monkeypatch, no_hub):
    monkeypatch.setattr(backbones.HfApi, "model_info", lambda *_, **__: None)

    def broken(*_, **__):
        raise OSError("connection reset")

    monkeypatch.setattr(timm, "create_model", broken)
    with pytest.raises(UserError, match="could not be fetched from the hub .connection reset."):
        load_backbone("resnet18")


def test_weights_in_the_hubs_cache_need_no_hub(tmp_path, monkeypatch, no_hub):
    torch.manual_seed(4)
    model = timm.create_model(SMALL)
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    cached = str(tmp_path / "model.safetensors")
    monkeypatch.setattr(backbones, "try_to_load_from_cache", lambda *_, **__: cached)
    assert load_backbone(SMALL).fingerprint == load_backbone(SMALL, weights=cached).fingerprint
    assert no_hub == []


def test_a_model_without_pretrained_weights(no_hub):
    without = sorted(set(timm.list_models()) - {name.partition(".")[0] for name in timm.list_pretrained()})
    with pytest.raises(UserError, match="has no pre-trained weights"):
        load_backbone(without[0])


def test_a_shared_backbone_is_loaded_once():
    assert shared_backbone(SMALL, 32, "none") is shared_backbone(SMALL, 32, "none")
