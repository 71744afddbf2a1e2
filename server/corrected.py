"""Kept uploads of which a class was taken out: the rows that are left, to the last bit as they decoded before.

An encoding rounds, and its rounding noise depends on a row's place in the upload, so what is left of a coded upload
cannot be coded again without moving it. It is kept as it decodes: means in float32 and, where there is one, the
variance of their known noise. No client may send that: only what the server itself has written is read so.
"""

from __future__ import annotations

import torch

from fedcof import UserError
from fedcof.statistics.base import Statistics
from fedcof.statistics.class_means import ClassMeanRows, ClassMeans
from fedcof.wire.arrays import CLASS_IDS, COUNTS, MEANS, Arrays
from fedcof.wire.codec import Sent
from fedcof.wire.encoding import codec_of
from fedcof.wire.registry import CODECS

# No codec's: what comes over the wire under it is unknown.
TAG = "class-means.corrected"
NOISE = "noise"


def without_classes(statistics: Statistics, classes: torch.Tensor) -> ClassMeans:
    """Take classes out of an upload.

    Parameters
    ----------
    statistics : Statistics
        The upload, decoded.
    classes : Tensor of shape (k,), int64
        Classes that are to go.

    Returns
    -------
    ClassMeans
        The other rows, in their order and to the last bit.

    Raises
    ------
    UserError
        If the statistics mix all classes, or are of a type of their own.
    """
    if not isinstance(statistics, ClassMeanRows) or statistics.dtype != torch.float32:
        raise UserError(
            f"The statistics {statistics.KIND} mix all classes, or are no float32, so a class cannot be taken out "
            "of them: forget the whole client, or have it answer again without those samples."
        )
    left = ~torch.isin(statistics.class_ids, classes)
    noise = None if statistics.noise is None else statistics.noise[left].clone()
    means = statistics.rows(slice(0, statistics.num_rows))[left].clone()
    return ClassMeans(statistics.class_ids[left], statistics.counts[left], means, noise)


def decoded(sent: Sent) -> Statistics:
    """Decode a kept upload, without a look at what privacy has done.

    Parameters
    ----------
    sent : Sent
        As it was sent, or corrected.

    Returns
    -------
    Statistics
        As its codec gives them.

    Raises
    ------
    UserError
        If they cannot be read.
    """
    rows = corrected_rows(sent)
    if rows is not None:
        return rows
    return (CODECS.get(sent.tag) if sent.tag else codec_of(sent.arrays)).decode(sent.arrays)


def corrected(rows: ClassMeans) -> Sent:
    """Write rows as they are.

    Parameters
    ----------
    rows : ClassMeans
        In float32.

    Returns
    -------
    Sent
        For :func:`corrected_rows`.
    """
    arrays: Arrays = {CLASS_IDS: rows.class_ids.numpy(), COUNTS: rows.counts.numpy(), MEANS: rows.means.numpy()}
    if rows.noise is not None:
        arrays[NOISE] = rows.noise.numpy()
    return Sent(arrays, TAG)


def corrected_rows(sent: Sent) -> ClassMeans | None:
    """Read rows back.

    Parameters
    ----------
    sent : Sent
        A kept upload.

    Returns
    -------
    ClassMeans or None
        None where it is as its client sent it.
    """
    if sent.tag != TAG:
        return None
    arrays = {name: torch.from_numpy(array) for name, array in sent.arrays.items()}
    return ClassMeans(arrays[CLASS_IDS], arrays[COUNTS], arrays[MEANS], arrays.get(NOISE))
