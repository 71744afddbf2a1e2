"""CLIP's image towers as backbones: equal to open_clip's own, and refused where weights would load wrong."""

import json
import logging
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from fedcof import UserError
from fedcof.embedding import clip_loading
from fedcof.embedding.backbones import load_backbone
from fedcof.embedding.clip_models import clip_projectors
from fedcof.embedding.imagenet_head import imagenet_head
from tests.fedcof.embedding.clip_folders import TOWERS, VIT, known_to_open_clip, of_open_clip, write_clip

open_clip = pytest.importorskip("open_clip")

EXACT = {"rtol": 1e-5, "atol": 1e-5}
OPENAI = {"quick_gelu": True}


def pictures(*sizes):
    drawn = np.random.default_rng(0)
    return [Image.fromarray(drawn.integers(0, 256, (*size, 3), dtype=np.uint8)) for size in sizes]


def weights_in(folder):
    return folder / "open_clip_model.safetensors"


@pytest.fixture
def known(tmp_path, monkeypatch):
    """A model of either activation that open_clip knows by name, with weights for each, in files."""
    folder = tmp_path / "known"
    write_clip(folder)
    file = str(weights_in(folder))
    tags = {"openai": {"file": file, **OPENAI}, "laion": {"file": file}}
    known_to_open_clip(monkeypatch, folder, "Tiny", tags)
    known_to_open_clip(monkeypatch, folder, "Tiny-quickgelu", {"openai": tags["openai"]}, quick_gelu=True)
    return folder


@pytest.mark.parametrize("tower", TOWERS)
def test_features_are_those_of_open_clip(tmp_path, tower):
    folder = write_clip(tmp_path / tower, tower)
    model, transform = of_open_clip(folder)
    backbone = load_backbone("open_clip", 0, folder)
    images = pictures((70, 50), (40, 90), (200, 200))
    found = torch.stack([backbone.transform(image) for image in images])
    expected = torch.stack([transform(image) for image in images])
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    with torch.inference_mode():
        torch.testing.assert_close(backbone.module(found), model.encode_image(expected), **EXACT)
    assert backbone.feature_dim == 16
    assert not backbone.module.training
    assert not any(parameter.requires_grad for parameter in backbone.module.parameters())


@pytest.mark.parametrize(
    "settings",
    [
        {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.4, 0.3], "resize_mode": "squash", "interpolation": "bilinear"},
        {"resize_mode": "longest", "fill_color": 7},
    ],
)
def test_images_are_prepared_as_the_folder_says(tmp_path, settings):
    folder = write_clip(tmp_path / "own", preprocess=settings)
    plain = load_backbone("open_clip", 0, write_clip(tmp_path / "plain"))
    backbone = load_backbone("open_clip", 0, folder)
    _, transform = of_open_clip(folder)
    for image in pictures((70, 50), (40, 90)):
        torch.testing.assert_close(backbone.transform(image), transform(image), rtol=0, atol=0)
    assert backbone.fingerprint != plain.fingerprint


def test_a_papers_preprocessing_takes_the_place_of_the_models_own(tmp_path):
    folder = write_clip(tmp_path / "model")
    backbone = load_backbone("open_clip", 0, folder, "paper-cifar")
    other = load_backbone("test_resnet", 32, "none", "paper-cifar")
    [image] = pictures((70, 70))
    torch.testing.assert_close(backbone.transform(image), other.transform(image))


@pytest.mark.parametrize("tower", ["vit", "vit-quickgelu", "vit-custom-text", "timm", "timm-head"])
def test_features_before_the_projector_times_the_projector_are_those_after_it(tmp_path, tower):
    folder = write_clip(tmp_path / tower, tower)
    before, after = (load_backbone("open_clip", 0, folder, projected=projected) for projected in (False, True))
    images = torch.randn(3, *after.preprocessing["input_size"], generator=torch.Generator().manual_seed(0))
    projectors = clip_projectors("open_clip", folder)
    assert projectors.image.shape == (before.feature_dim, 16)
    assert projectors.text.shape == (24, 16)
    with torch.inference_mode():
        torch.testing.assert_close(before.module(images) @ projectors.image, after.module(images), **EXACT)
    assert before.fingerprint != after.fingerprint


