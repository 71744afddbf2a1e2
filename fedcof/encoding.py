"""Statistics as the arrays that cross the wire, and back.

``int8`` writes a mean row by row as whole multiples of the row's own step, the largest magnitude over 126.5. Before
rounding, a dither drawn evenly from [-1/2, 1/2) steps is added, and the receiver, who draws the same one, takes it
off again. The error is then even in [-1/2, 1/2) steps whatever the mean was: without bias, independent of the mean,
and of variance step^2 / 12 in every coordinate (Roberts, 1962), which the covariance estimator can subtract.

``int4`` does the same with 15 levels, two to a byte, after a random rotation that spreads each row evenly over its
coordinates. ``coded`` rounds to steps in proportion to each row's sampling noise and writes what is left near its
entropy; see :mod:`fedcof.coded_means`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedcof.coded_means import CodedClassMeans, read_class_means, rows_claimed, write_class_means
from fedcof.dither import dither
from fedcof.errors import UserError, unknown_name
from fedcof.rotation import Rotation
from fedcof.statistics import ClassMeans, FeatureMoments, check_classes, check_problem, require

ENCODINGS = ["float32", "float16", "int8", "int4", "coded"]

CLASS_IDS = "class-ids"
COUNTS = "counts"
MEANS = "means"
STEPS = "steps"
DITHER = "dither"
CODED = "coded"
SUMS = "sums"
GRAM = "gram"

LARGEST_LEVEL = 127
LARGEST_LEVEL_OF_INT4 = 7

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True, eq=False)
class EncodedClassMeans:
    """Class means that stay as they were sent, and are decoded block by block when somebody reads them.

    Parameters
    ----------
    class_ids : Tensor of shape (R,), int64
        Class of each row, counted from 0.
    counts : Tensor of shape (R,), int64
        Number of samples behind each row, at least 1.
    values : Tensor of shape (R, d), float16 or int8; or (R, ceil(d / 2)), uint8
        Mean feature vectors, or the levels that stand for them; those of int4 plus 8, the first of two in the upper
        half of the byte.
    steps : Tensor of shape (R,), float32, optional
        What one level of each row is worth; for int8 and int4.
    dither_seed : int
        Seed of the dither that was added before rounding, and of the rotation of int4.
    dim : int, optional
        Dimension d of the feature vectors; for int4.

    Raises
    ------
    UserError
        As :class:`fedcof.ClassMeans`, whatever the form: a mean that would decode to no finite number is refused
        here, not when it is read.
    """

    class_ids: Tensor
    counts: Tensor
    values: Tensor
    steps: Tensor | None = None
    dither_seed: int = 0
    dim: int | None = None

    def __post_init__(self) -> None:
        check_classes(self.class_ids, self.counts)
        require(self.values.dim() == 2, "means", "the shape (rows, feature dimension)", self.values.shape)
        require(len(self.values) == len(self.class_ids), "means", "one vector per row", self.values.shape)
        if self.steps is None:
            require(self.values.dtype == torch.float16, "means", "type float16 or steps", self.values.dtype)
            finite = self.values.isfinite()
        else:
            levels = torch.int8 if self.dim is None else torch.uint8
            require(self.values.dtype == levels, "means", f"type {levels}", self.values.dtype)
            require(self.steps.shape == self.class_ids.shape, "steps", "one step per row", self.steps.shape)
            # A rotation can gather a whole row in one coordinate.
            finite = (self.steps * ((LARGEST_LEVEL + 2) * (self.dim or 1) ** 0.5)).isfinite()
        if self.dim is not None:
            width = (self.dim + 1) // 2
            require(self.values.shape[1] == width, "means", f"{width} bytes a row", self.values.shape)
        require(bool(finite.all()), "means", "finite numbers", "NaN or infinity")

    @property
    def num_rows(self) -> int:
        """Number of rows R."""
        return len(self.class_ids)

    @property
    def feature_dim(self) -> int:
        """Dimension d of the feature vectors."""
        return self.values.shape[1] if self.dim is None else self.dim

    @property
    def dtype(self) -> torch.dtype:
        """Type of the decoded means, float32."""
        return torch.float32

    @property
    def noise(self) -> Tensor | None:
        """Variance that rounding put on every coordinate of each row: shape (R,), float32; none for float16."""
        return None if self.steps is None else self.steps.square() / 12

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
        values = self.values[block]
        if self.steps is None:
            return values.to(torch.float32)
        shift = dither((len(values), self.feature_dim), self.dither_seed, first_row=block.start)
        levels = values if self.dim is None else _unpacked(values, self.dim)
        means = torch.sub(levels, shift, out=shift).mul_(self.steps[block, None])
        return means if self.dim is None else Rotation.drawn(self.dim, self.dither_seed).invert(means)

    def check_fits(self, num_classes: int, feature_dim: int) -> None:
        """Check the rows against the problem they are meant for; see :meth:`fedcof.ClassMeans.check_fits`."""
        check_problem(self, num_classes, feature_dim)


def encode_class_means(
    upload: ClassMeans, encoding: str = "float32", dither_seed: int = 0, step: float | None = None
) -> Arrays:
    """Turn class means into named arrays.

    Parameters
    ----------
    upload : ClassMeans
        R rows of dimension d.
    encoding : {"float32", "float16", "int8", "int4", "coded"}
        How the means are written.
    dither_seed : int
        Seed of the dither of ``int8``, ``int4`` and ``coded``, sent along; every upload should have its own.
    step : float, optional
        For ``coded``, and needed there: step of a mean of one sample, in the backbone's units; a mean of n samples
        is rounded to this over sqrt(n). :func:`fedcof.budget.step_of` gives it.

    Returns
    -------
    dict of str to ndarray
        ``class-ids`` (R,) and ``counts`` (R,) in the smallest unsigned type that holds them, ``means`` (R, d) in
        the encoding's type; for ``int8`` and ``int4`` also ``steps`` (R,) float32 and ``dither`` (1,) uint32, in
        which ``int4``, whose ``means`` are (R, ceil(d / 2)) uint8, adds the dimension: (2,). ``coded`` is one array
        of that name, uint8.

    Raises
    ------
    UserError
        If the encoding is unknown, a mean is out of its range, or the step of ``coded`` is missing or unfit.
    """
    if encoding == "coded":
        if step is None:
            raise UserError("The encoding coded needs a step: give one, or a budget in bytes that sets it.")
        return {CODED: write_class_means(upload, step, dither_seed)}
    arrays = _encode_classes(upload.class_ids, upload.counts)
    if encoding == "float32":
        return {**arrays, MEANS: upload.means.to(torch.float32).numpy()}
    if encoding == "float16":
        means = upload.means.to(torch.float16)
        if not bool(means.isfinite().all()):
            raise UserError("A class mean is beyond float16's 65,504: send it as float32 or int8.")
        return {**arrays, MEANS: means.numpy()}
    if encoding == "int8":
        levels, steps = _quantise(upload.means.to(torch.float32), dither_seed, LARGEST_LEVEL)
        return {**arrays, MEANS: levels.numpy(), STEPS: steps, DITHER: np.array([dither_seed], dtype=np.uint32)}
    if encoding == "int4":
        rotated = Rotation.drawn(upload.feature_dim, dither_seed).apply(upload.means.to(torch.float32))
        levels, steps = _quantise(rotated, dither_seed, LARGEST_LEVEL_OF_INT4)
        seed_and_dim = np.array([dither_seed, upload.feature_dim], dtype=np.uint32)
        return {**arrays, MEANS: _packed(levels), STEPS: steps, DITHER: seed_and_dim}
    raise unknown_name("encoding", encoding, ENCODINGS)


def decode_class_means(arrays: Mapping[str, NDArray[Any]]) -> ClassMeans | EncodedClassMeans | CodedClassMeans:
    """Read class means back from their arrays.

    Parameters
    ----------
    arrays : mapping of str to ndarray
        What :func:`encode_class_means` gave.

    Returns
    -------
    ClassMeans, EncodedClassMeans or CodedClassMeans
        The rows, checked; with the variance of the noise that the encoding put on them. Those of ``float16``,
        ``int8`` and ``int4`` take no more memory than they were sent in, those of ``coded`` a byte or two a number,
        and all are decoded as they are read.

    Raises
    ------
    UserError
        If an array is missing or the rows are not valid.
    """
    if CODED in arrays:
        return read_class_means(arrays[CODED])
    _require_arrays(arrays, CLASS_IDS, COUNTS, MEANS)
    classes, means = _decode_classes(arrays), torch.from_numpy(np.array(arrays[MEANS]))
    if means.dtype == torch.float16:
        return EncodedClassMeans(*classes, means)
    if means.dtype not in (torch.int8, torch.uint8):
        return ClassMeans(*classes, means.to(torch.float32))
    _require_arrays(arrays, STEPS, DITHER)
    steps = torch.from_numpy(np.array(arrays[STEPS], dtype=np.float32))
    seed_and_dim = arrays[DITHER]
    belong = means.dim() == 2 and steps.shape == means.shape[:1] and seed_and_dim.dtype.kind == "u"
    if not belong or seed_and_dim.shape != ((1,) if means.dtype == torch.int8 else (2,)):
        raise UserError("The upload's steps do not belong to its means: send one step per row and one dither.")
    return EncodedClassMeans(*classes, means, steps, *(int(number) for number in seed_and_dim))


def count_rows(arrays: Mapping[str, NDArray[Any]]) -> int:
    """Count the rows that an upload claims to have, before memory is taken for them.

    Parameters
    ----------
    arrays : mapping of str to ndarray
        What a client sent.

    Returns
    -------
    int
        The number; 0 where the arrays do not say, which :func:`decode_class_means` then refuses.
    """
    if CODED in arrays:
        return rows_claimed(arrays[CODED])
    return len(np.atleast_1d(arrays[CLASS_IDS])) if CLASS_IDS in arrays else 0


def encode_feature_moments(upload: FeatureMoments) -> Arrays:
    """Turn second-order statistics into named arrays.

    Parameters
    ----------
    upload : FeatureMoments
        R classes of dimension d.

    Returns
    -------
    dict of str to ndarray
        ``class-ids`` (R,) and ``counts`` (R,) in the smallest unsigned type that holds them, ``sums`` (R, d) and
        ``gram`` (d (d + 1) / 2,) in float32.
    """
    arrays = _encode_classes(upload.class_ids, upload.counts)
    return {**arrays, SUMS: upload.sums.to(torch.float32).numpy(), GRAM: upload.gram.to(torch.float32).numpy()}


def decode_feature_moments(arrays: Mapping[str, NDArray[Any]]) -> FeatureMoments:
    """Read second-order statistics back from their arrays.

    Parameters
    ----------
    arrays : mapping of str to ndarray
        What :func:`encode_feature_moments` gave.

    Returns
    -------
    FeatureMoments
        Checked.

    Raises
    ------
    UserError
        If an array is missing or does not hold what it should.
    """
    _require_arrays(arrays, CLASS_IDS, COUNTS, SUMS, GRAM)
    sums, gram = (torch.from_numpy(np.array(arrays[name])) for name in (SUMS, GRAM))
    return FeatureMoments(*_decode_classes(arrays), sums, gram)


def num_bytes(arrays: Mapping[str, NDArray[Any]]) -> int:
    """Count the bytes of the numbers themselves, without names, types or framing.

    Parameters
    ----------
    arrays : mapping of str to ndarray
        An encoded upload.

    Returns
    -------
    int
        Sum of the arrays' sizes.
    """
    return sum(array.nbytes for array in arrays.values())


def _encode_classes(class_ids: Tensor, counts: Tensor) -> Arrays:
    return {CLASS_IDS: _in_smallest_type(class_ids), COUNTS: _in_smallest_type(counts)}


def _in_smallest_type(values: Tensor) -> NDArray[Any]:
    array = values.numpy()
    return array.astype(np.min_scalar_type(int(array.max(initial=0))))


def _decode_classes(arrays: Mapping[str, NDArray[Any]]) -> tuple[Tensor, Tensor]:
    for name in (CLASS_IDS, COUNTS):
        if arrays[name].dtype.kind not in "iu":
            raise UserError(f"The field {name} must hold whole numbers, but holds {arrays[name].dtype}: mend it.")
    class_ids, counts = (torch.from_numpy(arrays[name].astype(np.int64)) for name in (CLASS_IDS, COUNTS))
    return class_ids, counts


def _quantise(means: Tensor, seed: int, largest_level: int) -> tuple[Tensor, NDArray[np.float32]]:
    """Round to multiples of each row's step: levels (R, d), int8, and steps (R,)."""
    # Half a level is left free for the dither.
    steps = (means.abs().amax(dim=1) if means.shape[1] else means.new_zeros(len(means))) / (largest_level - 0.5)
    shift = dither((len(means), means.shape[1]), seed)
    levels = (means / torch.where(steps > 0, steps, 1.0)[:, None] + shift).round_()
    return levels.clamp_(-largest_level, largest_level).to(torch.int8), steps.numpy()


def _packed(levels: Tensor) -> NDArray[np.uint8]:
    """Put two levels of four bits into a byte: shape (R, ceil(d / 2))."""
    halves = np.pad((levels.numpy() + 8).astype(np.uint8), ((0, 0), (0, levels.shape[1] % 2)))
    packed: NDArray[np.uint8] = halves[:, ::2] * np.uint8(16) + halves[:, 1::2]
    return packed


def _unpacked(values: Tensor, dim: int) -> Tensor:
    """Take the levels out of their bytes again: shape (R, d), int8."""
    halves = torch.stack([values >> 4, values & 15], dim=2).flatten(1)
    return halves[:, :dim].to(torch.int8).sub_(8)


def _require_arrays(arrays: Mapping[str, NDArray[Any]], *names: str) -> None:
    missing = [name for name in names if name not in arrays]
    if missing:
        raise UserError(f"The upload lacks {', '.join(missing)}: send all of {', '.join(names)}.")
