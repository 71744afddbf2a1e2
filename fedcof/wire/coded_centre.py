"""What coded rows are relative to, and how wide it says that each coordinate is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedcof.wire.coded_header import LARGEST_POWER, Header
from fedcof.wire.entropy_coding import SCALES_PER_OCTAVE, decode_levels, encode_levels, scale_index

# The centre is rounded in its square root, to this many steps per root mean square.
CENTRE_STEPS = 4


POWERS_PER_UNIT = 16


# Keeps the width of a coordinate whose mean is zero above zero.
CENTRE_FLOOR = 0.05


@dataclass(frozen=True, eq=False)
class Centre:
    """What rows are relative to, rounded in its square root, so that small numbers keep their digits.

    ``levels`` (d,) int64 around ``middle``, each worth ``step``; ``scale`` is their scale's place in the grid.
    """

    levels: NDArray[np.int64]
    middle: int
    step: float
    scale: int

    @staticmethod
    def of(vector: Tensor) -> Centre:
        """Round a vector (d,) float64."""
        roots = (vector.sign() * vector.abs().sqrt()).numpy()
        step = float(np.float32(np.sqrt(np.square(roots).mean()) / CENTRE_STEPS)) if len(roots) else 0.0
        levels = np.rint(roots / step).astype(np.int64) if step > 0 else np.zeros(len(roots), dtype=np.int64)
        middle = int(np.rint(levels.mean())) if len(levels) else 0
        spread = np.sqrt(np.square(levels - middle).mean()) if len(levels) else 0.0
        return Centre(levels - middle, middle, step, int(scale_index(np.array(spread))))

    def values(self) -> NDArray[np.float64]:
        """Give the rounded vector: shape (d,)."""
        roots = (self.levels + self.middle) * self.step
        vector: NDArray[np.float64] = np.sign(roots) * np.square(roots)
        return vector

    def encoded(self) -> tuple[NDArray[np.uint32], NDArray[np.int16]]:
        """Write the levels as a stream, without dither; see :func:`fedcof.wire.entropy_coding.encode_levels`."""
        return encode_levels(self.levels[None], np.array([self.scale]), np.zeros_like(self.levels), None)

    @staticmethod
    def decoded(header: Header, words: NDArray[np.uint32], escapes: NDArray[np.int16]) -> Centre:
        """Read the levels back."""
        widths = np.zeros(header.dim, dtype=np.int64)
        levels = decode_levels(words, escapes, np.array([header.centre_scale]), widths, None)[0]
        return Centre(levels.astype(np.int64), header.middle, header.centre_step, header.centre_scale)

    def widths(self, power: int) -> NDArray[np.int64]:
        """Tell the widths that a power law of the centre gives, in steps of the grid of scales: shape (d,)."""
        return np.rint(self._octaves() * (SCALES_PER_OCTAVE * power / POWERS_PER_UNIT)).astype(np.int64)

    def fitted_power(self, coefficients: Tensor) -> int:
        """Fit the power to the root mean square of each coordinate over rows of equal size, by least squares."""
        norms = torch.linalg.vector_norm(coefficients, dim=1, keepdim=True)
        spread = torch.where(norms > 0, coefficients / norms.clamp(min=1e-300), 0.0).square().sum(dim=0).numpy()
        octaves = self._octaves()
        if not spread.any():
            return 0
        observed = np.log2(spread / spread.mean() + CENTRE_FLOOR**2) / 2
        deviations = octaves - octaves.mean()
        slope = float(deviations @ observed) / max(float(deviations @ deviations), 1e-12)
        return int(np.clip(np.rint(slope * POWERS_PER_UNIT), 0, LARGEST_POWER))

    def _octaves(self) -> NDArray[np.float64]:
        """Base-2 logarithm of the centre's magnitude, about its mean being 1, from a floor: shape (d,)."""
        return np.log2(np.square((self.levels + self.middle) / CENTRE_STEPS) + CENTRE_FLOOR)