def test_projectors_are_open_clips_matrices(tmp_path):
    folder = write_clip(tmp_path / "vit")
    tensors = load_file(weights_in(tmp_path / "vit"))
    projectors = clip_projectors("open_clip", folder)
    assert torch.equal(projectors.image, tensors["visual.proj"])
    assert torch.equal(projectors.text, tensors["text_projection"])


def test_towers_that_do_not_end_in_a_linear_projector_are_refused(tmp_path):
    folder = write_clip(tmp_path / "resnet", "resnet")
    none = write_clip(tmp_path / "none", text={"proj_type": "none"}, embed_dim=24, custom_text=True)
    biased = write_clip(tmp_path / "biased", vision_cfg={**TOWERS["timm"]["vision_cfg"], "timm_proj_bias": True})
    for place in (folder, none, biased):
        with pytest.raises(UserError, match="do not both end in a linear projector"):
            clip_projectors("open_clip", place)
    with pytest.raises(UserError, match="do not both end in a linear projector"):
        load_backbone("open_clip", 0, folder, projected=False)


def test_the_activation_and_whatever_else_makes_features_is_in_the_fingerprint(tmp_path):
    folder = tmp_path / "vit"
    write_clip(folder)
    seen = [load_backbone("open_clip", 0, str(folder)).fingerprint]
    assert load_backbone("open_clip", 0, str(shutil.copytree(folder, tmp_path / "copy"))).fingerprint == seen[0]
    config = json.loads((folder / "open_clip_config.json").read_text())
    for change in ({"quick_gelu": True}, {"vision_cfg": {**VIT, "final_ln_after_pool": True, "pool_type": "avg"}}):
        changed = {**config, "model_cfg": {**config["model_cfg"], **change}}
        (folder / "open_clip_config.json").write_text(json.dumps(changed))
        seen.append(load_backbone("open_clip", 0, str(folder)).fingerprint)
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    tensors = load_file(weights_in(folder))
    tensors["visual.proj"][0, 0] += 1e-5
    save_file(tensors, weights_in(folder))
    seen.append(load_backbone("open_clip", 0, str(folder)).fingerprint)
    seen.append(load_backbone("open_clip", 64, str(folder)).fingerprint)
    assert len(set(seen)) == 5


def test_a_default_that_is_written_out_makes_no_other_fingerprint(tmp_path):
    folder = tmp_path / "vit"
    first = load_backbone("open_clip", 0, write_clip(folder)).fingerprint
    config = json.loads((folder / "open_clip_config.json").read_text())
    config["model_cfg"]["vision_cfg"] |= {"mlp_ratio": 4.0, "patch_dropout": 0.5}
    config["model_cfg"]["quick_gelu"] = False
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    assert load_backbone("open_clip", 0, str(folder)).fingerprint == first


def test_another_image_size_resamples_position_embeddings_as_open_clip_does(tmp_path):
    folder = write_clip(tmp_path / "vit")
    backbone = load_backbone("open_clip", 64, folder)
    model = open_clip.create_model(f"local-dir:{folder}", force_image_size=64).eval()
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(backbone.module(images), model.encode_image(images), **EXACT)
    [image] = pictures((90, 80))
    assert backbone.transform(image).shape == (3, 64, 64)
    assert load_backbone("open_clip", 96, write_clip(tmp_path / "timm", "timm")).feature_dim == 16


@pytest.mark.parametrize(("tower", "size"), [("vit", 40), ("resnet", 96), ("timm-head", 100)])
def test_an_image_size_that_the_model_does_not_take_is_one_sentence(tmp_path, tower, size):
    folder = write_clip(tmp_path / tower, tower)
    with pytest.raises(UserError, match=rf"cannot be built at image-size {size} \(.*use image-size=0"):
        load_backbone("open_clip", size, folder)


