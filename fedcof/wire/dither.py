"""The dither that is added before rounding and taken off again: both ends draw the same."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

# numpy's Philox advances by counter steps, each of which yields eight float32.
FLOATS_PER_STEP = 8


def dither(shape: tuple[int, int], seed: int, first_row: int = 0) -> Tensor:
    """Draw the dither of some rows.

    Parameters
    ----------
    shape : tuple of int
        Number of rows, and their dimension d.
    seed : int
        Seed of the whole upload's dither, from 0.
    first_row : int
        Place of the first of these rows in the upload.

    Returns
    -------
    Tensor of shape (rows, d), float32
        Even in [-1/2, 1/2).
    """
    num_rows, dim = shape
    steps, surplus = divmod(first_row * dim, FLOATS_PER_STEP)
    bits = np.random.Philox(seed)
    bits.advance(steps)
    generator = np.random.Generator(bits)
    generator.random(surplus, dtype=np.float32)
    drawn = generator.random((num_rows, dim), dtype=np.float32)
    return torch.from_numpy(np.subtract(drawn, np.float32(0.5), out=drawn))
