"""Export: a run's backbone and head as one model for plain timm, or for ONNX runtimes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any

import timm
import torch
from timm.models import save_for_hf
from torch import nn

from fedcof.embedding.backbones import Backbone
from fedcof.embedding.images import DECODING
from fedcof.errors import UserError, unknown_name
from fedcof.files import put_in_place, whole_file
from fedcof.heads.linear import LinearClassifier
from fedcof.run.results import RunResult
from simulations.prediction import backbone_of_run, best_run

FORMATS = ["timm", "onnx"]
ONNX_FILE_NAME = "model.onnx"

# Below any score, and a number in half precision too.
NEVER = -60000.0
LARGEST_DIFFERENCE = 1e-3


@dataclass(frozen=True)
class Exported:
    """A whole model, ready to be written.

    Attributes
    ----------
    module : Module
        Takes preprocessed images and gives scores.
    input_size : tuple of int
        Channels, height and width.
    preprocessing : dict
        Mean, standard deviation, crop and interpolation, as timm names them.
    class_names : tuple of str
        What each score is of.
    """

    module: nn.Module
    input_size: tuple[int, int, int]
    preprocessing: dict[str, Any]
    class_names: tuple[str, ...]


def export(folder: Path, file_format: str, target: Path | None = None) -> Path:
    """Write the most accurate run of a folder as one model.

    Parameters
    ----------
    folder : Path
        Output folder of a run.
    file_format : {"timm", "onnx"}
        A folder in the hub's layout, which ``timm.create_model("local-dir:FOLDER", pretrained=True)`` loads; or a
        file for ONNX runtimes, with the preprocessing and the class names in its metadata.
    target : Path, optional
        Where to write; ``timm`` or ``model.onnx`` in the folder unless given.

    Returns
    -------
    Path
        What was written.

    Raises
    ------
    UserError
        If the folder holds no run on images, its backbone takes no linear head, or a package is missing.
    """
    if file_format not in FORMATS:
        raise unknown_name("format", file_format, FORMATS)
    onnx = _onnx() if file_format == "onnx" else None
    model = _whole_model(folder, best_run(folder))
    if onnx is None:
        target = target or folder / "timm"
        return _write_timm(model, target)
    return _write_onnx(model, target or folder / ONNX_FILE_NAME, onnx)


def _onnx() -> ModuleType:
    try:
        import onnx
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UserError("Exporting to ONNX needs two more packages: pip install 'fedcof[onnx]'.") from error
    return onnx


def _whole_model(folder: Path, run: RunResult) -> Exported:
    backbone = backbone_of_run(folder, run)
    head = LinearClassifier.load(folder / run.head)
    preprocessing: dict[str, Any] = dict(backbone.preprocessing)
    input_size = preprocessing["input_size"]
    module = _with_head(backbone, head, input_size[1:])
    images = torch.randn(2, *input_size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected, found = head.scores(backbone.module(images)), module(images)
    difference = (expected - found)[:, head.present].abs().max() / expected[:, head.present].abs().max()
    if difference > LARGEST_DIFFERENCE:
        raise _no_linear_head(backbone.name)
    return Exported(module, input_size, preprocessing, head.class_names)


def _with_head(backbone: Backbone, head: LinearClassifier, size: tuple[int, int]) -> nn.Module:
    """Make timm's own model with a classifier, and put the weights of both in."""
    try:
        module = timm.create_model(backbone.name, num_classes=head.num_classes, img_size=size)
    except TypeError:
        module = timm.create_model(backbone.name, num_classes=head.num_classes)
    classifier = module.get_classifier()  # type: ignore[operator]
    if not isinstance(classifier, nn.Linear) or classifier.bias is None:
        raise _no_linear_head(backbone.name)
    if classifier.in_features != head.feature_dim:
        raise _no_linear_head(backbone.name)
    module.load_state_dict(backbone.module.state_dict(), strict=False)
    with torch.no_grad():
        classifier.weight.copy_(head.weight)
        classifier.bias.copy_(torch.where(head.present, head.bias, NEVER))
    return module.eval()


def _no_linear_head(name: str) -> UserError:
    return UserError(
        f"The backbone {name} has no single linear classifier in timm, so it cannot be exported: use the run's "
        "head.safetensors on its features."
    )


def _write_timm(model: Exported, target: Path) -> Path:
    # What timm recommends for testing its own weights would be another size or crop than the head was made for.
    untested = {"test_input_size": None, "test_crop_pct": None}
    settings = {**model.preprocessing, **untested, "num_classes": len(model.class_names)}
    config = {"pretrained_cfg": settings, "label_names": list(model.class_names), "decoding": DECODING}
    # A convolution that is laid out channels last is written as files have it.
    module = model.module.to(memory_format=torch.contiguous_format)
    target.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".unfinished-", dir=target) as unfinished:
        save_for_hf(module, unfinished, model_config=config, safe_serialization=True)
        for file in Path(unfinished).iterdir():
            put_in_place(file, target / file.name)
    return target


def _write_onnx(model: Exported, target: Path, onnx: ModuleType) -> Path:
    example = torch.zeros(2, *model.input_size)
    program = torch.onnx.export(
        model.module,
        (example,),
        input_names=["images"],
        output_names=["scores"],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        dynamo=True,
        verbose=False,
    )
    assert program is not None
    proto = program.model_proto
    described = {**model.preprocessing, "class_names": model.class_names, "decoding": DECODING}
    onnx.helper.set_model_props(proto, {key: json.dumps(value) for key, value in described.items()})
    with whole_file(target) as unfinished:
        onnx.save(proto, unfinished)
    return target
