"""The classifier of ImageNet's classes that a backbone was trained with, and the names of these classes."""

from __future__ import annotations

from pathlib import Path

import torch
from timm.data.imagenet_info import ImageNetInfo
from torch import Tensor

from fedcof.embedding.backbones import PACKAGED, packaged_state_dict, tensors_in, with_hub_weights
from fedcof.embedding.clip_names import is_open_clip
from fedcof.embedding.light_timm import timm
from fedcof.embedding.torchvision_models import TORCHVISION
from fedcof.embedding.weights import PRETRAINED, RANDOM
from fedcof.errors import UserError


def imagenet_head(name: str, weights: str = PRETRAINED) -> Tensor:
    """Read the classifier that a backbone was trained with.

    Parameters
    ----------
    name, weights : str
        See :func:`fedcof.embedding.backbones.load_backbone`.

    Returns
    -------
    Tensor of shape (classes, d), float32
        One row for each of the classes that it was trained on.

    Raises
    ------
    UserError
        If there is none: the weights are random, or hold no linear classifier.
    """
    missing = UserError(
        f"The weights {weights} of {name} hold no classifier of the images that it was trained on, which tells how "
        "class names lie in its features: set text-prior to none, or weights to pretrained."
    )
    if weights == RANDOM or name in TORCHVISION or is_open_clip(name):
        raise missing
    model = timm.create_model(name)
    layer = model.pretrained_cfg.get("classifier")  # type: ignore[union-attr,operator]
    if not isinstance(layer, str):
        raise missing
    if weights != PRETRAINED:
        tensors = dict(tensors_in(name, Path(weights).expanduser()))
    elif name == PACKAGED:
        tensors = packaged_state_dict(model)
    else:
        whole = with_hub_weights(name, 0, num_classes=int(model.num_classes))  # type: ignore[arg-type]
        tensors = whole.state_dict()
    rows = tensors.get(f"{layer}.weight")
    if rows is None or rows.dim() != 2:
        raise missing
    return rows.to(torch.float32)


def imagenet_names() -> list[str]:
    """Name ImageNet's 1,000 classes in the order of a head's rows, by the first of several words for each."""
    info = ImageNetInfo("imagenet-1k")
    return [info.index_to_description(row).partition(",")[0] for row in range(1000)]
