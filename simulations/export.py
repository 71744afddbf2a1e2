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
from fedcof.embedding.clip_names import is_open_clip
from fedcof.embedding.images import DECODING
from fedcof.embedding.section import NO_TRANSFORM
from fedcof.embedding.torchvision_models import TORCHVISION
from fedcof.embedding.transform import FeatureTransform
from fedcof.errors import UserError, unknown_name
from fedcof.files import put_in_place, whole_file
from fedcof.heads.linear import LinearClassifier
from fedcof.heads.module import ClassifierModule
from fedcof.run.config import RunConfig
from fedcof.run.results import RunResult
from simulations.narrowing import NOTHING, Narrowing
from simulations.prediction import backbone_of_run, best_run

FORMATS = ["timm", "onnx"]
ONNX_FILE_NAME = "model.onnx"

# Below any score, and a number in half precision too.
NEVER = -60000.0
# A quadratic score may be lower than that.
LOWEST = -1e30
HEAD_PROGRAM_NAME = "head.pt2"
LARGEST_DIFFERENCE = 1e-3


@dataclass(frozen=True)
class Exported:
    """A whole model, ready to be written.

    Attributes
    ----------
    module : Module
        Takes preprocessed images and gives scores.
    backbone, head : Module or None
        The two parts of it, where timm's own model has no place for such a head: the first is timm's and gives
        features, the second takes them. None where the module is timm's model as a whole.
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
    backbone: nn.Module | None = None
    head: nn.Module | None = None


def export(folder: Path, file_format: str, target: Path | None = None, known: Narrowing = NOTHING) -> Path:
    """Write the most accurate run of a folder as one model.

    Parameters
    ----------
    folder : Path
        Output folder of a run.
    file_format : {"timm", "onnx"}
        A folder in the hub's layout, which ``timm.create_model("local-dir:FOLDER", pretrained=True)`` loads; or a
        file for ONNX runtimes, with the preprocessing and the class names in its metadata. Where the head is more
        than timm's linear layer, because it is quadratic or features are transformed, timm's model gives features,
        and ``head.pt2`` in the folder, a program that ``torch.export.load`` reads, makes scores of them.
    target : Path, optional
        Where to write; ``timm`` or ``model.onnx`` in the folder unless given.
    known : Narrowing
        What is known of the classes of the samples to come, which the model then takes into account.

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
    run = best_run(folder)
    name = RunConfig.from_mapping(run.config).embedding.backbone
    if onnx is None and not _is_of_timm(name):
        raise UserError(f"The backbone {name} is none of timm's: give --format onnx instead.")
    model = _whole_model(folder, run, known)
    if onnx is None:
        target = target or folder / "timm"
        return _write_timm(model, target)
    return _write_onnx(model, target or folder / ONNX_FILE_NAME, onnx)


def _is_of_timm(backbone: str) -> bool:
    return backbone not in TORCHVISION and not is_open_clip(backbone)


def _onnx() -> ModuleType:
    try:
        import onnx
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UserError("Exporting to ONNX needs two more packages: pip install 'fedcof[onnx]'.") from error
    return onnx


def _whole_model(folder: Path, run: RunResult, known: Narrowing) -> Exported:
    backbone = backbone_of_run(folder, run)
    head = known.classifier(folder, run)
    embedding = RunConfig.from_mapping(run.config).embedding
    preprocessing: dict[str, Any] = dict(backbone.preprocessing)
    input_size = preprocessing["input_size"]
    beyond_timm = embedding.feature_transform != NO_TRANSFORM or not _is_of_timm(backbone.name)
    if not isinstance(head, LinearClassifier) or beyond_timm:
        ending = nn.Sequential(FeatureTransform(embedding.feature_transform), ClassifierModule(head, LOWEST)).eval()
        whole = nn.Sequential(backbone.module, ending).eval()
        return Exported(whole, input_size, preprocessing, head.class_names, backbone.module, ending)
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
        classifier.weight.copy_(head.weight * head.present[:, None])
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
    settings = {**model.preprocessing, **untested, "num_classes": 0 if model.head else len(model.class_names)}
    config = {"pretrained_cfg": settings, "label_names": list(model.class_names), "decoding": DECODING}
    # A convolution that is laid out channels last is written as files have it.
    module = (model.backbone or model.module).to(memory_format=torch.contiguous_format)
    target.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".unfinished-", dir=target) as unfinished:
        save_for_hf(module, unfinished, model_config=config, safe_serialization=True)
        if model.head:
            torch.export.save(_program_of(model.head, module), Path(unfinished) / HEAD_PROGRAM_NAME)
        for file in Path(unfinished).iterdir():
            put_in_place(file, target / file.name)
    return target


def _program_of(head: nn.Module, backbone: nn.Module) -> torch.export.ExportedProgram:
    features = torch.zeros(2, int(backbone.num_features))  # type: ignore[arg-type]
    return torch.export.export(head, (features,), dynamic_shapes=({0: torch.export.Dim("batch")},))


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
