"""Text prototypes from class names, with the packaged sentence encoder and the packaged backbone."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from fedcof import UserError
from fedcof.embedding import name_prototypes as module
from fedcof.embedding import sentence_encoder
from fedcof.embedding.backbones import PACKAGED, packaged_state_dict
from fedcof.embedding.imagenet_head import imagenet_head, imagenet_names

PROMPT = "a photo of a {}"


def prototypes_of(names, **changes):
    asked = {"templates": (PROMPT,), "name": PACKAGED, "weights": "pretrained", "feature_dim": 1280, **changes}
    return module.name_prototypes(names, **asked)


def test_prototypes_are_what_the_formula_says(monkeypatch):
    rows = packaged_state_dict(timm.create_model(PACKAGED))["classifier.weight"].double().numpy()
    drawn = np.random.default_rng(0).normal(size=(1002, 7))
    drawn /= np.linalg.norm(drawn, axis=1, keepdims=True)
    said = []

    def encoded(texts):
        said.extend(texts)
        return torch.tensor(drawn, dtype=torch.float32)

    monkeypatch.setattr(module, "_encoded", encoded)
    found = prototypes_of(["sea_horse", "teapot"])
    centred = rows - rows.mean(axis=0)
    centred /= np.linalg.norm(centred, axis=1, keepdims=True)
    assert said[:3] == ["a photo of a sea horse", "a photo of a teapot", "a photo of a tench"]
    for prototype, own in zip(found, drawn, strict=False):
        likeness = [own @ other for other in drawn[2:]]
        weights = np.exp(np.array(likeness) / 0.1)
        naive = (weights / weights.sum()) @ centred
        assert np.allclose(prototype.numpy(), naive / np.linalg.norm(naive), atol=1e-5)


def test_names_of_imagenet_lie_near_their_own_rows():
    pytest.importorskip("sentence_transformers")
    names = imagenet_names()
    rows = imagenet_head(PACKAGED)
    rows = torch.nn.functional.normalize(rows - rows.mean(dim=0), dim=1)
    some = [10, 250, 447, 900]
    found = prototypes_of([names[number] for number in some])
    assert (found @ rows.T).argmax(dim=1).tolist() == some
    assert torch.allclose(found.norm(dim=1), torch.ones(4), atol=1e-5)


def test_without_the_extra_a_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setattr(sentence_encoder, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'fedcof\[names\]'"):
        prototypes_of(["cat"])


def test_the_encoder_is_imported_only_when_names_are_read():
    assert "sentence_transformers" not in module.__dict__
    assert all("sentence_transformers" not in str(value) for value in vars(sys.modules["fedcof"]).values())


@pytest.mark.parametrize(("name", "weights"), [(PACKAGED, "none"), ("mobilenet_v2", "pretrained")])
def test_a_backbone_without_an_imagenet_head_is_refused_in_a_sentence(name, weights):
    with pytest.raises(UserError, match="hold no classifier"):
        imagenet_head(name, weights)


def test_a_head_of_other_classes_is_refused_in_a_sentence(tmp_path):
    model = timm.create_model("resnet18", num_classes=10)
    save_file(model.state_dict(), tmp_path / "own.safetensors")
    with pytest.raises(UserError, match="ImageNet's 1,000 classes"):
        prototypes_of(["cat"], name="resnet18", weights=str(tmp_path / "own.safetensors"), feature_dim=512)


def test_a_file_of_weights_with_its_classifier_is_read(tmp_path):
    model = timm.create_model("resnet18")
    save_file(model.state_dict(), tmp_path / "own.safetensors")
    assert torch.equal(imagenet_head("resnet18", str(tmp_path / "own.safetensors")), model.fc.weight)


def test_there_is_a_name_for_each_row_and_it_is_one_word_for_it():
    names = imagenet_names()
    assert len(names) == 1000
    assert names[0] == "tench"
    assert not any("," in name for name in names)
