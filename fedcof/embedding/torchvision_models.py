"""Backbones that timm lacks: two of torchvision's, with the weights that the FedCOF paper has."""

from __future__ import annotations

from collections.abc import Mapping

import torchvision
from torch import Tensor, nn

# The FedCOF paper's SqueezeNet and MobileNetV2: convolutions and a classifier on top.
TORCHVISION = ("squeezenet1_1", "mobilenet_v2")

CLASSIFIER = "classifier."
_WEIGHTS = "IMAGENET1K_V1"
_PREPROCESSING = {
    "input_size": (3, 224, 224),
    "interpolation": "bilinear",
    "mean": (0.485, 0.456, 0.406),
    "std": (0.229, 0.224, 0.225),
    "crop_pct": 224 / 256,
}


class PooledConvolutions(nn.Module):
    """The convolutions of one of torchvision's models, and the mean over what they give.

    Parameters
    ----------
    name : str
        One of :data:`TORCHVISION`; its weights are drawn at random.

    Attributes
    ----------
    pretrained_cfg : dict
        The preprocessing of its weights, where timm looks for it.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self.features = torchvision.models.get_model(name).features
        self.pretrained_cfg = dict(_PREPROCESSING)

    def forward(self, images: Tensor) -> Tensor:
        """Embed images (n, 3, height, width): shape (n, d)."""
        maps: Tensor = self.features(images)
        return maps.mean(dim=(2, 3))


def pretrained_state_dict(name: str) -> Mapping[str, Tensor]:
    """Read a model's ImageNet weights from torch's cache of them, or fetch them.

    Parameters
    ----------
    name : str
        One of :data:`TORCHVISION`.

    Returns
    -------
    mapping of str to Tensor
        The whole state dict, its classifier included.
    """
    weights = torchvision.models.get_model_weights(name)[_WEIGHTS]
    tensors: Mapping[str, Tensor] = weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
    return tensors


def without_classifier(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Leave out what is on top of the convolutions."""
    return {name: tensor for name, tensor in tensors.items() if not name.startswith(CLASSIFIER)}
