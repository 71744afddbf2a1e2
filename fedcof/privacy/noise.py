"""Where privacy noise comes from: a seed in a simulation, the operating system's entropy on a real node."""

from __future__ import annotations

import math
import secrets
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

BYTES_PER_NUMBER = 8
# A double holds 53 bits of an even number in (0, 1].
BITS_OF_A_DOUBLE = 53


class NoiseSource(Protocol):
    """Draws random numbers."""

    def gaussian(self, *shape: int) -> Tensor:
        """Draw from the standard normal distribution: the given shape, float64."""

    def below(self, limit: int, number: int) -> Tensor:
        """Draw whole numbers evenly from 0 to below a limit: shape (number,), int64."""


class SeededNoise:
    """Noise that a seed decides, so that a simulation can be repeated; whoever knows the seed can take it off.

    Parameters
    ----------
    seed : int
        The run's seed.
    client : int
        Client number; no two clients share a stream.
    """

    def __init__(self, seed: int, client: int) -> None:
        self._generator = np.random.default_rng(np.random.SeedSequence([seed, client]))

    def gaussian(self, *shape: int) -> Tensor:
        """Draw from the standard normal distribution; see :class:`NoiseSource`."""
        return torch.from_numpy(self._generator.standard_normal(shape))

    def below(self, limit: int, number: int) -> Tensor:
        """Draw whole numbers below a limit; see :class:`NoiseSource`."""
        return torch.from_numpy(self._generator.integers(limit, size=number))


class SecretNoise:
    """Noise that nobody can draw again: every bit is the operating system's entropy.

    No generator is seeded with it, because torch's looks at 32 bits of a seed, which a server could try out, and
    numpy's are no ciphers. The normal numbers are made by Box and Muller's transform in float64. What the last bits
    of such numbers give away (Mironov, CCS 2012) is not defended against.
    """

    def gaussian(self, *shape: int) -> Tensor:
        """Draw from the standard normal distribution; see :class:`NoiseSource`."""
        number = math.prod(shape)
        radii, angles = (torch.from_numpy(_even(-(-number // 2))) for _ in range(2))
        radii = (-2 * radii.log()).sqrt()
        angles = angles * (2 * math.pi)
        return torch.cat([radii * angles.cos(), radii * angles.sin()])[:number].reshape(shape)

    def below(self, limit: int, number: int) -> Tensor:
        """Draw whole numbers below a limit; see :class:`NoiseSource`. Off from even by at most limit / 2^64."""
        return torch.from_numpy((_bits(number) % np.uint64(limit)).astype(np.int64))


def _bits(number: int) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
    return np.frombuffer(secrets.token_bytes(BYTES_PER_NUMBER * number), dtype=np.uint64)


def _even(number: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Draw numbers evenly from (0, 1]; never 0, which has no logarithm."""
    levels = _bits(number) >> np.uint64(64 - BITS_OF_A_DOUBLE)
    return (levels.astype(np.float64) + 1) / 2.0**BITS_OF_A_DOUBLE
