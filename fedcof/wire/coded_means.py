"""Class means as an entropy-coded stream whose rounding noise is a fixed share of their sampling noise.

A mean of n samples is known to within sigma / sqrt(n), so it is rounded to steps of b / sqrt(n): the rounding then
adds b^2 / 12 to the covariance of sqrt(n) m whatever n is, and no row needs a step of its own. Four things make it
short:

* Rows are taken relative to the client's mean feature vector, which is sent once, coarsely; how coarsely is of no
  matter, as both ends use the rounded one.
* The rows of one class, each times sqrt(n), are reflected so that the first becomes sqrt(N_c) times the class mean
  and the others hold nothing but within-class noise. The reflection is orthogonal, so white noise stays white.
* Coordinates differ in width, and wide ones are those with a large mean: one power law per client says how.
  Rotating them all to the same width, which a code of fixed length needs, would cost bits here.
* The levels are written near their entropy by :mod:`fedcof.wire.entropy_coding`.

Everything is one array of bytes, because every further array costs about 0.4 kB on the wire.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from zlib import crc32

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedcof.errors import UserError
from fedcof.statistics.class_means import ClassMeans, DecodedRows
from fedcof.statistics.validation import check_classes, require
from fedcof.wire.coded_centre import Centre
from fedcof.wire.coded_header import (
    CHECKSUM,
    LAYOUT,
    VERSION,
    Header,
    _in_smallest_type,
    little_endian,
    split_stream,
)
from fedcof.wire.coded_rows import ScaledRows
from fedcof.wire.dither import dither
from fedcof.wire.entropy_coding import check_room, decode_levels, encode_levels
from fedcof.wire.reflection import reflect

LARGEST_LEVEL = 2**15


LARGEST_INT8 = 127


@dataclass(frozen=True, eq=False)
class CodedClassMeans(DecodedRows):
    """Class means that are kept as levels, and turned into numbers block by block when somebody reads them.

    Parameters
    ----------
    class_ids : Tensor of shape (R,), int64
        Class of each row, counted from 0; rows of one class that follow one another were reflected together.
    counts : Tensor of shape (R,), int64
        Number of samples behind each row, at least 1.
    levels : Tensor of shape (R, d), int8 or int16
        The rounded, reflected rows.
    centre : Tensor of shape (d,), float32
        What the rows are relative to, in the backbone's units.
    step : float
        Step of a mean of one sample, above 0, in the backbone's units.
    dither_seed : int
        Seed of the dither that was added before rounding.

    Raises
    ------
    UserError
        As :class:`fedcof.ClassMeans`: a row that would hold no finite number is refused here.
    """

    levels: Tensor
    centre: Tensor
    step: float
    dither_seed: int

    def __post_init__(self) -> None:
        check_classes(self.class_ids, self.counts)
        require(self.levels.dim() == 2, "means", "the shape (rows, feature dimension)", self.levels.shape)
        require(len(self.levels) == len(self.class_ids), "means", "one vector per row", self.levels.shape)
        require(self.centre.shape == self.levels.shape[1:], "centre", "the rows' dimension", self.centre.shape)
        # A reflection makes a number at most sqrt(rows) times as large, and n at least 1 makes it smaller.
        largest = self.step * LARGEST_LEVEL * max(self.num_rows * self.feature_dim, 1) ** 0.5
        in_range = self.step > 0 and largest < torch.finfo(torch.float32).max / 4
        in_range = in_range and float(self.centre.abs().max() if len(self.centre) else 0) < 1e37
        require(in_range, "means", "finite numbers", "NaN or infinity")

    @property
    def feature_dim(self) -> int:
        """Dimension d of the feature vectors."""
        return self.levels.shape[1]

    @property
    def noise(self) -> Tensor:
        """Variance that rounding put on every coordinate of each row, step^2 / (12 n): shape (R,), float32."""
        return (self.step**2 / 12 / self.counts).to(torch.float32)

    def rows(self, block: slice) -> Tensor:
        """Decode the means of some rows.

        Parameters
        ----------
        block : slice
            Which rows, with a start and a stop.

        Returns
        -------
        Tensor of shape (rows of the block, d), float32
            Their means.
        """
        if block.start >= block.stop:
            return torch.zeros(0, self.feature_dim)
        # A reflection needs all rows of its class.
        first, last = self.class_ids[block.start], self.class_ids[block.stop - 1]
        before = (self.class_ids[: block.start] != first).nonzero()
        after = (self.class_ids[block.stop :] != last).nonzero()
        start = int(before[-1]) + 1 if len(before) else 0
        stop = block.stop + int(after[0]) if len(after) else self.num_rows
        shift = dither((stop - start, self.feature_dim), self.dither_seed, first_row=start)
        coefficients = torch.sub(self.levels[start:stop], shift, out=shift)
        counts = self.counts[start:stop]
        wanted = slice(block.start - start, block.stop - start)
        scaled = reflect(coefficients, self.class_ids[start:stop], counts)[wanted]
        steps = (self.step / counts[wanted].to(torch.float64).sqrt()).to(torch.float32)
        return scaled.mul_(steps[:, None]).add_(self.centre)


def write_class_means(upload: ClassMeans, step: float, dither_seed: int) -> NDArray[np.uint8]:
    """Write class means as one stream of bytes.

    Parameters
    ----------
    upload : ClassMeans
        R rows of dimension d, those of one class following one another.
    step : float
        Step of a mean of one sample, above 0, in the backbone's units; a mean of n samples has this over sqrt(n).
    dither_seed : int
        Seed of the dither, sent along; every upload should have its own.

    Returns
    -------
    ndarray of shape (bytes,), uint8
        For :func:`read_class_means`.

    Raises
    ------
    UserError
        If the step is not a finite number above 0, or so small that a level would not fit into 16 bits.
    """
    if not 0 < step < float("inf"):
        raise UserError(f"The step is {step}, but it must be finite and above 0: give such a number.")
    return write_scaled(upload, ScaledRows.of(upload), step, dither_seed)


def write_scaled(upload: ClassMeans, rows: ScaledRows, step: float, dither_seed: int) -> NDArray[np.uint8]:
    """Write rows that were scaled before; see :func:`write_class_means`."""
    step = float(np.float32(step))
    row_scales = rows.scale_indices(step)
    shift = dither((upload.num_rows, upload.feature_dim), dither_seed)
    levels = (rows.coefficients / step + shift).round_().clamp_(-LARGEST_LEVEL, LARGEST_LEVEL).to(torch.int64)
    centre_words, centre_escapes = rows.encoded_centre
    words, escapes = encode_levels(levels.numpy(), row_scales, rows.widths, dither_seed)
    ids, counts = (_in_smallest_type(values) for values in (upload.class_ids, upload.counts))
    header = Header(
        VERSION, ids.itemsize, counts.itemsize, rows.centre.scale, rows.power, rows.centre.middle, rows.centre.step,
        step, upload.feature_dim, upload.num_rows, dither_seed, len(centre_words), len(centre_escapes),
        len(escapes),
    )  # fmt: skip
    parts = [ids, counts, row_scales.astype(np.int8), centre_escapes, escapes, centre_words, words]
    content = LAYOUT.pack(*header) + b"".join(little_endian(part) for part in parts)
    return np.frombuffer(content + CHECKSUM.pack(crc32(content)), dtype=np.uint8)


def read_class_means(stream: NDArray[Any]) -> CodedClassMeans:
    """Read class means back; the inverse of :func:`write_class_means`.

    Parameters
    ----------
    stream : ndarray of shape (bytes,), uint8
        What was sent.

    Returns
    -------
    CodedClassMeans
        Checked.

    Raises
    ------
    UserError
        If it is not what :func:`write_class_means` makes. A short stream cannot claim many rows: memory is taken
        for at most 184 levels per byte.
    """
    if stream.dtype != np.uint8 or stream.ndim != 1 or len(stream) < LAYOUT.size + CHECKSUM.size:
        raise UserError("The upload's coded means are no stream of bytes: send what encode_class_means made.")
    content, checksum = stream[: -CHECKSUM.size].tobytes(), stream[-CHECKSUM.size :].tobytes()
    header = Header(*LAYOUT.unpack_from(content))
    if header.version != VERSION:
        raise UserError(f"The coded means have version {header.version}, but {VERSION} is known: use one version.")
    # What was changed on its way would decode to other rows without a complaint.
    if checksum != CHECKSUM.pack(crc32(content)):
        raise UserError("The upload's coded means were changed or cut on their way: send them again.")
    parts = split_stream(content[LAYOUT.size :], header)
    ids, counts, row_scales, centre_escapes, escapes, centre_words, words = parts
    # Before memory is taken for them; both are checked again as they are read.
    check_room(header.dim, centre_words)
    check_room(header.num_rows * header.dim, words)
    centre = Centre.decoded(header, centre_words, centre_escapes)
    widths = centre.widths(header.power)
    levels = torch.from_numpy(decode_levels(words, escapes, row_scales.astype(np.int64), widths, header.seed))
    if not levels.numel() or int(levels.abs().max()) <= LARGEST_INT8:
        levels = levels.to(torch.int8)
    return CodedClassMeans(
        class_ids=torch.from_numpy(ids.astype(np.int64)),
        counts=torch.from_numpy(counts.astype(np.int64)),
        levels=levels,
        centre=torch.from_numpy(centre.values()).to(torch.float32),
        step=header.step,
        dither_seed=header.seed,
    )


def rows_claimed(stream: NDArray[Any]) -> int:
    """Read from a stream's header how many rows it claims; 0 where it is too short for one."""
    if stream.dtype != np.uint8 or stream.ndim != 1 or len(stream) < LAYOUT.size:
        return 0
    return Header(*LAYOUT.unpack_from(stream[: LAYOUT.size].tobytes())).num_rows
