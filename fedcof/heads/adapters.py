r"""Adapters of low rank: what a frozen backbone's linear layers and 1 x 1 convolutions learn beside their weights.

LoRA (Hu et al., arXiv 2106.09685, section 4.1). A weight W of shape (m, n) is frozen, and in its place stands

.. math:: W + \frac{\alpha}{r} B A

where A (r, n) begins as torch draws the weights of a linear layer and B (m, r) as zeros, so that training starts
from the frozen backbone. Of (r, n) and (m, r) numbers a layer has a few per cent of those of its (m, n).

These are a few lines of our own, because peft takes transformers and accelerate along, and wraps modules so that
they lose the names by which timm's weights are kept, exported and loaded. What is replaced is a layer's weight and
not its forward: timm's BEiT and EVA, weight-standardised convolutions and torch's MultiheadAttention use the weight
without calling the layer, and would pass over another forward in silence. It also makes what is exported compute
the same as what was trained.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from fedcof.errors import UserError
from fedcof.heads.adapter_options import AdapterOptions
from fedcof.merging.matrices import ADAPTER_A

# Blocks of transformers, and of ConvNeXt; then inverted bottlenecks, without their depthwise convolutions, which
# have few weights, and without squeeze-and-excitation. What has neither is adapted everywhere.
SUITABLE = (
    r"(.*\.)?blocks\.\d+\.(attn\.(qkv|proj)|mlp\.fc[12])",
    r"(.*\.)?(conv_pwl?|pw_(exp|proj)\.conv)",
    r".*",
)

_EXAMPLES = 3
_WEIGHT = "weight"
_WITHIN = f".parametrizations.{_WEIGHT}.0."


class LowRank(nn.Module):
    """Makes the adapted weight of a frozen one.

    Parameters
    ----------
    weight : Tensor of shape (m, n) or (m, n, 1, 1)
        Of a linear layer or a 1 x 1 convolution.
    options : AdapterOptions
        Rank and scaling.
    generator : Generator
        Draws A.
    """

    def __init__(self, weight: Tensor, options: AdapterOptions, generator: torch.Generator) -> None:
        super().__init__()
        outputs, inputs = weight.shape[:2]
        rank, bound = min(options.rank, outputs, inputs), inputs**-0.5
        self.scaling = options.scaling
        self.lora_a = nn.Parameter(torch.empty(rank, inputs).uniform_(-bound, bound, generator=generator))
        self.lora_b = nn.Parameter(torch.zeros(outputs, rank))

    def forward(self, weight: Tensor) -> Tensor:
        """Give W + scaling * B A, in float32 whatever the layers compute in."""
        with torch.autocast(weight.device.type, enabled=False):
            return weight + self.scaling * (self.lora_b @ self.lora_a).view_as(weight)


def adapted(backbone: nn.Module, options: AdapterOptions) -> nn.Module:
    """Freeze a backbone and give it adapters.

    Parameters
    ----------
    backbone : Module
        Is changed.
    options : AdapterOptions
        Which.

    Returns
    -------
    Module
        The same, with the same features; nothing but its adapters trains.

    Raises
    ------
    UserError
        If it has no layer that could be adapted, or none of such a name.
    """
    backbone.requires_grad_(False)
    generator = torch.Generator().manual_seed(options.seed)
    for name in adapted_layers(backbone, options.layers):
        layer = backbone.get_submodule(name)
        parametrize.register_parametrization(
            layer, _WEIGHT, LowRank(layer.get_parameter(_WEIGHT), options, generator)
        )
    return backbone


def adapted_layers(backbone: nn.Module, pattern: str = "") -> list[str]:
    """List the layers of a backbone that get adapters.

    Parameters
    ----------
    backbone : Module
        Without adapters.
    pattern : str
        See :attr:`AdapterOptions.layers`.

    Returns
    -------
    list of str
        Names of modules, at least one, in the backbone's order.

    Raises
    ------
    UserError
        If it has no layer that could be adapted, or none of such a name.
    """
    names = [name for name, module in backbone.named_modules() if _is_adaptable(module)]
    if not names:
        raise UserError(
            "The backbone has no linear layer and no 1 x 1 convolution that could be adapted: set continue to "
            "fine-tune or linear-probe."
        )
    found = ([name for name in names if re.fullmatch(each, name)] for each in ([pattern] if pattern else SUITABLE))
    chosen = next(filter(None, found), [])
    if not chosen:
        examples = ", ".join(names[:: max(1, len(names) // _EXAMPLES)][:_EXAMPLES])
        raise UserError(
            f"No layer that could be adapted has a name that matches adapter-layers, {pattern[:80]!r}: write a "
            f"regular expression for whole names, of which this backbone has {examples}, or leave it empty."
        )
    return chosen


def merged(backbone: nn.Module) -> nn.Module:
    """Copy a backbone with its adapters within its weights.

    Parameters
    ----------
    backbone : Module
        Of :func:`adapted`, or any other.

    Returns
    -------
    Module
        As it was before it had adapters, with other weights.
    """
    plain = copy.deepcopy(backbone)
    for layer in list(plain.modules()):
        if _is_adapted(layer):
            weight: Tensor = getattr(layer, _WEIGHT).detach()
            # Not by torch's remove_parametrizations: the copy shares its class with what was copied, which would
            # lose its weight.
            layer.__class__ = type(layer).__bases__[0]
            del layer.parametrizations
            layer.register_parameter(_WEIGHT, nn.Parameter(weight, requires_grad=False))
    return plain


def travelling_name(parameter: str) -> str:
    """Name an adapter's parameter after the layer it belongs to; any other as it is."""
    return parameter.replace(_WITHIN, ".")


def layers_of(arrays: Iterable[str], prefix: str) -> str:
    """Find which layers are adapted in a network that has been sent.

    A client goes by that and not by what was written about it: an expression of somebody else's can take for ever.

    Parameters
    ----------
    arrays : iterable of str
        Names of a network's arrays.
    prefix : str
        What a backbone's begin with.

    Returns
    -------
    str
        See :attr:`AdapterOptions.layers`; it matches these layers alone.
    """
    named = [name for name in arrays if name.startswith(prefix) and name.endswith(ADAPTER_A)]
    return "|".join(re.escape(name.removeprefix(prefix).removesuffix(ADAPTER_A)) for name in named)


def _is_adaptable(module: nn.Module) -> bool:
    # A weight that is made of others by something else is no parameter of the module's own.
    if not isinstance(module._parameters.get(_WEIGHT), nn.Parameter):
        return False
    if isinstance(module, nn.Conv2d):
        return module.kernel_size == (1, 1) and module.groups == 1
    return isinstance(module, nn.Linear)


def _is_adapted(layer: nn.Module) -> bool:
    if not parametrize.is_parametrized(layer, _WEIGHT):
        return False
    return isinstance(layer.parametrizations[_WEIGHT][0], LowRank)  # type: ignore[index]
