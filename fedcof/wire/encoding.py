"""Statistics as the arrays that cross the wire, and back.

``int8`` writes a mean row by row as whole multiples of the row's own step, the largest magnitude over 126.5. Before
rounding, a dither drawn evenly from [-1/2, 1/2) steps is added, and the receiver, who draws the same one, takes it
off again. The error is then even in [-1/2, 1/2) steps whatever the mean was: without bias, independent of the mean,
and of variance step^2 / 12 in every coordinate (Roberts, 1962), which the covariance estimator can subtract.

``int4`` does the same with 15 levels, two to a byte, after a random rotation that spreads each row evenly over its
coordinates; the third number of its ``dither`` says how the rotation is drawn, and uploads of two, which earlier
versions have kept, are read as they were written. ``coded`` rounds to steps in proportion to each row's sampling
noise and writes what is left near its entropy; see :mod:`fedcof.wire.coded_means`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fedcof.errors import UserError, unknown_name
from fedcof.statistics.class_means import ClassMeans
from fedcof.statistics.moments import FeatureMoments
from fedcof.wire.arrays import (
    CLASS_IDS,
    CODED,
    COUNTS,
    DITHER,
    GRAM,
    MEANS,
    STEPS,
    SUMS,
    Arrays,
    decode_classes,
    encode_classes,
    require_arrays,
)
from fedcof.wire.coded_means import CodedClassMeans, read_class_means, rows_claimed, write_class_means
from fedcof.wire.precision import check_moments, check_spread
from fedcof.wire.quantised import LARGEST_LEVEL, LARGEST_LEVEL_OF_INT4, EncodedClassMeans, packed_levels, quantise
from fedcof.wire.rotation import OWN_STREAM, Rotation

ENCODINGS = ["float32", "float16", "int8", "int4", "coded"]


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
        which ``int4``, whose ``means`` are (R, ceil(d / 2)) uint8, adds the dimension and the rotation's version:
        (3,). ``coded`` is one array of that name, uint8.

    Raises
    ------
    UserError
        If the encoding is unknown, a mean is out of its range, the rows of float64 features differ by less than
        float32 can tell, or the step of ``coded`` is missing or unfit.
    """
    # Every encoding is read back as float32; those that round further say by how much, as noise or by their name.
    check_spread(upload.means, upload.counts)
    if encoding == "coded":
        if step is None:
            raise UserError("The encoding coded needs a step: give one, or a budget in bytes that sets it.")
        return {CODED: write_class_means(upload, step, dither_seed)}
    arrays = encode_classes(upload.class_ids, upload.counts)
    if encoding == "float32":
        return {**arrays, MEANS: upload.means.to(torch.float32).numpy()}
    if encoding == "float16":
        means = upload.means.to(torch.float16)
        if not bool(means.isfinite().all()):
            raise UserError("A class mean is beyond float16's 65,504: send it as float32 or int8.")
        return {**arrays, MEANS: means.numpy()}
    if encoding == "int8":
        levels, steps = quantise(upload.means.to(torch.float32), dither_seed, LARGEST_LEVEL)
        return {**arrays, MEANS: levels.numpy(), STEPS: steps, DITHER: np.array([dither_seed], dtype=np.uint32)}
    if encoding == "int4":
        rotation = Rotation.drawn(upload.feature_dim, dither_seed, OWN_STREAM)
        levels, steps = quantise(rotation.apply(upload.means.to(torch.float32)), dither_seed, LARGEST_LEVEL_OF_INT4)
        drawn = np.array([dither_seed, upload.feature_dim, OWN_STREAM], dtype=np.uint32)
        return {**arrays, MEANS: packed_levels(levels), STEPS: steps, DITHER: drawn}
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
    require_arrays(arrays, CLASS_IDS, COUNTS, MEANS)
    classes, means = decode_classes(arrays), torch.from_numpy(np.array(arrays[MEANS]))
    if means.dtype == torch.float16:
        return EncodedClassMeans(*classes, means)
    if means.dtype not in (torch.int8, torch.uint8):
        return ClassMeans(*classes, means.to(torch.float32))
    require_arrays(arrays, STEPS, DITHER)
    steps = torch.from_numpy(np.array(arrays[STEPS], dtype=np.float32))
    drawn = arrays[DITHER]
    belong = means.dim() == 2 and steps.shape == means.shape[:1] and drawn.dtype.kind == "u"
    if not belong or drawn.shape not in ([(1,)] if means.dtype == torch.int8 else [(2,), (3,)]):
        raise UserError("The upload's steps do not belong to its means: send one step per row and one dither.")
    return EncodedClassMeans(*classes, means, steps, *(int(number) for number in drawn))


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

    Raises
    ------
    UserError
        If the samples of float64 features differ by less than float32 can tell.
    """
    check_moments(upload.sums, upload.gram, int(upload.counts.sum()))
    arrays = encode_classes(upload.class_ids, upload.counts)
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
    require_arrays(arrays, CLASS_IDS, COUNTS, SUMS, GRAM)
    sums, gram = (torch.from_numpy(np.array(arrays[name])) for name in (SUMS, GRAM))
    return FeatureMoments(*decode_classes(arrays), sums, gram)
