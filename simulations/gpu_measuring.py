"""What embedding one batch takes of this machine's GPU."""

from __future__ import annotations

from functools import lru_cache

import datasets
import torch
from PIL import Image

from fedcof.embedding.backbones import shared_backbone
from fedcof.embedding.features import extract_features
from simulations.gpu_memory import GpuMemory

# What CUDA takes for itself in every process, which torch does not count among its own.
CUDA_CONTEXT_BYTES = 512 * 2**20

IMAGE_SIZE_BEFORE_RESIZING = (64, 64)


@lru_cache(maxsize=8)
def measured_gpu_memory(backbone: str, image_size: int, weights: str, batch_size: int) -> GpuMemory | None:
    """Embed one batch on this machine's GPU to see what it takes.

    Parameters
    ----------
    backbone, image_size, weights
        See :func:`fedcof.embedding.backbones.load_backbone`.
    batch_size : int
        Images embedded at once; where the GPU has not the memory, fewer.

    Returns
    -------
    GpuMemory or None
        None if torch sees no GPU.

    Raises
    ------
    UserError
        If the backbone cannot be loaded, or not even one image fits.
    """
    if not torch.cuda.is_available():
        return None
    model = shared_backbone(backbone, image_size, weights)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    free = min(torch.cuda.mem_get_info(device)[0] for device in range(torch.cuda.device_count()))
    extract_features(model, _black_images(batch_size), batch_size)
    return GpuMemory(needed=torch.cuda.max_memory_reserved() + CUDA_CONTEXT_BYTES, free=free)


def _black_images(count: int) -> datasets.Dataset:
    image = Image.new("RGB", IMAGE_SIZE_BEFORE_RESIZING)
    return datasets.Dataset.from_dict(
        {"image": [image] * count}, features=datasets.Features({"image": datasets.Image()})
    )
