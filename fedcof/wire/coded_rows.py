"""Rows ready to be rounded: what they cost can be told before a step is chosen."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedcof.statistics.class_means import ClassMeans
from fedcof.wire.coded_centre import Centre
from fedcof.wire.coded_header import BYTES_PER_ROW, CHECKSUM, LAYOUT
from fedcof.wire.entropy_coding import SCALES_PER_OCTAVE, SMALLEST_SCALE, expected_bits
from fedcof.wire.reflection import reflect


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

    def expected_bytes(self, step: float) -> float:
        """Predict the size of the stream from the expected cost of a level of each scale.

        Parameters
        ----------
        step : float
            Step of a mean of one sample, above 0.

        Returns
        -------
        float
            Bytes, within a few per cent.
        """
        scales, bits = expected_bits()
        widths, how_often = np.unique(self.widths, return_counts=True)
        relative = np.log2(np.maximum(self.scales / step, 1e-30))[:, None] + widths / SCALES_PER_OCTAVE
        row_bits = float(np.interp(relative, np.log2(scales), bits).sum(axis=0) @ how_often)
        centre_bits = float(bits[self.centre.scale]) * len(self.widths)
        return LAYOUT.size + CHECKSUM.size + BYTES_PER_ROW * len(self.scales) + (row_bits + centre_bits) / 8
