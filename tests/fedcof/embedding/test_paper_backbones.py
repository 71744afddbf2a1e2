"""The FedCOF paper's backbones and preprocessing: torchvision's networks, and what a preset does to an image."""

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torchvision import transforms

from fedcof import UserError
from fedcof.data.problem import source_of
from fedcof.embedding import backbones
from fedcof.embedding.backbones import load_backbone
from fedcof.embedding.preprocessing import PRESETS
from fedcof.run.config import RunConfig

CIFAR = (0.491399689874, 0.482158419622, 0.446530924224), (0.247032237587, 0.243485133253, 0.261587846975)
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.mark.parametrize(("name", "dim"), [("squeezenet1_1", 512), ("mobilenet_v2", 1280)])
def test_features_are_the_pooled_convolutions_of_torchvisions_network(tmp_path, name, dim):
    whole = torchvision.models.get_model(name).eval()
    torch.save(whole.state_dict(), tmp_path / "weights.pth")
    backbone = load_backbone(name, 64, str(tmp_path / "weights.pth"))
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = torch.nn.functional.adaptive_avg_pool2d(whole.features(images), 1).flatten(1)
        torch.testing.assert_close(backbone.module(images), expected, rtol=1e-4, atol=1e-5)
    assert backbone.feature_dim == dim
    assert load_backbone(name, 64, "none").fingerprint == load_backbone(name, 64, "none").fingerprint


def test_weights_of_another_network_or_none_are_one_sentence(tmp_path, monkeypatch):
    torch.save({"features.0.weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(UserError, match="does not hold the weights of squeezenet1_1"):
        load_backbone("squeezenet1_1", 64, str(tmp_path / "other.pth"))
    with pytest.raises(UserError, match="There are no weights at"):
        load_backbone("squeezenet1_1", 64, str(tmp_path / "none.pth"))

    def refuse(name):
        raise OSError("Name or service not known")

    monkeypatch.setattr(backbones, "pretrained_state_dict", refuse)
    with pytest.raises(UserError, match="could not be fetched from where torchvision keeps them"):
        load_backbone("squeezenet1_1", 64)


@pytest.mark.parametrize(
    ("preset", "resize", "statistics"),
    [("paper-cifar", 224, CIFAR), ("paper-square", (224, 224), IMAGENET), ("paper-inaturalist", 299, IMAGENET)],
)
def test_a_preset_prepares_images_as_the_papers_code_does(preset, resize, statistics):
    width = 32 if preset == "paper-cifar" else 300
    pixels = np.random.default_rng(0).integers(0, 256, (32 if width == 32 else 350, width, 3), dtype=np.uint8)
    steps = [transforms.Resize(resize), transforms.ToTensor(), transforms.Normalize(*statistics)]
    if preset == "paper-inaturalist":
        steps.insert(1, transforms.CenterCrop((224, 224)))
    expected = transforms.Compose(steps)(Image.fromarray(pixels))
    backbone = load_backbone("test_resnet", 224, "none", preset)
    torch.testing.assert_close(backbone.transform(Image.fromarray(pixels)), expected, rtol=1e-5, atol=1e-5)
    assert backbone.fingerprint != load_backbone("test_resnet", 224, "none").fingerprint


def test_what_is_kept_of_one_preset_is_not_taken_for_another():
    sources = {source_of(RunConfig(preprocessing=preset)) for preset in PRESETS}
    assert len(sources) == len(PRESETS)
    with pytest.raises(UserError, match="Unknown preprocessing 'paper': choose one of model, paper-cifar"):
        RunConfig(preprocessing="paper")
