"""The section ``embedding``: the frozen network that turns images into features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fedcof.embedding.clip_names import is_open_clip
from fedcof.embedding.preprocessing import MODEL, PRESETS
from fedcof.embedding.prompts import templates
from fedcof.keys import AT_LEAST_0, AT_LEAST_1, Acts, Beside, Changes, Section, Shown, key

PRETRAINED = "pretrained"
RANDOM = "none"

NO_TRANSFORM, POWER, L2 = TRANSFORMS = ["none", "power", "l2"]

NO_PRIOR, BY_NAMES, BY_CLIP = TEXT_PRIORS = ["none", "names", "clip"]

FULL, NO_PROJECTION, ISO = CLIP_PROJECTIONS = ["full", "none", "iso"]

_BOTH = Acts.CLIENT | Acts.SERVER
_IMAGES = Beside("dataset has images", lambda run: not run.data.is_precomputed)

_CLIP = Beside("the backbone is open_clip's", lambda run: is_open_clip(run.embedding.backbone))
_ISO = Beside("clip-projection is iso", lambda run: run.embedding.clip_projection == ISO)
_NAMED = Beside("the method takes a prior", lambda run: run.method.chosen.takes_prior)
_WITH_PRIOR = Beside(
    "text-prior is not none", lambda run: run.method.chosen.takes_prior and run.embedding.has_prior
)


def place_of_weights(weights: str) -> str:
    """Give the path among the words that stand for weights; empty for the others."""
    return "" if weights in (PRETRAINED, RANDOM) else weights


@dataclass(frozen=True)
class EmbeddingSection(Section):
    """The frozen network that turns images into features; each field says what it means."""

    NAME: ClassVar[str] = "embedding"

    backbone: str = key(
        "tf_efficientnet_lite0",
        "Name of any timm model, or squeezenet1_1 or mobilenet_v2 of torchvision.",
        _BOTH,
        Changes.UPLOAD,
        beside=_IMAGES,
        shown=Shown.ALWAYS,
    )
    weights: str = key(
        PRETRAINED,
        "Weights of the backbone: pretrained, none (random), or a local file.",
        _BOTH,
        Changes.UPLOAD,
        beside=_IMAGES,
        place=place_of_weights,
    )
    image_size: int = key(
        64,
        "Height and width in pixels that the backbone sees; 0 for its own.",
        _BOTH,
        Changes.UPLOAD,
        numbers=AT_LEAST_0,
        beside=_IMAGES,
        shown=Shown.ALWAYS,
    )
    preprocessing: str = key(
        MODEL,
        "What is done to an image first: the model's own, or as for the FedCOF paper's figures on its datasets.",
        _BOTH,
        Changes.UPLOAD,
        choices=lambda: list(PRESETS),
        beside=_IMAGES,
    )
    feature_transform: str = key(
        POWER,
        "What is done to features before they are averaged: none, power (the square root, with the sign), or l2 "
        "(unit length). Fine-tuning takes the backbone's own features, and none.",
        _BOTH,
        Changes.UPLOAD,
        choices=lambda: TRANSFORMS,
        earlier=NO_TRANSFORM,
        published=NO_TRANSFORM,
    )
    clip_projection: str = key(
        FULL,
        "Which features of a CLIP tower are used: full for those after its projector, none for those before it, "
        "iso for those before it, of which the server takes what images have in common with images (IsoCLIP).",
        _BOTH,
        Changes.UPLOAD,
        choices=lambda: CLIP_PROJECTIONS,
        beside=_CLIP,
        refused_without_effect=True,
    )
    clip_cut_top: int = key(
        0,
        "How many of the directions that images and texts share most IsoCLIP leaves out; 0 in both takes what is "
        "published.",
        Acts.SERVER,
        Changes.RESULT,
        numbers=AT_LEAST_0,
        beside=_ISO,
        after_upload=True,
    )
    clip_cut_bottom: int = key(
        0,
        "How many of the directions that images and texts share least IsoCLIP leaves out.",
        Acts.SERVER,
        Changes.RESULT,
        numbers=AT_LEAST_0,
        beside=_ISO,
        after_upload=True,
    )
    text_prior: str = key(
        NO_PRIOR,
        "What is known of classes from their names: none; names for a backbone that was trained on ImageNet, read "
        "by the sentence encoder of the extra names; clip for a CLIP backbone, by its text tower.",
        Acts.SERVER,
        Changes.RESULT,
        choices=lambda: TEXT_PRIORS,
        beside=_NAMED,
        refused_without_effect=True,
        after_upload=True,
    )
    prompt: str = key(
        "a photo of a {}",
        "What is said of a class, with {} for its name; or clip-7, seven that suit CLIP models.",
        Acts.SERVER,
        Changes.RESULT,
        check=templates,
        beside=_WITH_PRIOR,
        after_upload=True,
    )
    batch_size: int = key(
        64, "Images embedded at once, and samples of a step of training.", _BOTH, Changes.RESULT, numbers=AT_LEAST_1
    )
    feature_cache: bool = key(
        True,
        "Whether features are embedded once a dataset and kept, or by each client for itself.",
        _BOTH,
        Changes.NOTHING,
        beside=_IMAGES,
    )

    @property
    def has_prior(self) -> bool:
        """Whether anything is made of class names."""
        return self.text_prior != NO_PRIOR

    def fingerprint(self, backbone: str) -> str:
        """Give the fingerprint of what makes the features: the backbone's, and the transform where there is one.

        Parameters
        ----------
        backbone : str
            The backbone's, see :class:`fedcof.embedding.backbones.Backbone`.

        Returns
        -------
        str
            Equal on two sides whose features can be averaged.
        """
        return backbone if self.feature_transform == NO_TRANSFORM else f"{backbone}-{self.feature_transform}"
