"""Class means rounded to eight or four bits with subtractive dither, decoded as they are read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedcof.errors import UserError
from fedcof.statistics.class_means import ClassMeans, DecodedRows
from fedcof.statistics.validation import check_classes, require
from fedcof.wire.arrays import (
    DITHER,
    MEANS,
    STEPS,
    Arrays,
    decode_classes,
    encode_classes,
    require_classes,
    row_count,
)
from fedcof.wire.codec import Codec
from fedcof.wire.dither import dither
from fedcof.wire.precision import check_spread
from fedcof.wire.rotation import OWN_STREAM, ROTATION_VERSIONS, STREAM_OF_DITHER, Rotation

LARGEST_LEVEL = 127
LARGEST_LEVEL_OF_INT4 = 7


@dataclass(frozen=True, eq=False)
class EncodedClassMeans(DecodedRows):
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
    rotation : {1, 2}
        How the rotation of int4 is drawn; see :meth:`Rotation.drawn`. An upload that does not say is of the first
        version.

    Raises
    ------
    UserError
        As :class:`fedcof.ClassMeans`, whatever the form: a mean that would decode to no finite number is refused
        here, not when it is read.
    """

    values: Tensor
    steps: Tensor | None = None
    dither_seed: int = 0
    dim: int | None = None
    rotation: int = STREAM_OF_DITHER

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
            known = self.rotation in ROTATION_VERSIONS
            require(known, "dither", "a rotation of version 1 or 2", f"version {self.rotation}")
        require(bool(finite.all()), "means", "finite numbers", "NaN or infinity")

    @property
    def feature_dim(self) -> int:
        """Dimension d of the feature vectors."""
        return self.values.shape[1] if self.dim is None else self.dim

    @property
    def noise(self) -> Tensor | None:
        """Variance that rounding put on every coordinate of each row: shape (R,), float32; none for float16."""
        return None if self.steps is None else self.steps.square() / 12

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
        if self.dim is None:
            return means
        return Rotation.drawn(self.dim, self.dither_seed, self.rotation).invert(means)


def quantise(means: Tensor, seed: int, largest_level: int) -> tuple[Tensor, NDArray[np.float32]]:
    """Round to multiples of each row's step: levels (R, d), int8, and steps (R,)."""
    # Half a level is left free for the dither.
    steps = (means.abs().amax(dim=1) if means.shape[1] else means.new_zeros(len(means))) / (largest_level - 0.5)
    shift = dither((len(means), means.shape[1]), seed)
    levels = (means / torch.where(steps > 0, steps, 1.0)[:, None] + shift).round_()
    return levels.clamp_(-largest_level, largest_level).to(torch.int8), steps.numpy()


def packed_levels(levels: Tensor) -> NDArray[np.uint8]:
    """Put two levels of four bits into a byte: shape (R, ceil(d / 2))."""
    halves = np.pad((levels.numpy() + 8).astype(np.uint8), ((0, 0), (0, levels.shape[1] % 2)))
    packed: NDArray[np.uint8] = halves[:, ::2] * np.uint8(16) + halves[:, 1::2]
    return packed


def _unpacked(values: Tensor, dim: int) -> Tensor:
    """Take the levels out of their bytes again: shape (R, d), int8."""
    halves = torch.stack([values >> 4, values & 15], dim=2).flatten(1)
    return halves[:, :dim].to(torch.int8).sub_(8)


class Int8Means(Codec):
    """Class means in eight bits: ``means`` (R, d) int8, ``steps`` (R,) and ``dither`` (1,), its seed."""

    kind: ClassVar[str] = "class-means"
    encoding: ClassVar[str] = "int8"
    numbers: ClassVar[tuple[int, ...]] = (1,)

    def encode(self, statistics: ClassMeans, seed: int) -> Arrays:
        """Write class means; see :meth:`Codec.encode`."""
        check_spread(statistics.means, statistics.counts)
        levels, steps = quantise(statistics.means.to(torch.float32), seed, LARGEST_LEVEL)
        classes = encode_classes(statistics.class_ids, statistics.counts)
        return {**classes, MEANS: levels.numpy(), STEPS: steps, DITHER: np.array([seed], dtype=np.uint32)}

    def decode(self, arrays: Mapping[str, NDArray[Any]]) -> EncodedClassMeans:
        """Read class means back; see :meth:`Codec.decode`."""
        require_classes(arrays, MEANS, STEPS, DITHER)
        means = torch.from_numpy(np.array(arrays[MEANS]))
        steps = torch.from_numpy(np.array(arrays[STEPS], dtype=np.float32))
        said = arrays[DITHER]
        belong = means.dim() == 2 and steps.shape == means.shape[:1] and said.dtype.kind == "u"
        if not belong or said.ndim != 1 or len(said) not in self.numbers:
            raise UserError("The upload's steps do not belong to its means: send one step per row and one dither.")
        return EncodedClassMeans(*decode_classes(arrays), means, steps, *(int(number) for number in said))

    def rows_claimed(self, arrays: Mapping[str, NDArray[Any]]) -> int:
        """Count the class ids; see :meth:`Codec.rows_claimed`."""
        return row_count(arrays)

    def recognises(self, arrays: Mapping[str, NDArray[Any]]) -> bool:
        """Take means of int8; see :meth:`Codec.recognises`."""
        return MEANS in arrays and arrays[MEANS].dtype == np.int8


class Int4Means(Int8Means):
    """Class means in four bits, rotated: ``means`` (R, ceil(d / 2)), and the dimension beside the seed."""

    encoding: ClassVar[str] = "int4"
    # Uploads of earlier versions do not say the last, which tells how the rotation is drawn.
    numbers: ClassVar[tuple[int, ...]] = (2, 3)

    def encode(self, statistics: ClassMeans, seed: int) -> Arrays:
        """Write class means; see :meth:`Codec.encode`."""
        check_spread(statistics.means, statistics.counts)
        rotation = Rotation.drawn(statistics.feature_dim, seed, OWN_STREAM)
        rotated = rotation.apply(statistics.means.to(torch.float32))
        levels, steps = quantise(rotated, seed, LARGEST_LEVEL_OF_INT4)
        said = np.array([seed, statistics.feature_dim, OWN_STREAM], dtype=np.uint32)
        classes = encode_classes(statistics.class_ids, statistics.counts)
        return {**classes, MEANS: packed_levels(levels), STEPS: steps, DITHER: said}

    def recognises(self, arrays: Mapping[str, NDArray[Any]]) -> bool:
        """Take means of uint8; see :meth:`Codec.recognises`."""
        return MEANS in arrays and arrays[MEANS].dtype == np.uint8


INT8 = Int8Means()
INT4 = Int4Means()
