"""What a simulated SuperNode gets of the machine: CPU cores, and the share of a GPU that its backbone takes."""

from __future__ import annotations

from collections.abc import Callable

from fedcof.run.config import RunConfig
from simulations.gpu_memory import GpuMemory, gpu_share
from simulations.runtime import Resources

DERIVED = -1

Measure = Callable[[str, int, str, int], GpuMemory | None]


def client_resources(config: RunConfig, num_nodes: int, measure: Measure | None = None) -> Resources:
    """Decide what a run's simulated SuperNodes get.

    Parameters
    ----------
    config : RunConfig
        The run; its ``num_gpus`` is taken as it is unless it is -1.
    num_nodes : int
        Simulated SuperNodes.
    measure : callable, optional
        Gives the memory that a backbone takes by its name, image size, weights and batch size; None without a GPU.
        By default :func:`simulations.gpu_measuring.measured_gpu_memory`.

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
            if measure is None:
                from simulations.gpu_measuring import measured_gpu_memory

                measure = measured_gpu_memory
            memory = measure(
                config.embedding.backbone,
                config.embedding.image_size,
                config.embedding.weights,
                config.embedding.batch_size,
            )
            num_gpus = gpu_share(memory) if memory else 0.0
    return Resources(num_nodes, config.execution.num_cpus, num_gpus)


def _clients_embed(config: RunConfig) -> bool:
    return not (config.embedding.feature_cache or config.data.is_precomputed or config.method.name == "oracle")
