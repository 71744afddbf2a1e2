"""timm's names of CLIP image towers: which model of open_clip each is part of, and which activation it needs."""

from __future__ import annotations

from types import MappingProxyType

from fedcof.embedding.clip_names import OPEN_CLIP, is_open_clip, open_clip_package
from fedcof.embedding.light_timm import timm
from fedcof.embedding.weights import PRETRAINED, RANDOM
from fedcof.errors import UserError

_PLAIN, _QUICK = "_clip_", "_clip_quickgelu_"
# timm keeps copies of these under names of its own; of the others open_clip names timm's repository itself.
_COPIES = MappingProxyType(
    {
        "vit_base_patch32_clip_224.laion2b": "ViT-B-32/laion2b_s34b_b79k",
        "vit_base_patch16_clip_224.laion2b": "ViT-B-16/laion2b_s34b_b88k",
        "vit_large_patch14_clip_224.laion2b": "ViT-L-14/laion2b_s32b_b82k",
        "vit_huge_patch14_clip_224.laion2b": "ViT-H-14/laion2b_s32b_b79k",
        "vit_base_patch32_clip_224.datacompxl": "ViT-B-32/datacomp_xl_s13b_b90k",
        "vit_base_patch16_clip_224.datacompxl": "ViT-B-16/datacomp_xl_s13b_b90k",
        "vit_large_patch14_clip_224.datacompxl": "ViT-L-14/datacomp_xl_s13b_b90k",
    }
)


def as_open_clip(name: str, weights: str) -> str:
    """Name the model of open_clip that a backbone is the image tower of.

    Parameters
    ----------
    name, weights : str
        The backbone, see :func:`fedcof.embedding.backbones.load_backbone`.

    Returns
    -------
    str
        The name itself if it is open_clip's.

    Raises
    ------
    UserError
        If nothing tells which it is.
    """
    if is_open_clip(name):
        return name
    found = "" if weights != PRETRAINED or not timm.is_model(name) else _counterpart(name)
    if not found:
        raise UserError(
            f"Nothing tells which text tower belongs to the backbone {name} with the weights {weights}: name the "
            f"model as open_clip does, as in {OPEN_CLIP}:ViT-B-32-quickgelu."
        )
    return f"{OPEN_CLIP}:{found}"


def _counterpart(name: str) -> str:
    full = _with_weights(name)
    if full in _COPIES:
        return _COPIES[full]
    package = open_clip_package(name)
    repository = f"timm/{full.replace(_QUICK, _PLAIN)}"
    for architecture, tag in package.list_pretrained():
        settings = package.get_pretrained_cfg(architecture, tag)
        quick = bool(package.get_model_config(architecture).get("quick_gelu"))
        if settings.get("hf_hub", "").rstrip("/") == repository and quick == settings.get("quick_gelu", False):
            return f"{architecture}/{tag}"
    return ""


def check_activation_of_timm(name: str, weights: str) -> None:
    """See to it that one of timm's models computes with the activation that its weights were trained with.

    timm has OpenAI's weights, which have a sigmoid in place of GELU, under the names of both activations.

    Parameters
    ----------
    name, weights : str
        The backbone, which is one of timm's; see :func:`fedcof.embedding.backbones.load_backbone`.

    Raises
    ------
    UserError
        If the weights belong to the model of the other activation, or are a file and the name does not say which.
    """
    other = name.partition(".")[0].replace(_PLAIN, _QUICK)
    if _PLAIN not in name or _QUICK in name or weights == RANDOM or not timm.is_model(other):
        return
    if weights != PRETRAINED and "." not in name:
        example = next((known for known in timm.list_pretrained(f"{name}.*") if not _needs_other(known)), name)
        raise UserError(
            f"The file {weights} does not say with which activation its weights were trained: set backbone to "
            f"{other} if with QuickGELU, as OpenAI's were, or else say whose they are, as in {example}."
        )
    full = _with_weights(name)
    if _needs_other(full):
        raise UserError(
            f"The weights {full.partition('.')[2]} of {name.partition('.')[0]} were trained with another "
            f"activation, QuickGELU, and would give other features: set backbone to {full.replace(_PLAIN, _QUICK)}."
        )


def _needs_other(full: str) -> bool:
    quick = full.replace(_PLAIN, _QUICK)
    return quick in timm.list_pretrained(f"{quick.partition('.')[0]}.*")


def _with_weights(name: str) -> str:
    """Say which weights timm takes for a name."""
    config = timm.get_pretrained_cfg(name)
    tag = config.tag if config is not None else ""
    return f"{name.partition('.')[0]}.{tag}" if tag else name
