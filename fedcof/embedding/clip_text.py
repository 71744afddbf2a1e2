"""Text prototypes of classes from the text tower of a CLIP model, in the space of its projected image features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import normalize

from fedcof.embedding.clip_loading import ClipModel, holds_tower_alone, load_clip
from fedcof.embedding.clip_names import open_clip_package, without_its_logging
from fedcof.embedding.clip_of_timm import as_open_clip
from fedcof.embedding.prompts import said
from fedcof.embedding.reason import reason
from fedcof.embedding.weights import PRETRAINED
from fedcof.errors import UserError


@dataclass(frozen=True, eq=False)
class TextPrototypes:
    """What a CLIP model expects of classes by what is said of them.

    The logit of class c for an image of projected features x is ``scale * (x / |x|) . prototypes[c] + bias``.

    Attributes
    ----------
    prototypes : Tensor of shape (C, k), float32
        Unit length, in the space of projected image features.
    scale : float
        The model's logit scale, 100 for most.
    bias : float
        The model's logit bias, the same for all classes; 0 for those that have none.
    """

    prototypes: Tensor
    scale: float
    bias: float

    def logits(self, features: Tensor) -> Tensor:
        """Compare images with what is said of classes, as open_clip does.

        Parameters
        ----------
        features : Tensor of shape (n, k)
            Projected image features, of any length.

        Returns
        -------
        Tensor of shape (n, C)
            Logits.
        """
        return self.scale * normalize(features, dim=-1) @ self.prototypes.T + self.bias


def clip_text_prototypes(
    name: str, weights: str, class_names: Sequence[str], templates: Sequence[str]
) -> TextPrototypes:
    """Make text prototypes from class names, as open_clip makes its zero-shot classifiers.

    A prototype is the mean over templates of unit-length text features, scaled to unit length.

    Parameters
    ----------
    name, weights : str
        A CLIP backbone of open_clip, or one of timm's whose text tower is known; see
        :func:`fedcof.embedding.backbones.load_backbone`.
    class_names : sequence of str
        Names of the C classes; an underscore is a space.
    templates : sequence of str
        What is said of a class, with ``{}`` for its name; see :func:`fedcof.embedding.prompts.templates`.

    Returns
    -------
    TextPrototypes
        On the CPU.

    Raises
    ------
    UserError
        If open_clip is not installed, or the model, its text tower or its tokenizer cannot be had.
    """
    name = as_open_clip(name, weights)
    if holds_tower_alone(weights):
        raise UserError(
            f"The file {weights} holds an image tower without its text tower: set weights to {PRETRAINED}, or to a "
            "file or folder of the whole model."
        )
    package = open_clip_package(name)
    clip = load_clip(name, weights)
    tokenizer = _tokenizer(name, clip)
    fillers = [partial(said, template) for template in templates]
    rows = package.build_zero_shot_classifier(clip.model, tokenizer, list(class_names), fillers).T
    bias = clip.model.logit_bias
    with torch.no_grad():
        return TextPrototypes(
            prototypes=rows.to(torch.float32).contiguous(),
            scale=clip.model.logit_scale.exp().item(),  # type: ignore[operator]
            bias=0.0 if bias is None else bias.item(),  # type: ignore[operator]
        )


def _tokenizer(name: str, clip: ClipModel) -> object:
    """Get the tokenizer that belongs to a model; most have open_clip's own, which needs no network."""
    try:
        with without_its_logging():
            tokenizer: object = open_clip_package(name).get_tokenizer(clip.source)
    except Exception as error:
        raise UserError(
            f"The tokenizer of {name} cannot be had ({reason(error)}): set weights to a folder in open_clip's own "
            "format that holds the tokenizer's files too, and install transformers, which reads them."
        ) from error
    return tokenizer
