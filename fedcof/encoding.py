"""Statistics as the arrays that cross the wire, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fedcof.errors import UserError, unknown_name
from fedcof.statistics import ClassMeans

ENCODINGS = ["float32"]

CLASS_IDS = "class-ids"
COUNTS = "counts"
MEANS = "means"

Arrays = dict[str, NDArray[Any]]


def encode_class_means(upload: ClassMeans, encoding: str = "float32") -> Arrays:
    """Turn an upload into named arrays.

    Parameters
    ----------
    upload : ClassMeans
        R rows of dimension d.
    encoding : {"float32"}
        How the means are written.

    Returns
    -------
    dict of str to ndarray
        ``class-ids`` (R,) int32, ``counts`` (R,) int32, ``means`` (R, d) float32.

    Raises
    ------
    UserError
        If the encoding is unknown.
    """
    if encoding not in ENCODINGS:
        raise unknown_name("encoding", encoding, ENCODINGS)
    return {
        CLASS_IDS: upload.class_ids.to(torch.int32).numpy(),
        COUNTS: upload.counts.to(torch.int32).numpy(),
        MEANS: upload.means.to(torch.float32).numpy(),
    }


def decode_class_means(arrays: Mapping[str, NDArray[Any]]) -> ClassMeans:
    """Read an upload back from its arrays.

    Parameters
    ----------
    arrays : mapping of str to ndarray
        What :func:`encode_class_means` gave.

    Returns
    -------
    ClassMeans
        The rows, checked.

    Raises
    ------
    UserError
        If an array is missing or the rows are not valid.
    """
    missing = [name for name in (CLASS_IDS, COUNTS, MEANS) if name not in arrays]
    if missing:
        raise UserError(f"The upload lacks {', '.join(missing)}: send all of {CLASS_IDS}, {COUNTS} and {MEANS}.")
    return ClassMeans(
        class_ids=torch.from_numpy(np.asarray(arrays[CLASS_IDS], dtype=np.int64)),
        counts=torch.from_numpy(np.asarray(arrays[COUNTS], dtype=np.int64)),
        means=torch.from_numpy(np.array(arrays[MEANS])),
    )
