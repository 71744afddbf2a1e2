"""The memory of a GPU, and how many processes it is shared among."""

from __future__ import annotations

from dataclasses import dataclass


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
