"""Names of open_clip's models, and what whoever has not installed it is told."""

import subprocess
import sys

import pytest

from fedcof import UserError
from fedcof.embedding import clip_names
from fedcof.embedding.backbones import load_backbone
from fedcof.embedding.clip_models import clip_projectors
from fedcof.embedding.clip_names import ClipName, is_open_clip, parsed
from fedcof.embedding.clip_text import clip_text_prototypes

NAME = "open_clip:ViT-B-32-quickgelu"

LAZY = """
import sys

from fedcof.embedding.backbones import load_backbone

load_backbone("test_efficientnet", 32, "none")
assert "open_clip" not in sys.modules
"""


def test_names_are_read():
    assert parsed("open_clip") == ClipName("", "")
    assert parsed(NAME) == ClipName("ViT-B-32-quickgelu", "")
    assert parsed("open_clip:ViT-B-32/laion2b_s34b_b79k") == ClipName("ViT-B-32", "laion2b_s34b_b79k")
    assert is_open_clip("open_clip")
    assert is_open_clip(NAME)
    assert not is_open_clip("open_clips")
    assert not is_open_clip("vit_base_patch32_clip_224.openai")


def test_without_the_extra_a_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setattr(clip_names, "find_spec", lambda name: None)
    timms = "vit_base_patch32_clip_quickgelu_224.openai"
    for ask in (
        lambda: load_backbone(NAME),
        lambda: clip_projectors(NAME),
        lambda: clip_text_prototypes(NAME, "pretrained", ["cat"], ["a {}"]),
        lambda: clip_text_prototypes(timms, "pretrained", ["cat"], ["a {}"]),
    ):
        with pytest.raises(UserError, match=r"pip install 'fedcof\[clip\]'"):
            ask()
    assert load_backbone("test_resnet", 32, "none").feature_dim > 0


def test_open_clip_is_imported_only_when_it_is_asked_for():
    subprocess.run([sys.executable, "-c", LAZY], check=True)
