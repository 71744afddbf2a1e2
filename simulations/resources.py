"""What a simulated SuperNode gets of the machine: CPU cores, and the share of a GPU that its backbone takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import datasets
import torch
from PIL import Image

from fedcof.data.precomputed import is_precomputed
from fedcof.embedding.backbones import shared_backbone
from fedcof.embedding.features import extract_features
from fedcof.run.config import RunConfig
from simulations.runtime import Resources

DERIVED = -1

# What CUDA takes for itself in every process, which torch does not count among its own.
CUDA_CONTEXT_BYTES = 512 * 2**20

IMAGE_SIZE_BEFORE_RESIZING = (64, 64)


@dataclass(frozen=True)
class GpuMemory:
    """Memory of a GPU, in bytes.

    Attributes
    ----------
    needed : int
        The most that a process takes to embed one batch.
    free : int
        What the GPU with the least of it has free.
    """

    needed: int
    free: int


Measure = Callable[[str, int, str, int], GpuMemory | None]


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


def gpu_share(memory: GpuMemory) -> float:
    """Share out a GPU among processes of one size.

    Parameters
    ----------
    memory : GpuMemory
        What one takes, and what there is.

    Returns
    -------
    float
        The smallest of 1, 1/2, 1/4, 1/8 ... that is enough; 1 also where even that is not, because batches then get
        smaller.
    """
    fitting = memory.free // max(memory.needed, 1)
    return 1.0 / (1 << (max(fitting, 1).bit_length() - 1))


def client_resources(config: RunConfig, num_nodes: int, measure: Measure = measured_gpu_memory) -> Resources:
    """Decide what a run's simulated SuperNodes get.

    Parameters
    ----------
    config : RunConfig
        The run; its ``num_gpus`` is taken as it is unless it is -1.
    num_nodes : int
        Simulated SuperNodes.
    measure : callable, optional
        Gives the memory that a backbone takes by its name, image size, weights and batch size; None without a GPU.

    Returns
    -------
    Resources
        No GPU where no client embeds an image, or torch sees none.

    Raises
    ------
    UserError
        As the measuring.
    """
    num_gpus = config.execution.num_gpus
    if num_gpus == DERIVED:
        num_gpus = 0.0
        if _clients_embed(config):
            memory = measure(
                config.embedding.backbone,
                config.embedding.image_size,
                config.embedding.weights,
                config.embedding.batch_size,
            )
            num_gpus = gpu_share(memory) if memory else 0.0
    return Resources(num_nodes, config.execution.num_cpus, num_gpus)


def _clients_embed(config: RunConfig) -> bool:
    return not (
        config.embedding.feature_cache or is_precomputed(config.data.dataset) or config.method.name == "oracle"
    )
