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

from numpy.typing import NDArray

from fedcof.errors import UserError, unknown_name
from fedcof.statistics.class_means import ClassMeanRows, ClassMeans
from fedcof.wire.arrays import Arrays
from fedcof.wire.codec import Codec
from fedcof.wire.coded import CodedMeans
from fedcof.wire.registry import CODECS, encodings_of


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
        is rounded to this over sqrt(n). :func:`fedcof.wire.budget.step_of` gives it.

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
    known = encodings_of(upload.KIND)
    if encoding not in known:
        raise unknown_name("encoding", encoding, known)
    codec = CODECS.get(f"{upload.KIND}.{encoding}")
    if isinstance(codec, CodedMeans) and step is not None:
        return codec.with_step(upload, step, dither_seed)
    return codec.encode(upload, dither_seed)


def codec_of(arrays: Mapping[str, NDArray[Any]]) -> Codec:
    """Find out how arrays without a tag are written.

    Parameters
    ----------
    arrays : mapping of str to ndarray
        What an earlier version, or a client that somebody else wrote, has sent.

    Returns
    -------
    Codec
        The first that knows them.

    Raises
    ------
    UserError
        If none does.
    """
    for tag in CODECS.names():
        if CODECS.get(tag).recognises(arrays):
            return CODECS.get(tag)
    raise UserError(
        f"The upload has the arrays {', '.join(sorted(arrays)) or 'of nothing'}, which no encoding writes: send "
        "what encode_class_means makes."
    )


def decode_class_means(arrays: Mapping[str, NDArray[Any]], tag: str = "") -> ClassMeanRows:
    """Read class means back from their arrays.

    Parameters
    ----------
    arrays : mapping of str to ndarray
        What was sent.
    tag : str
        How they are written; found out where it is empty.

    Returns
    -------
    ClassMeanRows
        Checked, with the variance of the noise that the encoding put on them. Those of ``float16``, ``int8`` and
        ``int4`` take no more memory than they were sent in, those of ``coded`` a byte or two a number, and all are
        decoded as they are read.

    Raises
    ------
    UserError
        If the tag is unknown, an array is missing, the rows are not valid, or the arrays are no class means.
    """
    rows = (CODECS.get(tag) if tag else codec_of(arrays)).decode(arrays)
    if not isinstance(rows, ClassMeanRows):
        raise UserError(
            f"The arrays hold {rows.KIND} statistics and not class means: give the arrays of class means."
        )
    return rows
