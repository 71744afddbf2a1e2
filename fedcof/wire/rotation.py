"""A random rotation that both ends draw: it spreads a vector evenly over its coordinates, so one step fits all.

Signs are flipped and coordinates permuted at random; then Hadamard matrices are applied to blocks whose sizes are
the powers of two that add up to d (1280 = 1024 + 256). Each is the Kronecker product of two small ones, so a block
of B coordinates takes about 2 B sqrt(B) products a row. Everything is orthonormal: white noise stays white.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

# How the numbers of a rotation are drawn. At first they were those of the dither of the same seed, and so the signs
# were those of the first row's dither; uploads that were kept since then are read that way.
STREAM_OF_DITHER, OWN_STREAM = ROTATION_VERSIONS = (1, 2)


@dataclass(frozen=True, eq=False)
class Rotation:
    """A rotation of R^d, drawn from a seed.

    Parameters
    ----------
    signs : Tensor of shape (d,), float32
        1 or -1 for each coordinate.
    permutation : Tensor of shape (d,), int64
        Which coordinate goes to each place.
    """

    signs: Tensor
    permutation: Tensor

    @staticmethod
    def drawn(dim: int, seed: int, version: int = OWN_STREAM) -> Rotation:
        """Draw a rotation.

        Parameters
        ----------
        dim : int
            Dimension d.
        seed : int
            From 0; the same on both ends.
        version : {1, 2}
            Whether from the stream of the dither of the same seed, as at first, or from one of its own.

        Returns
        -------
        Rotation
            The same on every machine.
        """
        stream = np.random.SeedSequence(seed, spawn_key=() if version == STREAM_OF_DITHER else (version,))
        generator = np.random.Generator(np.random.Philox(stream))
        signs = generator.integers(0, 2, dim) * 2.0 - 1
        return Rotation(torch.from_numpy(signs.astype(np.float32)), torch.from_numpy(generator.permutation(dim)))

    def apply(self, rows: Tensor) -> Tensor:
        """Rotate rows.

        Parameters
        ----------
        rows : Tensor of shape (R, d), floating point
            Vectors.

        Returns
        -------
        Tensor of shape (R, d)
            Rotated, in the rows' type.
        """
        return _hadamard_blocks((rows * self.signs.to(rows.dtype))[:, self.permutation])

    def invert(self, rows: Tensor) -> Tensor:
        """Rotate rows back; the inverse of :meth:`apply`."""
        restored = torch.empty_like(rows)
        restored[:, self.permutation] = _hadamard_blocks(rows)
        return restored.mul_(self.signs.to(rows.dtype))


def _hadamard_blocks(rows: Tensor) -> Tensor:
    """Apply an orthonormal, symmetric Hadamard matrix to each block of coordinates."""
    rotated, start = torch.empty_like(rows), 0
    for power in range(rows.shape[1].bit_length() - 1, -1, -1):
        size = 1 << power
        if not rows.shape[1] & size:
            continue
        left, right = (_hadamard(part).to(rows.dtype) for part in (power // 2, power - power // 2))
        block = rows[:, start : start + size].reshape(-1, len(left), len(right))
        rotated[:, start : start + size] = (left @ block @ right).reshape(-1, size)
        start += size
    return rotated


@lru_cache(maxsize=32)
def _hadamard(power: int) -> Tensor:
    """Make Sylvester's orthonormal Hadamard matrix of size 2^power, float64."""
    matrix = torch.ones(1, 1, dtype=torch.float64)
    for _ in range(power):
        matrix = torch.cat([torch.cat([matrix, matrix], 1), torch.cat([matrix, -matrix], 1)]) / 2**0.5
    return matrix
