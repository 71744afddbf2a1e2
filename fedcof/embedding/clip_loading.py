"""Models of open_clip with their weights: from the hub, from a file, or from a folder in open_clip's own format."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from huggingface_hub import HfApi, try_to_load_from_cache
from safetensors import safe_open
from torch import nn

from fedcof.embedding.clip_names import (
    OPEN_CLIP,
    ClipName,
    check_activation,
    checked_name,
    open_clip_package,
    suitable_tags,
    without_its_logging,
)
from fedcof.embedding.reason import reason, unsuitable_size
from fedcof.embedding.weights import PRETRAINED, RANDOM
from fedcof.errors import UserError

HUB_TIMEOUT_SECONDS = 5
CONFIG_FILE_NAME = "open_clip_config.json"

_PREPROCESSING = ("mean", "std", "interpolation", "resize_mode")
# What training alone makes use of, or what only says where weights come from.
_WITHOUT_EFFECT = ("timm_model_pretrained", "timm_drop", "timm_drop_path", "patch_dropout")
_WHOLE = "logit_scale"

Config = Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class ClipModel:
    """A model of open_clip.

    Attributes
    ----------
    model : Module
        Both towers, in evaluation mode on the CPU, without gradients.
    source : str
        The name under which open_clip knows it, which gives its tokenizer, too.
    image_side : dict
        What says how its image tower computes, beside the weights: what differs from open_clip's defaults.
    """

    model: nn.Module
    source: str
    image_side: dict[str, object]


def load_clip(name: str, weights: str = PRETRAINED, image_size: int = 0) -> ClipModel:
    """Load both towers of a model.

    Parameters
    ----------
    name : str
        ``open_clip:NAME`` or ``open_clip:NAME/TAG``; ``open_clip`` alone is the model that a folder describes.
        Without a tag, the first of open_clip's for that name.
    weights : str
        ``pretrained``, ``none`` (random, but the same in every process), the path of a file, or of a folder in
        open_clip's own format (``open_clip_config.json`` and weights). For a file, the tag says how its weights
        were trained; a folder says it itself.
    image_size : int
        Height and width in pixels; 0 for the model's own.

    Returns
    -------
    ClipModel
        In float32.

    Raises
    ------
    UserError
        If open_clip is not installed or knows no such model, its weights cannot be had, they belong to another
        model or need another activation than this one has, or the image size does not suit it.
    """
    package = open_clip_package(name)
    chosen = checked_name(package, name)
    place = None if weights in (PRETRAINED, RANDOM) else Path(weights).expanduser().resolve()
    if place is not None and place.is_dir():
        source, path = f"local-dir:{place}", None
        _check_folder(package, chosen, place)
        settings = None
    else:
        if not chosen.architecture:
            raise UserError(
                f"The backbone {OPEN_CLIP} alone is the model that a folder describes: set weights to a folder "
                f"with {CONFIG_FILE_NAME}, or name one of open_clip's models, as in {OPEN_CLIP}:ViT-B-32-quickgelu."
            )
        source = chosen.architecture
        path = _file_of(package, chosen, name, weights, place)
        settings = _preprocessing(package, chosen)
    options = {
        "pretrained": path,
        "load_weights": weights != RANDOM,
        "require_pretrained": weights != RANDOM,
        "pretrained_text": False,
        "force_preprocess_cfg": settings,
    }
    model = _create(package, name, source, weights, image_size, options)
    return ClipModel(model, source, _image_side(package, package.get_model_config(source)))


def holds_tower_alone(weights: str) -> bool:
    """Whether weights are a file of an image tower without its text tower, as fine-tuning leaves one."""
    if weights in (PRETRAINED, RANDOM):
        return False
    path = Path(weights).expanduser()
    return path.is_file() and path.suffix == ".safetensors" and _WHOLE not in _names_in(path)


def unsuitable_weights(name: str, weights: str, error: Exception) -> UserError:
    """Make the error for weights that are not those of a model."""
    return UserError(
        f"The weights {weights} are not those of {name} ({reason(error)}): set weights to a file or folder of that "
        "model as open_clip saves it."
    )


def _create(
    package: ModuleType, name: str, source: str, weights: str, image_size: int, options: Mapping[str, object]
) -> nn.Module:
    def create(size: int) -> nn.Module:
        with without_its_logging(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            made: nn.Module = package.create_model(source, force_image_size=size or None, **options)
        return made

    try:
        model = create(image_size)
    except Exception as error:
        if image_size and _succeeds(create):
            raise unsuitable_size(name, image_size, reason(error)) from error
        raise unsuitable_weights(name, weights, error) from error
    patches: tuple[int, ...] = getattr(model.visual, "patch_size", ())
    if image_size and any(image_size % side for side in patches):
        raise unsuitable_size(name, image_size, f"it is no multiple of its patches of {patches[0]} pixels")
    return model.eval().requires_grad_(False)


def _succeeds(create: Callable[[int], nn.Module]) -> bool:
    try:
        create(0)
    except Exception:
        return False
    return True


def _file_of(package: ModuleType, chosen: ClipName, name: str, weights: str, place: Path | None) -> str | None:
    """Find the file of a model's weights; None for random ones."""
    if weights == RANDOM:
        return None
    if place is not None:
        if not place.is_file():
            raise UserError(
                f"There are no weights at {place}: set weights to {PRETRAINED}, {RANDOM}, a file or a folder."
            )
        check_activation(package, chosen, chosen.tag or _only_kind_of_weights(package, chosen, place))
        return str(place)
    tag = chosen.tag or _first_tag(package, chosen)
    if not tag:
        raise UserError(
            f"The backbone {name} has no pre-trained weights: set weights to a local file or to {RANDOM}."
        )
    check_activation(package, chosen, tag)
    return _hub_file(package, name, package.get_pretrained_cfg(chosen.architecture, tag))


