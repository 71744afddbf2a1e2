"""Text prototypes and zero-shot logits: equal to open_clip's, without a network."""

import json
import socket

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from fedcof import UserError
from fedcof.embedding.backbones import load_backbone
from fedcof.embedding.clip_text import clip_text_prototypes
from fedcof.embedding.prompts import CLIP_7, templates
from tests.fedcof.embedding.clip_folders import known_to_open_clip, of_open_clip, write_clip

open_clip = pytest.importorskip("open_clip")

EXACT = {"rtol": 1e-5, "atol": 1e-5}
NAMES = ["sea_horse", "teapot", "Über-{0} cat's", "a name that has many more words than twelve tokens can hold"]
SAID = [name.replace("_", " ") for name in NAMES]


@pytest.fixture
def offline(monkeypatch):
    def refuse(*_, **__):
        raise OSError("no network in this test")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.mark.parametrize("tower", ["vit", "vit-quickgelu", "vit-custom-text", "vit-bias", "timm", "timm-head"])
def test_prototypes_and_zero_shot_logits_are_those_of_open_clip(tmp_path, offline, tower):
    folder = write_clip(tmp_path / tower, tower)
    found = clip_text_prototypes("open_clip", folder, NAMES, templates(CLIP_7))
    model, transform = of_open_clip(folder)
    tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
    texts = [[template.replace("{}", name) for template in templates(CLIP_7)] for name in SAID]
    backbone = load_backbone("open_clip", 0, folder)
    pixels = np.random.default_rng(0).integers(0, 256, (3, 90, 70, 3), dtype=np.uint8)
    images = [Image.fromarray(picture) for picture in pixels]
    with torch.inference_mode():
        rows = []
        for said in texts:
            encoded = model.encode_text(tokenizer(said))
            mean = (encoded / encoded.norm(dim=1, keepdim=True)).mean(dim=0)
            rows.append(mean / mean.norm())
        torch.testing.assert_close(found.prototypes, torch.stack(rows), **EXACT)
        assert found.prototypes.dtype == torch.float32
        image = model.encode_image(torch.stack([transform(image) for image in images]), normalize=True)
        expected = model.logit_scale.exp() * image @ torch.stack(rows).T + (model.logit_bias or 0.0)
        features = backbone.module(torch.stack([backbone.transform(image) for image in images]))
        torch.testing.assert_close(found.logits(features), expected, **EXACT)
    assert found.bias == pytest.approx(-10.0, abs=0.5) if tower == "vit-bias" else found.bias == 0.0


def test_one_template_gives_open_clips_own_logits(tmp_path):
    folder = write_clip(tmp_path / "vit", "vit-bias")
    model, _ = of_open_clip(folder)
    images = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    texts = open_clip.get_tokenizer(f"local-dir:{folder}")([f"a photo of a {name}" for name in SAID])
    found = clip_text_prototypes("open_clip", folder, NAMES, ["a photo of a {}"])
    with torch.inference_mode():
        expected, _ = model.get_logits(images, texts)
        torch.testing.assert_close(found.logits(model.encode_image(images)), expected, **EXACT)


def test_the_activation_makes_other_prototypes(tmp_path, monkeypatch):
    folder = tmp_path / "vit"
    write_clip(folder)
    file = str(folder / "open_clip_model.safetensors")
    known_to_open_clip(monkeypatch, folder, "Tiny", {"laion": {}})
    known_to_open_clip(monkeypatch, folder, "Tiny-quickgelu", quick_gelu=True)
    plain = clip_text_prototypes("open_clip:Tiny/laion", file, NAMES, ["a {}"]).prototypes
    quick = clip_text_prototypes("open_clip:Tiny-quickgelu", file, NAMES, ["a {}"]).prototypes
    assert (plain - quick).abs().max() > 1e-4
    model = open_clip.create_model("Tiny-quickgelu", pretrained=file).eval()
    texts = open_clip.get_tokenizer("Tiny-quickgelu")([f"a {name}" for name in SAID])
    with torch.inference_mode():
        torch.testing.assert_close(quick, model.encode_text(texts, normalize=True), **EXACT)


def test_a_file_of_the_image_tower_alone_is_refused(tmp_path):
    save_file({"proj": torch.zeros(1)}, tmp_path / "tower.safetensors")
    with pytest.raises(UserError, match="an image tower without its text tower"):
        clip_text_prototypes("open_clip:ViT-B-32/openai", str(tmp_path / "tower.safetensors"), NAMES, ["a {}"])


def test_a_tokenizer_that_is_not_in_the_folder_is_one_sentence(tmp_path, offline):
    folder = write_clip(tmp_path / "vit", text={"hf_tokenizer_name": "owner/tokenizer"})
    with pytest.raises(
        UserError, match=r"tokenizer of open_clip cannot be had .* a folder .* install transformers"
    ):
        clip_text_prototypes("open_clip", folder, NAMES, ["a {}"])


def test_a_tokenizer_in_the_folder_is_taken_from_there(tmp_path, offline):
    pytest.importorskip("transformers")
    from tokenizers import Tokenizer, models, pre_tokenizers

    folder = tmp_path / "vit"
    words = {word: number for number, word in enumerate(["[PAD]", "[UNK]", "a", "sea", "horse", "teapot"])}
    text = {"hf_tokenizer_name": "owner/tokenizer", "tokenizer_kwargs": {"strip_sep_token": False}}
    write_clip(folder, text=text)
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    kept = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "[PAD]", "unk_token": "[UNK]"}
    (folder / "tokenizer_config.json").write_text(json.dumps(kept))
    model, _ = of_open_clip(folder)
    tokens = torch.zeros(2, 12, dtype=torch.long)
    tokens[0, :3] = torch.tensor([words[word] for word in ("a", "sea", "horse")])
    tokens[1, :2] = torch.tensor([words[word] for word in ("a", "teapot")])
    found = clip_text_prototypes("open_clip", str(folder), ["sea_horse", "teapot"], ["a {}"]).prototypes
    with torch.inference_mode():
        torch.testing.assert_close(found, model.encode_text(tokens, normalize=True), **EXACT)
