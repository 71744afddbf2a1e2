"""A head, and a backbone where it trains too, as the network that training changes."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from fedcof.errors import UserError
from fedcof.heads.adapter_options import AdapterOptions
from fedcof.heads.adapters import adapted, merged, travelling_name
from fedcof.heads.linear import LinearClassifier

BACKBONE_PREFIX = "backbone."


class Network(nn.Module):
    """A backbone with a linear head on top; all its parameters train, or of the backbone its adapters alone.

    Parameters
    ----------
    num_classes, feature_dim : int
        Size of the head.
    backbone : Module, optional
        Gives (n, d) features. It is copied. Without one the network takes features.
    adapters : AdapterOptions, optional
        What trains beside the frozen backbone; without them the backbone trains.

    Raises
    ------
    UserError
        If the backbone has no layer that could be adapted, or none of such a name.
    """

    def __init__(
        self,
        num_classes: int,
        feature_dim: int,
        backbone: nn.Module | None = None,
        adapters: AdapterOptions | None = None,
    ) -> None:
        super().__init__()
        own = nn.Identity() if backbone is None else copy.deepcopy(backbone)
        self.backbone = adapted(own, adapters) if adapters else own.requires_grad_(True)
        # Drawing weights here would move everybody's random numbers on.
        self.head = nn.utils.skip_init(nn.Linear, feature_dim, num_classes)  # type: ignore[no-untyped-call]

    def forward(self, inputs: Tensor) -> Tensor:
        """Give the logits (n, C) of images (n, 3, height, width), or of features (n, d)."""
        logits: Tensor = self.head(self.backbone(inputs))
        return logits

    def train(self, mode: bool = True) -> Self:
        """Set the training mode, except that of batch norms.

        Their statistics stay those of the pre-training: a client's batches have few classes, and the average of
        clients' variances is not the variance of all their samples.
        """
        super().train(mode)
        for module in self.modules():
            if isinstance(module, _BatchNorm):
                module.eval()
        return self

    def draw_head(self, seed: int) -> Self:
        """Draw a head as torch draws its linear layers.

        Parameters
        ----------
        seed : int
            Seed of the drawing.

        Returns
        -------
        Network
            Itself.
        """
        bound = self.head.in_features**-0.5
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            self.head.weight.uniform_(-bound, bound, generator=generator)
            self.head.bias.uniform_(-bound, bound, generator=generator)
        return self

    def set_head(self, classifier: LinearClassifier) -> Self:
        """Take a classifier as the head.

        Parameters
        ----------
        classifier : LinearClassifier
            Of the network's size.

        Returns
        -------
        Network
            Itself.
        """
        with torch.no_grad():
            self.head.weight.copy_(classifier.weight)
            self.head.bias.copy_(classifier.bias)
        return self

    def classifier(self, present: Tensor, class_names: tuple[str, ...] = ()) -> LinearClassifier:
        """Give the head as a classifier.

        Parameters
        ----------
        present : Tensor of shape (C,), bool
            Which classes somebody has.
        class_names : tuple of str
            Names of the classes, or empty.

        Returns
        -------
        LinearClassifier
            A copy.
        """
        weight, bias = self.head.weight.detach().clone(), self.head.bias.detach().clone()
        return LinearClassifier(weight.cpu(), bias.cpu(), present, class_names)

    def to_arrays(self) -> dict[str, NDArray[np.float32]]:
        """Give everything that trains.

        Returns
        -------
        dict of str to ndarray
            ``head.weight`` (C, d) and ``head.bias`` (C,), and the backbone's parameters as ``backbone.NAME``, or
            its adapters alone: ``backbone.LAYER.lora_a`` (r, n) and ``backbone.LAYER.lora_b`` (m, r); float32.
            Batch norms' statistics are not among them, because they do not change.
        """
        # A tensor that is laid out channels last has to be laid out as arrays are.
        return {
            name: np.ascontiguousarray(tensor.detach().cpu().numpy()) for name, tensor in self._trained().items()
        }

    def load_arrays(self, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """Take everything that trains.

        Parameters
        ----------
        arrays : mapping of str to ndarray
            As :meth:`to_arrays` gives them.

        Returns
        -------
        Network
            Itself.

        Raises
        ------
        UserError
            If a name or a shape is another than this network's.
        """
        parameters = self._trained()
        shapes = {name: tuple(tensor.shape) for name, tensor in parameters.items()}
        check_shapes(arrays, shapes)
        with torch.no_grad():
            for name, tensor in parameters.items():
                tensor.copy_(torch.from_numpy(np.asarray(arrays[name])))
        return self

    def plain_backbone(self) -> nn.Module:
        """Copy the backbone with what it has learnt in its own weights.

        Returns
        -------
        Module
            Of the class and the names of the one that the network was made of, without adapters.
        """
        return merged(self.backbone)

    def _trained(self) -> dict[str, nn.Parameter]:
        named = self.named_parameters()
        return {travelling_name(name): parameter for name, parameter in named if parameter.requires_grad}


def check_shapes(arrays: Mapping[str, NDArray[Any]], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Check that arrays are a network's.

    Parameters
    ----------
    arrays : mapping of str to ndarray
        What came.
    shapes : mapping of str to tuple of int
        What the network has.

    Raises
    ------
    UserError
        If they have other names or shapes.
    """
    for name in [*shapes, *arrays]:
        found = arrays[name].shape if name in arrays else "missing"
        expected = shapes.get(name, "no such array")
        if found != expected:
            raise UserError(
                f"The array {name} is {found}, but the network has {expected}: use the same backbone and dataset "
                "on both sides."
            )