def test_weights_by_tag_and_from_a_file_are_the_same(known):
    tagged = load_backbone("open_clip:Tiny/laion")
    assert load_backbone("open_clip:Tiny/laion", 0, str(weights_in(known))).fingerprint == tagged.fingerprint
    assert load_backbone("open_clip:Tiny", 0, str(known)).fingerprint == tagged.fingerprint
    quick = load_backbone("open_clip:Tiny-quickgelu")
    assert load_backbone("open_clip:Tiny-quickgelu", 0, str(weights_in(known))).fingerprint == quick.fingerprint
    assert quick.fingerprint != tagged.fingerprint
    model = open_clip.create_model("Tiny-quickgelu", pretrained="openai").eval()
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(quick.module(images), model.encode_image(images), **EXACT)
        assert (tagged.module(images) - model.encode_image(images)).abs().max() > 1e-4


@pytest.mark.parametrize("name", ["open_clip:Tiny", "open_clip:Tiny/openai"])
def test_weights_of_the_other_activation_are_refused(known, name):
    with pytest.raises(UserError, match=r"another activation.*open_clip:Tiny-quickgelu/openai.*weights: laion\."):
        load_backbone(name)


def test_a_file_of_unknown_activation_is_refused(known):
    with pytest.raises(UserError, match=r"does not say how its weights were trained.*as in open_clip:Tiny/laion"):
        load_backbone("open_clip:Tiny", 0, str(weights_in(known)))
    with pytest.raises(UserError, match="another activation"):
        load_backbone("open_clip:Tiny/openai", 0, str(weights_in(known)))


def test_a_file_alone_is_taken_where_all_weights_of_a_name_are_used_alike(known, monkeypatch):
    half = {"mean": (0.5, 0.5, 0.5), "resize_mode": "squash"}
    known_to_open_clip(monkeypatch, known, "Alike", {"one": half, "two": half})
    known_to_open_clip(monkeypatch, known, "Unlike", {"one": half, "two": {}})
    known_to_open_clip(monkeypatch, known, "None")
    file = str(weights_in(known))
    preprocessing = load_backbone("open_clip:Alike", 0, file).preprocessing
    assert preprocessing["mean"] == (0.5, 0.5, 0.5)
    assert preprocessing["crop_mode"] == "squash"
    assert load_backbone("open_clip:None", 0, file).preprocessing["crop_mode"] == "center"
    assert load_backbone("open_clip:Unlike/two", 0, file).preprocessing["crop_mode"] == "center"
    with pytest.raises(UserError, match="does not say how its weights were trained"):
        load_backbone("open_clip:Unlike", 0, file)


def test_a_file_of_the_image_tower_alone_loads_as_fine_tuning_left_it(known, tmp_path):
    for projected in (True, False):
        backbone = load_backbone("open_clip:Tiny/laion", projected=projected)
        state = {key: tensor.contiguous() for key, tensor in backbone.module.state_dict().items()}
        save_file(state, tmp_path / "tower.safetensors")
        again = load_backbone("open_clip:Tiny/laion", 0, str(tmp_path / "tower.safetensors"), projected=projected)
        assert again.fingerprint == backbone.fingerprint
        with pytest.raises(UserError, match="are not those of open_clip:Tiny"):
            load_backbone("open_clip:Tiny", 0, str(tmp_path / "tower.safetensors"), projected=not projected)


