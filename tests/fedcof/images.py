"""Small images, a small backbone that counts them, and the slowest way to embed them."""

import io
from dataclasses import replace

import datasets
import numpy as np
import torch
from PIL import Image
from torch import nn

from fedcof.embedding.backbones import load_backbone

NAME = "test_resnet"
NUM_IMAGES = 21


class CountingModule(nn.Module):
    """Passes images on and counts them."""

    def __init__(self, module):
        super().__init__()
        self.module, self.images = module, 0

    def forward(self, images):
        self.images += len(images)
        return self.module(images)


class SmallMemory(nn.Module):
    def __init__(self, module, most):
        super().__init__()
        self.module, self.most, self.refused = module, most, 0

    def forward(self, images):
        if len(images) > self.most:
            self.refused += 1
            raise torch.OutOfMemoryError
        return self.module(images)


def counting_backbone():
    loaded = load_backbone(NAME, 32, "none")
    return replace(loaded, module=CountingModule(loaded.module))


def png(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def make_images(seed=0, num_images=NUM_IMAGES):
    """Grey and coloured images of several sizes, and their labels."""
    generator = np.random.default_rng(seed)
    shapes = [(20 + i, 24, 3) if i % 2 else (24, 20) for i in range(num_images)]
    encoded = [{"bytes": png(generator.integers(0, 256, s, dtype=np.uint8)), "path": None} for s in shapes]
    columns = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
    return datasets.Dataset.from_dict({"image": encoded, "label": np.arange(num_images) % 5}, columns)


def plain_loop(backbone, images):
    with torch.inference_mode():
        return torch.cat([backbone.module(backbone.transform(row["image"].convert("RGB"))[None]) for row in images])
