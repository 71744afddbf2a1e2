"""What is done to an image before a backbone sees it: the model's own preprocessing, or a paper's."""

from __future__ import annotations

from collections.abc import Mapping

MODEL = "model"

_IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
# The reference code of FedCOF (arXiv 2412.14326) normalises CIFAR-100 by the mean and deviation of CIFAR-10,
# whatever the backbone was trained with, and stretches images to a square or not by the dataset.
_CIFAR = {
    "mean": (0.491399689874, 0.482158419622, 0.446530924224),
    "std": (0.247032237587, 0.243485133253, 0.261587846975),
}
_STRETCHED = {"interpolation": "bilinear", "crop_mode": "squash", "crop_pct": 1.0}

PRESETS: Mapping[str, Mapping[str, object]] = {
    MODEL: {},
    "paper-cifar": {**_STRETCHED, **_CIFAR},
    "paper-square": {**_STRETCHED, **_IMAGENET},
    # The shorter side becomes 299 pixels, of which the middle 224 are taken.
    "paper-inaturalist": {"interpolation": "bilinear", "crop_mode": "center", "crop_pct": 224 / 299, **_IMAGENET},
}
