"""timm's CLIP towers: the model of open_clip that each belongs to, and the activation that its weights need."""

import pytest
import timm
import torch
from safetensors.torch import save_file

from fedcof import UserError
from fedcof.embedding import backbones
from fedcof.embedding.backbones import load_backbone
from fedcof.embedding.clip_of_timm import _COPIES, as_open_clip, check_activation_of_timm

PLAIN, QUICK = "vit_base_patch32_clip_224", "vit_base_patch32_clip_quickgelu_224"


@pytest.mark.parametrize(
    ("name", "counterpart"),
    [
        (f"{QUICK}.openai", "open_clip:ViT-B-32-quickgelu/openai"),
        ("vit_large_patch14_clip_quickgelu_336.openai", "open_clip:ViT-L-14-336-quickgelu/openai"),
        ("vit_base_patch16_clip_quickgelu_224.metaclip_2pt5b", "open_clip:ViT-B-16-quickgelu/metaclip_fullcc"),
        ("vit_base_patch16_clip_224.laion400m_e32", "open_clip:ViT-B-16/laion400m_e32"),
        ("vit_base_patch16_clip_224.datacompxl", "open_clip:ViT-B-16/datacomp_xl_s13b_b90k"),
        ("resnet50_clip.openai", "open_clip:RN50-quickgelu/openai"),
        ("open_clip:ViT-B-32/mine", "open_clip:ViT-B-32/mine"),
    ],
)
def test_the_model_of_a_tower_is_known_by_the_repository_of_its_weights(name, counterpart):
    pytest.importorskip("open_clip")
    assert as_open_clip(name, "pretrained") == counterpart


def test_copies_are_of_weights_that_both_know():
    open_clip = pytest.importorskip("open_clip")
    for name, counterpart in _COPIES.items():
        assert timm.is_model_pretrained(name.partition(".")[0])
        assert name in timm.list_pretrained(f"{name.partition('.')[0]}.*")
        assert tuple(counterpart.split("/")) in open_clip.list_pretrained()


@pytest.mark.parametrize(
    ("name", "weights"),
    [("resnet18", "pretrained"), ("mobilenet_v2", "pretrained"), (f"{QUICK}.openai", "none"), (QUICK, "mine.pth")],
)
def test_of_other_backbones_nothing_tells_the_text_tower(name, weights):
    pytest.importorskip("open_clip")
    with pytest.raises(UserError, match="Nothing tells which text tower belongs to the backbone"):
        as_open_clip(name, weights)


def test_features_of_timm_are_those_of_open_clip_before_the_projector():
    open_clip = pytest.importorskip("open_clip")
    from timm.models.vision_transformer import checkpoint_filter_fn

    vision = {"image_size": 224, "layers": 2, "width": 192, "patch_size": 16}
    model = open_clip.CLIP(64, vision, {"width": 64, "heads": 2, "layers": 1}, quick_gelu=True).eval()
    options = {"embed_dim": 192, "depth": 2, "num_heads": 3, "num_classes": 64, "img_size": 224}
    tower = timm.create_model("vit_base_patch16_clip_quickgelu_224", **options).eval()
    tower.load_state_dict(checkpoint_filter_fn(dict(model.state_dict()), tower))
    assert torch.equal(tower.head.weight.T, model.visual.proj)
    assert not tower.head.bias.any()
    images = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    tower.reset_classifier(0)
    with torch.inference_mode():
        torch.testing.assert_close(
            tower(images) @ model.visual.proj, model.encode_image(images), rtol=1e-5, atol=1e-5
        )


def test_weights_of_the_other_activation_are_refused():
    for weights in ("pretrained", "mine.safetensors"):
        with pytest.raises(UserError, match=rf"another activation.*set backbone to {QUICK}\.openai\."):
            load_backbone(f"{PLAIN}.openai", 0, weights)
    with pytest.raises(UserError, match=rf"does not say with which activation.*{QUICK} if.*{PLAIN}\.\w+"):
        load_backbone(PLAIN, 0, "mine.safetensors")


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        (f"{QUICK}.openai", "pretrained"),
        (QUICK, "mine.safetensors"),
        (PLAIN, "none"),
        (f"{PLAIN}.openai", "none"),
        (f"{PLAIN}.laion2b", "mine.safetensors"),
        (f"{PLAIN}.openai_ft_in1k", "pretrained"),
        ("vit_medium_patch32_clip_224", "mine.safetensors"),
        ("resnet18", "mine.safetensors"),
    ],
)
def test_others_are_taken(name, weights):
    check_activation_of_timm(name, weights)


def test_every_clip_name_of_timm_is_taken_or_refused_in_a_sentence():
    refused = 0
    for name in timm.list_pretrained("*clip*"):
        try:
            check_activation_of_timm(name, "pretrained")
        except UserError as error:
            refused += 1
            assert str(error).rstrip(".").split()[-1] in timm.list_pretrained("*quickgelu*")
    assert refused == len(timm.list_pretrained("*_clip_quickgelu_*"))


def test_a_file_under_a_suitable_name_loads(tmp_path, monkeypatch):
    save_file({"norm.weight": torch.zeros(3)}, tmp_path / "mine.safetensors")
    # Past the check of the activation, it is the file's tensors that are looked at.
    monkeypatch.setattr(backbones, "tensors_in", lambda *_: (_ for _ in ()).throw(UserError("read")))
    with pytest.raises(UserError, match="^read$"):
        load_backbone(f"{PLAIN}.laion2b", 0, str(tmp_path / "mine.safetensors"))
