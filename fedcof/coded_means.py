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
* The levels are written near their entropy by :mod:`fedcof.entropy_coding`.

Everything is one array of bytes, because every further array costs about 0.4 kB on the wire.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any, NamedTuple
from zlib import crc32

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedcof.dither import dither
from fedcof.entropy_coding import (
    NUM_SCALES,
    SCALES_PER_OCTAVE,
    SMALLEST_SCALE,
    check_room,
    decode_levels,
    encode_levels,
    expected_bits,
    scale_index,
)
from fedcof.errors import UserError
from fedcof.statistics import ClassMeans, check_classes, check_problem, require

VERSION = 1
LAYOUT = struct.Struct("<5Bh2f6I")
CHECKSUM = struct.Struct("<I")


class Header(NamedTuple):
    """What precedes the arrays in a stream, in the order of ``LAYOUT``."""

    version: int
    id_bytes: int
    count_bytes: int
    centre_scale: int
    power: int
    middle: int
    centre_step: float
    step: float
    dim: int
    num_rows: int
    seed: int
    centre_words: int
    centre_escapes: int
    escapes: int


# The centre is rounded in its square root, to this many steps per root mean square.
CENTRE_STEPS = 4
POWERS_PER_UNIT = 16
LARGEST_POWER = 24
# Keeps the width of a coordinate whose mean is zero above zero.
CENTRE_FLOOR = 0.05
LARGEST_LEVEL = 2**15
LARGEST_INT8 = 127
# A class id, a count and a scale.
BYTES_PER_ROW = 3


@dataclass(frozen=True, eq=False)
class CodedClassMeans:
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

    class_ids: Tensor
    counts: Tensor
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
    def num_rows(self) -> int:
        """Number of rows R."""
        return len(self.class_ids)

    @property
    def feature_dim(self) -> int:
        """Dimension d of the feature vectors."""
        return self.levels.shape[1]

    @property
    def dtype(self) -> torch.dtype:
        """Type of the decoded means, float32."""
        return torch.float32

    @property
    def noise(self) -> Tensor:
        """Variance that rounding put on every coordinate of each row, step^2 / (12 n): shape (R,), float32."""
        return (self.step**2 / 12 / self.counts).to(torch.float32)

    @property
    def means(self) -> Tensor:
        """All means, decoded: shape (R, d), float32."""
        return self.rows(slice(0, self.num_rows))

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
        scaled = _reflect(coefficients, self.class_ids[start:stop], counts)[wanted]
        steps = (self.step / counts[wanted].to(torch.float64).sqrt()).to(torch.float32)
        return scaled.mul_(steps[:, None]).add_(self.centre)

    def check_fits(self, num_classes: int, feature_dim: int) -> None:
        """Check the rows against the problem they are meant for; see :meth:`fedcof.ClassMeans.check_fits`."""
        check_problem(self, num_classes, feature_dim)


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
    step = float(np.float32(step))
    rows = ScaledRows.of(upload)
    row_scales = rows.scale_indices(step)
    shift = dither((upload.num_rows, upload.feature_dim), dither_seed)
    levels = (rows.coefficients / step + shift).round_().clamp_(-LARGEST_LEVEL, LARGEST_LEVEL).to(torch.int64)
    centre_words, centre_escapes = rows.centre.encoded()
    words, escapes = encode_levels(levels.numpy(), row_scales, rows.widths, dither_seed)
    ids, counts = (_in_smallest_type(values) for values in (upload.class_ids, upload.counts))
    header = Header(
        VERSION, ids.itemsize, counts.itemsize, rows.centre.scale, rows.power, rows.centre.middle, rows.centre.step,
        step, upload.feature_dim, upload.num_rows, dither_seed, len(centre_words), len(centre_escapes),
        len(escapes),
    )  # fmt: skip
    parts = [ids, counts, row_scales.astype(np.int8), centre_escapes, escapes, centre_words, words]
    content = LAYOUT.pack(*header) + b"".join(_little_endian(part) for part in parts)
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
    parts = _split(content[LAYOUT.size :], header)
    ids, counts, row_scales, centre_escapes, escapes, centre_words, words = parts
    # Before memory is taken for them; both are checked again as they are read.
    check_room(header.dim, centre_words)
    check_room(header.num_rows * header.dim, words)
    centre = _Centre.decoded(header, centre_words, centre_escapes)
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


@dataclass(frozen=True, eq=False)
class ScaledRows:
    """Rows ready to be rounded: what they cost can be told before a step is chosen.

    Attributes
    ----------
    coefficients : Tensor of shape (R, d), float64
        In the first row of a class sqrt(N_c) (mu_c - centre); in the others orthogonal combinations of its rows,
        each of mean 0 and of the covariance of one sample.
    centre : _Centre
        What the rows are relative to.
    power : int
        How fast a coordinate's width grows with its centre, in sixteenths.
    widths : ndarray of shape (d,), int64
        Relative width of each coordinate, in steps of the grid of scales.
    scales : ndarray of shape (R,), float64
        Root mean square of each row over the widths, in the backbone's units.
    """

    coefficients: Tensor
    centre: _Centre
    power: int
    widths: NDArray[np.int64]
    scales: NDArray[np.float64]

    @staticmethod
    def of(upload: ClassMeans) -> ScaledRows:
        """Centre, scale and reflect the rows of an upload, and fit the widths of its coordinates."""
        means, counts = upload.means.to(torch.float64), upload.counts.to(torch.float64)
        centre = _Centre.of(counts @ means / counts.sum().clamp(min=1))
        rows = (means - torch.from_numpy(centre.values()).to(torch.float32)).mul_(counts.sqrt()[:, None])
        coefficients = _reflect(rows, upload.class_ids, upload.counts)
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


