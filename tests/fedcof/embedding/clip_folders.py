"""Small CLIP models in open_clip's own local format, as tests need them."""

import json

import torch
from safetensors.torch import save_file

TEXT = {"context_length": 12, "vocab_size": 49408, "width": 24, "heads": 2, "layers": 1}
VIT = {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 16}
CONV = {"timm_model_name": "test_efficientnet", "timm_pool": "", "timm_proj": "linear", "image_size": 64}
OWN_HEAD = {"timm_model_name": "test_vit", "timm_pool": "token", "timm_proj": None, "image_size": 160}
RESNET = {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "patch_size": None}
TOWERS = {
    "vit": {"vision_cfg": VIT},
    "vit-quickgelu": {"vision_cfg": VIT, "quick_gelu": True},
    "vit-custom-text": {"vision_cfg": VIT, "custom_text": True},
    "vit-bias": {"vision_cfg": VIT, "init_logit_bias": -10.0},
    "timm": {"vision_cfg": CONV},
    "timm-head": {"vision_cfg": OWN_HEAD, "custom_text": True},
    "resnet": {"vision_cfg": RESNET},
}


def write_clip(folder, tower="vit", preprocess=None, text=None, **changes):
    """Write a model with random weights into a folder, and give the path of the folder."""
    import open_clip

    described = {"embed_dim": 16, "text_cfg": {**TEXT, **(text or {})}, **TOWERS[tower], **changes}
    folder.mkdir(parents=True, exist_ok=True)
    config = {"model_cfg": described, "preprocess_cfg": preprocess or {}}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = open_clip.create_model(f"local-dir:{folder}")
        # What begins as zeros or ones would hide that it is missing.
        for tensor in model.parameters():
            tensor.data += 0.02 * torch.randn_like(tensor)
        if getattr(model.visual, "trunk", None) is not None and not len(model.visual.head):
            model.visual.trunk.get_classifier().bias.data.zero_()
    tensors = {key: tensor.contiguous() for key, tensor in model.state_dict().items()}
    save_file(tensors, folder / "open_clip_model.safetensors")
    return str(folder)


def of_open_clip(folder):
    """Load a folder with open_clip itself: the model, and its evaluation preprocessing."""
    import open_clip

    model, transform = open_clip.create_model_from_pretrained(f"local-dir:{folder}")
    return model.eval(), transform


def known_to_open_clip(monkeypatch, folder, name="Tiny", tags=None, **changes):
    """Make open_clip know a folder's model by a name, and weights of it by tags."""
    import open_clip

    described = json.loads((folder / "open_clip_config.json").read_text())["model_cfg"]
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, name, {**described, **changes})
    settings = open_clip.pretrained._pcfg
    known = {tag: settings(**own) for tag, own in (tags or {}).items()}
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, name, known)
