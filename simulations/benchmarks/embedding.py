"""What embedding costs: fedcof's feature extraction against a plain timm loop over the same batches."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable

import timm
import torch
from datasets import Dataset
from rich.table import Table
from torch import Tensor, nn

from fedcof.data.datasets import shared_dataset
from fedcof.embedding.backbones import Backbone, shared_backbone
from fedcof.embedding.features import extract_features
from fedcof.embedding.images import rgb_images
from fedcof.embedding.section import EmbeddingSection
from simulations.terminal import console

LARGEST_DIFFERENCE = 1e-4


def measure(
    image_size: int = 96, num_images: int = 256, batch_size: int = 64, repeats: int = 5
) -> dict[str, float]:
    """Embed the same images both ways in turn, and take the best of each.

    Parameters
    ----------
    image_size : int
        Height and width in pixels.
    num_images, batch_size : int
        Images to embed, and images at once.
    repeats : int
        Turns, of which the fastest counts: whatever else runs on the machine only ever adds time.

    Returns
    -------
    dict of str to float
        ``fedcof`` and ``timm`` in images per second; ``ratio``, the first over the second; and the largest
        difference between their features over the largest feature.
    """
    defaults = EmbeddingSection()
    backbone = shared_backbone(defaults.backbone, image_size, defaults.weights)
    images = shared_dataset("digits").train.select(range(num_images))
    model = plain_model(backbone, defaults.backbone)
    ways: dict[str, Callable[[], Tensor]] = {
        "fedcof": lambda: extract_features(backbone, images, batch_size, device="cpu"),
        "timm": lambda: plain_loop(model, backbone, images, batch_size),
    }
    seconds = dict.fromkeys(ways, float("inf"))
    features = {}
    for _ in range(repeats):
        for name, embed in ways.items():
            started = time.perf_counter()
            features[name] = embed()
            seconds[name] = min(seconds[name], time.perf_counter() - started)
    difference = float((features["fedcof"] - features["timm"]).abs().max() / features["timm"].abs().max())
    rates = {name: num_images / seconds[name] for name in ways}
    return {**rates, "ratio": rates["fedcof"] / rates["timm"], "difference": difference}


def plain_model(backbone: Backbone, name: str) -> nn.Module:
    """Make timm's own model with a backbone's weights.

    Parameters
    ----------
    backbone : Backbone
        Whose weights to take.
    name : str
        timm name.

    Returns
    -------
    Module
        Without a head, ready to embed.
    """
    model: nn.Module = timm.create_model(name, pretrained=False, num_classes=0)
    model.load_state_dict(backbone.module.state_dict())
    return model.eval()


def plain_loop(model: nn.Module, backbone: Backbone, images: Dataset, batch_size: int) -> Tensor:
    """Embed images as one would without fedcof.

    Parameters
    ----------
    model : Module
        timm's model.
    backbone : Backbone
        Whose image transform to use.
    images : Dataset
        With a column ``image``.
    batch_size : int
        Images at once.

    Returns
    -------
    Tensor of shape (n, d), float32
        Features, in the order of the images.
    """
    features = []
    for start in range(0, len(images), batch_size):
        stop = min(start + batch_size, len(images))
        batch = torch.stack([backbone.transform(image) for image in rgb_images(images, range(start, stop))])
        with torch.inference_mode():
            features.append(model(batch))
    return torch.cat(features)


def main() -> None:
    """Measure, and print a table or JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON and no table")
    parser.add_argument("--image-size", type=int, default=96, help="height and width in pixels")
    parser.add_argument("--images", type=int, default=256, help="images to embed")
    parser.add_argument("--repeats", type=int, default=5, help="turns, of which the fastest counts")
    arguments = parser.parse_args()
    figures = measure(arguments.image_size, arguments.images, repeats=arguments.repeats)
    if figures["difference"] > LARGEST_DIFFERENCE:
        sys.exit(
            f"The features differ by {figures['difference']:.1e} of the largest, so the speeds do not compare."
        )
    if arguments.json:
        sys.stdout.write(json.dumps(figures, indent=2) + "\n")
        return
    table = Table("fedcof images/s", "timm images/s", "Ratio", "Difference")
    table.add_row(*(f"{figures[key]:.3g}" for key in ("fedcof", "timm", "ratio", "difference")))
    console.print(table)


if __name__ == "__main__":
    main()