@dataclass(frozen=True, eq=False)
class _Centre:
    """What rows are relative to, rounded in its square root, so that small numbers keep their digits.

    ``levels`` (d,) int64 around ``middle``, each worth ``step``; ``scale`` is their scale's place in the grid.
    """

    levels: NDArray[np.int64]
    middle: int
    step: float
    scale: int

    @staticmethod
    def of(vector: Tensor) -> _Centre:
        roots = (vector.sign() * vector.abs().sqrt()).numpy()
        step = float(np.float32(np.sqrt(np.square(roots).mean()) / CENTRE_STEPS)) if len(roots) else 0.0
        levels = np.rint(roots / step).astype(np.int64) if step > 0 else np.zeros(len(roots), dtype=np.int64)
        middle = int(np.rint(levels.mean())) if len(levels) else 0
        spread = np.sqrt(np.square(levels - middle).mean()) if len(levels) else 0.0
        return _Centre(levels - middle, middle, step, int(scale_index(np.array(spread))))

    def values(self) -> NDArray[np.float64]:
        """Give the rounded vector: shape (d,)."""
        roots = (self.levels + self.middle) * self.step
        vector: NDArray[np.float64] = np.sign(roots) * np.square(roots)
        return vector

    def encoded(self) -> tuple[NDArray[np.uint32], NDArray[np.int16]]:
        """Write the levels as a stream, without dither; see :func:`fedcof.entropy_coding.encode_levels`."""
        return encode_levels(self.levels[None], np.array([self.scale]), np.zeros_like(self.levels), None)

    @staticmethod
    def decoded(header: Header, words: NDArray[np.uint32], escapes: NDArray[np.int16]) -> _Centre:
        """Read the levels back."""
        widths = np.zeros(header.dim, dtype=np.int64)
        levels = decode_levels(words, escapes, np.array([header.centre_scale]), widths, None)[0]
        return _Centre(levels.astype(np.int64), header.middle, header.centre_step, header.centre_scale)

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


def _reflect(rows: Tensor, class_ids: Tensor, counts: Tensor) -> Tensor:
    """Reflect each run of rows of one class, in place, between sqrt(n_r / N_c) and the first unit vector.

    Householder's reflection is its own inverse, so it serves both ends.
    """
    classes, run_of_row, sizes = torch.unique_consecutive(class_ids, return_inverse=True, return_counts=True)
    if len(classes) == len(rows):
        return rows
    counts = counts.to(torch.float64)
    totals = torch.zeros(len(classes), dtype=torch.float64).index_add_(0, run_of_row, counts)
    direction = (counts / totals[run_of_row]).sqrt()
    firsts = sizes.cumsum(0) - sizes
    first = direction[firsts]
    # w - 1 for the first, written so that no digits cancel: the others' squares add up to 1 - w^2.
    others = (totals - counts[firsts]) / totals
    direction[firsts] = -others / (1 + first)
    squares = others + direction[firsts].square()
    scale = torch.where(squares > 0, 2 / squares.clamp(min=1e-300), 0.0)[run_of_row]
    column, scaled = direction.to(rows.dtype)[:, None], (scale * direction).to(rows.dtype)[:, None]
    along = torch.zeros(len(classes), rows.shape[1], dtype=rows.dtype).index_add_(0, run_of_row, rows * column)
    return rows.sub_(scaled * along[run_of_row])


def _split(content: bytes, header: Header) -> list[NDArray[Any]]:
    """Cut the arrays that follow a header out of a stream; it must end where they do."""
    known = header.centre_scale < NUM_SCALES and header.power <= LARGEST_POWER
    known = known and 0 <= header.centre_step < float("inf") and 0 < header.step < float("inf")
    if not known or {header.id_bytes, header.count_bytes} - {1, 2, 4, 8}:
        raise _damaged_header()
    rows = header.num_rows
    layout = [(f"<u{header.id_bytes}", rows), (f"<u{header.count_bytes}", rows), ("<i1", rows)]
    layout += [("<i2", header.centre_escapes), ("<i2", header.escapes), ("<u4", header.centre_words)]
    num_words, surplus = divmod(len(content) - sum(np.dtype(kind).itemsize * size for kind, size in layout), 4)
    if num_words < 0 or surplus:
        raise _damaged_header()
    parts, start = [], 0
    for kind, size in [*layout, ("<u4", num_words)]:
        parts.append(np.frombuffer(content, kind, size, start))
        start += parts[-1].nbytes
    return parts


def _damaged_header() -> UserError:
    return UserError("The upload's coded means have a damaged header: send them again.")


def _in_smallest_type(values: Tensor) -> NDArray[Any]:
    array = values.numpy()
    return array.astype(np.min_scalar_type(int(array.max(initial=0))))


def _little_endian(array: NDArray[Any]) -> bytes:
    return array.astype(array.dtype.newbyteorder("<")).tobytes()