def _first_tag(package: ModuleType, chosen: ClipName) -> str:
    tags = package.list_pretrained_tags_by_model(chosen.architecture)
    return str(tags[0]) if tags else ""


def _only_kind_of_weights(package: ModuleType, chosen: ClipName, place: Path) -> str:
    """Give a tag for a file of unknown origin; refuse it where weights of the name differ in how they are used.

    A file tells neither the activation that its weights were trained with nor the images' mean and deviation.
    """
    tags = package.list_pretrained_tags_by_model(chosen.architecture)
    known = [package.get_pretrained_cfg(chosen.architecture, tag) for tag in tags]
    kinds = {str([settings.get(key) for key in ("quick_gelu", *_PREPROCESSING)]) for settings in known}
    if len(kinds) > 1:
        own = [*suitable_tags(package, chosen.architecture), "TAG"][0]
        raise UserError(
            f"The file {place} does not say how its weights were trained, and those of {chosen.architecture} "
            f"differ in the activation or in what is done to images: say whose they are, as in "
            f"{OPEN_CLIP}:{chosen.architecture}/{own}, name the variant {chosen.architecture}-quickgelu for "
            f"OpenAI's, or set weights to a folder with {CONFIG_FILE_NAME}."
        )
    return _first_tag(package, chosen)


def _hub_file(package: ModuleType, name: str, settings: Config) -> str:
    """Find weights on this machine or fetch them.

    It looks for the weights before open_clip does, because without a network its own search takes long to fail.
    """
    repository, _, file = settings.get("hf_hub", "").rpartition("/")
    safe, usual = "open_clip_model.safetensors", "open_clip_pytorch_model.bin"
    names = (Path(file).with_suffix(".safetensors").name, file) if file else (safe, usual)
    try:
        if repository:
            found = [try_to_load_from_cache(repository, candidate) for candidate in names]
            cached = [path for path in found if isinstance(path, str)]
            if cached:
                return cached[0]
            HfApi().model_info(repository, timeout=HUB_TIMEOUT_SECONDS)
        with without_its_logging():
            return str(package.download_pretrained(settings))
    except Exception as error:
        raise UserError(
            f"The weights of {name} could not be fetched from the hub ({reason(error)}): connect to it, or set "
            "weights to a local file or to a folder in open_clip's own format."
        ) from error


def _preprocessing(package: ModuleType, chosen: ClipName) -> dict[str, object]:
    """Give what the preprocessing of a model's weights has beside open_clip's defaults."""
    tag = chosen.tag or _first_tag(package, chosen)
    settings = package.get_pretrained_cfg(chosen.architecture, tag)
    return {key: settings[key] for key in _PREPROCESSING if key in settings}


def _check_folder(package: ModuleType, chosen: ClipName, folder: Path) -> None:
    if not (folder / CONFIG_FILE_NAME).is_file():
        raise UserError(
            f"The folder {folder} has no {CONFIG_FILE_NAME}: set weights to a folder in open_clip's own format, or "
            "to the file itself."
        )
    try:
        described = _image_side(package, package.get_model_config(f"local-dir:{folder}"))
    except Exception as error:
        raise UserError(
            f"The file {folder / CONFIG_FILE_NAME} describes no model of open_clip ({reason(error)}): copy the "
            "folder anew."
        ) from error
    if not chosen.architecture:
        return
    own = _image_side(package, package.get_model_config(chosen.architecture))
    differing = sorted(key for key in own.keys() | described.keys() if own.get(key) != described.get(key))
    if differing:
        raise UserError(
            f"The folder {folder} describes another model than {chosen.architecture} ({', '.join(differing)} "
            f"differ): set backbone to {OPEN_CLIP} for the model that it describes."
        )


def _image_side(package: ModuleType, config: Config) -> dict[str, object]:
    """List what differs from open_clip's defaults, so that an explicit default makes no difference."""
    defaults = package.CLIPVisionCfg()
    vision = {
        key: list(value) if isinstance(value, tuple) else value
        for key, value in config["vision_cfg"].items()
        if key not in _WITHOUT_EFFECT and value != getattr(defaults, key)
    }
    if config.get("quick_gelu") and "timm_model_name" not in vision:
        vision["quick_gelu"] = True
    return {**vision, "embed_dim": config["embed_dim"]}


def _names_in(path: Path) -> list[str]:
    try:
        with safe_open(str(path), "pt") as tensors:
            return list(tensors.keys())
    except Exception:
        return [_WHOLE]