def test_random_weights_are_the_same_each_time_and_leave_the_generator_alone(known):
    before = torch.random.get_rng_state()
    first = load_backbone("open_clip:Tiny", 0, "none")
    torch.manual_seed(5)
    assert load_backbone("open_clip:Tiny", 0, "none").fingerprint == first.fingerprint
    torch.random.set_rng_state(before)
    load_backbone("open_clip:Tiny", 0, "none")
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_folder_of_another_model_is_refused(known, tmp_path):
    quick = write_clip(tmp_path / "quick", "vit-quickgelu")
    with pytest.raises(UserError, match=r"another model than Tiny \(quick_gelu differ\)"):
        load_backbone("open_clip:Tiny", 0, quick)
    wide = write_clip(tmp_path / "wide", vision_cfg={**VIT, "width": 48})
    with pytest.raises(UserError, match=r"another model than Tiny \(width differ\)"):
        load_backbone("open_clip:Tiny", 0, wide)


def test_a_folder_without_what_it_needs_is_one_sentence(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"has no open_clip_config\.json"):
        load_backbone("open_clip", 0, str(tmp_path / "empty"))
    write_clip(tmp_path / "model")
    weights_in(tmp_path / "model").unlink()
    # open_clip itself goes on with random weights.
    with pytest.raises(UserError, match="weights .* are not those of open_clip"):
        load_backbone("open_clip", 0, str(tmp_path / "model"))
    (tmp_path / "model" / "open_clip_config.json").write_text('{"model_cfg": {"vision_cfg": {"depth": 3}}}')
    with pytest.raises(UserError, match="describes no model of open_clip"):
        load_backbone("open_clip", 0, str(tmp_path / "model"))


def test_names_and_weights_that_are_not_there_are_one_sentence(known, tmp_path):
    save_file({"logit_scale": torch.zeros(1)}, tmp_path / "other.safetensors")
    for name, weights, words in [
        ("open_clip:ViT-B-33", "none", r"Unknown backbone 'open_clip:ViT-B-33'.*for example.*ViT-B-32"),
        (
            "open_clip:Tiny/mine",
            "pretrained",
            r"Unknown weights 'mine' of open_clip:Tiny: choose one of openai, laion",
        ),
        ("open_clip", "none", "is the model that a folder describes"),
        ("open_clip", "pretrained", "is the model that a folder describes"),
        ("open_clip:Tiny/laion", str(tmp_path / "nothing"), "There are no weights at"),
        ("open_clip:Tiny/laion", str(tmp_path / "other.safetensors"), "are not those of open_clip:Tiny/laion"),
        ("open_clip:ViT-S-32", "pretrained", "has no pre-trained weights"),
    ]:
        with pytest.raises(UserError, match=words):
            load_backbone(name, 0, weights)


def test_without_a_network_the_sentence_comes_at_once(monkeypatch):
    tried = []

    def refuse(self, repository, **options):
        tried.append(repository)
        raise ConnectionError("Name or service not known")

    monkeypatch.setattr(clip_loading.HfApi, "model_info", refuse)
    monkeypatch.setattr(clip_loading, "try_to_load_from_cache", lambda *_, **__: None)
    with pytest.raises(UserError, match=r"could not be fetched from the hub \(Name or service not known\)"):
        load_backbone("open_clip:ViT-B-32-quickgelu")
    assert tried == ["timm/vit_base_patch32_clip_224.openai"]


def test_kept_weights_need_no_network(known, monkeypatch):
    known_to_open_clip(monkeypatch, known, "Kept", {"here": {"hf_hub": "owner/repository/"}})
    asked = []

    def kept(repository, name):
        asked.append((repository, name))
        return str(weights_in(known)) if name.endswith(".safetensors") else None

    monkeypatch.setattr(clip_loading, "try_to_load_from_cache", kept)
    assert load_backbone("open_clip:Kept").feature_dim == 16
    assert asked[0] == ("owner/repository", "open_clip_model.safetensors")


def test_open_clip_does_not_set_up_the_root_logger(known, monkeypatch):
    monkeypatch.setattr(logging.root, "handlers", [])
    load_backbone("open_clip:Tiny", 0, "none")
    assert logging.root.handlers == []


def test_no_imagenet_head_is_looked_for_in_a_clip_model():
    with pytest.raises(UserError, match="hold no classifier"):
        imagenet_head("open_clip:ViT-B-32-quickgelu")
