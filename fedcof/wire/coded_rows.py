"""Rows ready to be rounded: what they cost can be told before a step is chosen."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedcof.statistics.class_means import ClassMeans
from fedcof.wire.coded_centre import Centre
from fedcof.wire.coded_header import BYTES_PER_ROW, CHECKSUM, LAYOUT
from fedcof.wire.entropy_coding import (
    NUM_SCALES,
    SCALES_PER_OCTAVE,
    SMALLEST_SCALE,
    bits_of_levels,
    expected_bits,
)
from fedcof.wire.reflection import reflect

# So many numbers tell the mean cost of one to about a per cent.
SAMPLED = 2**12


@dataclass(frozen=True, eq=False)
class ScaledRows:
    """Rows ready to be rounded: what they cost can be told before a step is chosen.

    Attributes
    ----------
    coefficients : Tensor of shape (R, d), float64
        In the first row of a class sqrt(N_c) (mu_c - centre); in the others orthogonal combinations of its rows,
        each of mean 0 and of the covariance of one sample.
    centre : Centre
        What the rows are relative to.
    power : int
        How fast a coordinate's width grows with its centre, in sixteenths.
    widths : ndarray of shape (d,), int64
        Relative width of each coordinate, in steps of the grid of scales.
    scales : ndarray of shape (R,), float64
        Root mean square of each row over the widths, in the backbone's units.
    """

    coefficients: Tensor
    centre: Centre
    power: int
    widths: NDArray[np.int64]
    scales: NDArray[np.float64]

    @staticmethod
    def of(upload: ClassMeans) -> ScaledRows:
        """Centre, scale and reflect the rows of an upload, and fit the widths of its coordinates."""
        means, counts = upload.means.to(torch.float64), upload.counts.to(torch.float64)
        centre = Centre.of(counts @ means / counts.sum().clamp(min=1))
        rows = (means - torch.from_numpy(centre.values()).to(torch.float32)).mul_(counts.sqrt()[:, None])
        coefficients = reflect(rows, upload.class_ids, upload.counts)
        power = centre.fitted_power(coefficients)
        widths = centre.widths(power)
        relative = coefficients.numpy() / 2 ** (widths / SCALES_PER_OCTAVE)
        scales = np.sqrt(np.square(relative).mean(axis=1)) if upload.feature_dim else np.zeros(upload.num_rows)
        return ScaledRows(coefficients, centre, power, widths, scales)

    def scale_indices(self, step: float) -> NDArray[np.int64]:
        """Find the place of each row's scale in the grid of scales, which it may lie outside of; shape (R,)."""
        octaves = np.log2(np.maximum(self.scales / step, SMALLEST_SCALE / 64) / SMALLEST_SCALE)
        places: NDArray[np.int64] = np.clip(np.rint(octaves * SCALES_PER_OCTAVE), -128, 127).astype(np.int64)
        return places

    def bits_of_rows(self, scales: NDArray[np.float64]) -> NDArray[np.float64]:
        """Predict what rows of these coordinates cost, by the expected cost of a level of each scale.

        Parameters
        ----------
        scales : ndarray, floating point
            Root mean square of each row over the widths, in steps.

        Returns
        -------
        ndarray
            Bits of each row.
        """
        return np.interp(np.log2(np.maximum(scales, 1e-30)), *self._bits_by_octave)

    @cached_property
    def encoded_centre(self) -> tuple[NDArray[np.uint32], NDArray[np.int16]]:
        """The centre as a stream; see :meth:`Centre.encoded`."""
        return self.centre.encoded()

    @property
    def fixed_bytes(self) -> int:
        """What an upload costs whatever its rows: the header, the checksum, the centre and a stream's end."""
        words, escapes = self.encoded_centre
        return LAYOUT.size + CHECKSUM.size + words.nbytes + escapes.nbytes + words.itemsize

    def expected_bytes(self, step: float, surplus: float = 1.0) -> float:
        """Predict the size of the stream from the scales of its rows.

        Parameters
        ----------
        step : float
            Step of a mean of one sample, above 0.
        surplus : float
            What :meth:`surplus` gives at about this step.

        Returns
        -------
        float
            Bytes, within some per cent without the surplus: features with heavier tails than the tables cost more.
        """
        rows = float(self.bits_of_rows(self.scales / step).sum())
        return self.fixed_bytes + BYTES_PER_ROW * len(self.scales) + surplus * rows / 8

    def surplus(self, step: float) -> float:
        """Estimate by how much the rows cost more than is expected, from a sample of their numbers.

        Parameters
        ----------
        step : float
            Step of a mean of one sample, above 0.

        Returns
        -------
        float
            A factor; 1 where there are no numbers. The same at every call.
        """
        total = self.coefficients.numel()
        generator = np.random.default_rng(0)
        chosen = generator.integers(0, total, SAMPLED) if total > SAMPLED else np.arange(total)
        rows, columns = np.divmod(chosen, max(self.coefficients.shape[1], 1))
        offsets = generator.random(len(chosen), dtype=np.float32) - np.float32(0.5)
        values = self.coefficients.numpy()[rows, columns]
        levels = np.rint(values / step + offsets).astype(np.int64)
        places = np.clip(self.scale_indices(step)[rows] + self.widths[columns], 0, NUM_SCALES - 1)
        relative = np.log2(np.maximum(self.scales / step, 1e-30))[rows] + self.widths[columns] / SCALES_PER_OCTAVE
        scales, bits = expected_bits()
        expected = float(np.interp(relative, np.log2(scales), bits).sum())
        return float(bits_of_levels(levels, places, offsets).sum()) / expected if expected else 1.0

    @cached_property
    def _bits_by_octave(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Add up what the coordinates of a row cost, by the base-2 logarithm of its scale in steps."""
        scales, bits = expected_bits()
        widths, how_often = np.unique(self.widths, return_counts=True)
        widest, narrowest = int(widths.max(initial=0)), int(widths.min(initial=0))
        places = np.arange(-widest, len(scales) - narrowest)
        costs = bits[np.clip(places[:, None] + widths, 0, len(scales) - 1)] @ how_often
        return np.log2(scales[0]) + places / SCALES_PER_OCTAVE, costs
