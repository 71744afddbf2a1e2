"""CLIP's image towers as backbones, and the linear projectors that end both towers."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

from fedcof.embedding.clip_loading import holds_tower_alone, load_clip, unsuitable_weights
from fedcof.embedding.clip_names import open_clip_package
from fedcof.embedding.clip_of_timm import as_open_clip
from fedcof.embedding.weights import PRETRAINED, RANDOM
from fedcof.errors import UserError

# How timm calls what open_clip does to images that are no squares.
_CROP_MODES = {"shortest": "center", "longest": "border", "squash": "squash"}


@dataclass(frozen=True, eq=False)
class ImageTower:
    """A CLIP image tower and what belongs to it.

    Attributes
    ----------
    module : Module
        Takes (n, 3, height, width) float32 and gives (n, d) float32; in evaluation mode, without gradients.
    transform : callable
        open_clip's own evaluation preprocessing: an image to a (3, height, width) float32 tensor.
    preprocessing : dict
        What the transform does, as timm names it.
    described : str
        What decides the features beside the weights and the preprocessing.
    """

    module: nn.Module
    transform: Callable[[Image.Image], Tensor]
    preprocessing: dict[str, object]
    described: str


@dataclass(frozen=True, eq=False)
class Projectors:
    """The matrices that end a CLIP model's towers; rows of features are multiplied by them from the right.

    Attributes
    ----------
    image : Tensor of shape (d, k), float32
        ``model.visual.proj`` of open_clip: (768, 512) for ViT-B/32.
    text : Tensor of shape (w, k), float32
        ``model.text_projection`` of open_clip: (512, 512) for ViT-B/32.
    """

    image: Tensor
    text: Tensor


def image_tower(name: str, image_size: int = 0, weights: str = PRETRAINED, projected: bool = True) -> ImageTower:
    """Load the image tower of a CLIP model.

    Images are prepared as open_clip does it, which has no margin around the crop where timm has one of a tenth for
    some of the same weights.

    Parameters
    ----------
    name, weights : str
        See :func:`fedcof.embedding.clip_loading.load_clip`. A file may also hold the image tower alone, as a
        fine-tuned backbone's does.
    image_size : int
        Height and width in pixels; 0 for the model's own. Position embeddings are resampled.
    projected : bool
        Whether features are those after the projector, in the space of texts; otherwise they are those before it,
        which :func:`clip_projectors` takes there.

    Returns
    -------
    ImageTower
        On the CPU.

    Raises
    ------
    UserError
        If the model cannot be had, or has no linear projector that could be left out.
    """
    alone = holds_tower_alone(weights)
    clip = load_clip(name, RANDOM if alone else weights, image_size)
    visual: nn.Module = clip.model.visual  # type: ignore[assignment]
    if hasattr(visual, "output_tokens"):
        visual.output_tokens = False  # type: ignore[assignment]
    settings: dict[str, Any] = visual.preprocess_cfg  # type: ignore[assignment]
    if not projected:
        _split(visual, name)
    if alone:
        _load_tower(visual, name, weights)
    described = {**clip.image_side, "projected": projected, "fill": settings["fill_color"]}
    return ImageTower(
        module=visual,
        transform=_transform(name, settings),
        preprocessing=_as_timm_names_it(settings),
        described=json.dumps(described, sort_keys=True),
    )


def clip_projectors(name: str, weights: str = PRETRAINED) -> Projectors:
    """Read the projectors that end both towers of a CLIP model.

    Parameters
    ----------
    name, weights : str
        See :func:`fedcof.embedding.clip_loading.load_clip`; also one of timm's CLIP backbones, whose features are
        always those before the projector.

    Returns
    -------
    Projectors
        Of features before the image projector, and of texts before theirs.

    Raises
    ------
    UserError
        If the model cannot be had, or a tower does not end in a linear projector.
    """
    name = as_open_clip(name, weights)
    model = load_clip(name, weights).model
    return Projectors(_split(model.visual, name), _text_projector(model, name))  # type: ignore[arg-type]


def _split(visual: nn.Module, name: str) -> Tensor:
    """Take the projector off an image tower, which then gives features before it: shape (d, k)."""
    own, head, trunk = (getattr(visual, part, None) for part in ("proj", "head", "trunk"))
    if isinstance(own, nn.Parameter):
        visual.proj = None  # type: ignore[assignment]
        return own.detach().clone()
    if isinstance(getattr(head, "proj", None), nn.Linear):
        visual.head = nn.Identity()
        return _matrix(head.proj, name)  # type: ignore[union-attr]
    last = trunk.get_classifier() if trunk is not None and not len(head or ()) else None
    if isinstance(last, nn.Linear) and last.out_features > 0:
        trunk.reset_classifier(0)  # type: ignore[union-attr]
        return _matrix(last, name)
    raise _no_projector(name)


def _text_projector(model: nn.Module, name: str) -> Tensor:
    tower = getattr(model, "text", model)
    for projection in (getattr(tower, part, None) for part in ("text_projection", "proj")):
        if isinstance(projection, nn.Parameter):
            return projection.detach().clone()
        if isinstance(projection, nn.Linear):
            return _matrix(projection, name)
    raise _no_projector(name)


def _matrix(layer: nn.Linear, name: str) -> Tensor:
    if layer.bias is not None and layer.bias.count_nonzero():
        raise _no_projector(name)
    return layer.weight.detach().T.contiguous()


def _no_projector(name: str) -> UserError:
    return UserError(
        f"The towers of {name} do not both end in a linear projector, which is what tells the directions that "
        "images share with texts: set clip-projection to none, or choose a model that has one, such as "
        "OpenAI's ViTs."
    )


def _load_tower(visual: nn.Module, name: str, weights: str) -> None:
    try:
        visual.load_state_dict(load_file(Path(weights).expanduser()), strict=True)
    except Exception as error:
        raise unsuitable_weights(name, weights, error) from error


def _transform(name: str, settings: Mapping[str, Any]) -> Callable[[Image.Image], Tensor]:
    options = {key: settings[key] for key in ("mean", "std", "resize_mode", "interpolation", "fill_color")}
    made: Callable[[Image.Image], Tensor] = open_clip_package(name).image_transform(
        settings["size"], is_train=False, **options
    )
    return made


def _as_timm_names_it(settings: Mapping[str, Any]) -> dict[str, object]:
    size = settings["size"]
    height, width = (size, size) if isinstance(size, int) else size
    bilinear = settings["interpolation"] == "bilinear"
    return {
        "input_size": (3, height, width),
        "interpolation": "bilinear" if bilinear else "bicubic",
        "mean": tuple(settings["mean"]),
        "std": tuple(settings["std"]),
        "crop_pct": 1.0,
        "crop_mode": _CROP_MODES[settings["resize_mode"]],
    }
