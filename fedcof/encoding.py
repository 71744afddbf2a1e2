"""Statistics as the arrays that cross the wire, and back.

``int8`` writes a mean row by row as whole multiples of the row's own step, the largest magnitude over 126.5. Before
rounding, a dither drawn evenly from [-1/2, 1/2) steps is added, and the receiver, who draws the same one, takes it
off again. The error is then even in [-1/2, 1/2) steps whatever the mean was: without bias, independent of the mean,
and of variance step^2 / 12 in every coordinate (Roberts, 1962), which the covariance estimator can subtract.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedcof.errors import UserError, unknown_name
from fedcof.statistics import ClassMeans, FeatureMoments

ENCODINGS = ["float32", "float16", "int8"]

CLASS_IDS = "class-ids"
COUNTS = "counts"
MEANS = "means"
STEPS = "steps"
DITHER = "dither"
SUMS = "sums"
GRAM = "gram"

LARGEST_LEVEL = 127

Arrays = dict[str, NDArray[Any]]


def encode_class_means(upload: ClassMeans, encoding: str = "float32", dither_seed: int = 0) -> Arrays:
    """Turn class means into named arrays.

    Parameters
    ----------
    upload : ClassMeans
        R rows of dimension d.
    encoding : {"float32", "float16", "int8"}
        How the means are written.
    dither_seed : int
        Seed of the dither of ``int8``, sent along; every upload should have its own.

    Returns
    -------
    dict of str to ndarray
        ``class-ids`` (R,) and ``counts`` (R,) in the smallest unsigned type that holds them, ``means`` (R, d) in
        the encoding's type; for ``int8`` also ``steps`` (R,) float32 and ``dither`` (1,) uint32.

    Raises
    ------
    UserError
        If the encoding is unknown, or a mean is out of its range.
    """
    arrays = _encode_classes(upload.class_ids, upload.counts)
    if encoding == "float32":
        return {**arrays, MEANS: upload.means.to(torch.float32).numpy()}
    if encoding == "float16":
        means = upload.means.to(torch.float16)
        if not bool(means.isfinite().all()):
            raise UserError("A class mean is beyond float16's 65,504: send it as float32 or int8.")
        return {**arrays, MEANS: means.numpy()}
    if encoding == "int8":
        levels, steps = _quantise(upload.means.to(torch.float32), dither_seed)
        return {**arrays, MEANS: levels, STEPS: steps, DITHER: np.array([dither_seed], dtype=np.uint32)}
    raise unknown_name("encoding", encoding, ENCODINGS)


def decode_class_means(arrays: Mapping[str, NDArray[Any]]) -> ClassMeans:
    """Read class means back from their arrays.

    Parameters
    ----------
    arrays : mapping of str to ndarray
        What :func:`encode_class_means` gave.

    Returns
    -------
    ClassMeans
        The rows, checked; with the variance of the noise that the encoding put on them.

    Raises
    ------
    UserError
        If an array is missing or the rows are not valid.
    """
    _require_arrays(arrays, CLASS_IDS, COUNTS, MEANS)
    means, noise = torch.from_numpy(np.array(arrays[MEANS])), None
    if means.dtype == torch.int8:
        _require_arrays(arrays, STEPS, DITHER)
        steps = torch.from_numpy(np.array(arrays[STEPS], dtype=np.float32))
        if means.dim() != 2 or steps.shape != means.shape[:1] or arrays[DITHER].shape != (1,):
            raise UserError("The upload's steps do not belong to its means: send one step per row and one dither.")
        means, noise = _dequantise(means, steps, int(arrays[DITHER][0])), steps.square() / 12
    return ClassMeans(*_decode_classes(arrays), means.to(torch.float32), noise)


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


def _quantise(means: Tensor, seed: int) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Round to multiples of each row's step: levels (R, d) and steps (R,)."""
    # Half a level is left free for the dither.
    steps = means.abs().amax(dim=1) / (LARGEST_LEVEL - 0.5)
    levels = (means / torch.where(steps > 0, steps, 1.0)[:, None] + _dither(means.shape, seed)).round_()
    return levels.clamp_(-LARGEST_LEVEL, LARGEST_LEVEL).to(torch.int8).numpy(), steps.numpy()


def _dequantise(levels: Tensor, steps: Tensor, seed: int) -> Tensor:
    return (levels - _dither(levels.shape, seed)).mul_(steps[:, None])


def _dither(shape: torch.Size, seed: int) -> Tensor:
    """Draw the dither, the same on both ends: even in [-1/2, 1/2), float32."""
    generator = np.random.Generator(np.random.Philox(seed))
    return torch.from_numpy(generator.random(tuple(shape), dtype=np.float32) - np.float32(0.5))


def _require_arrays(arrays: Mapping[str, NDArray[Any]], *names: str) -> None:
    missing = [name for name in names if name not in arrays]
    if missing:
        raise UserError(f"The upload lacks {', '.join(missing)}: send all of {', '.join(names)}.")
