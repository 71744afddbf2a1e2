"""Named arrays that cross the wire: classes and counts in the smallest type that holds them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedcof.errors import UserError

CLASS_IDS = "class-ids"


COUNTS = "counts"


MEANS = "means"


STEPS = "steps"


DITHER = "dither"


CODED = "coded"


SUMS = "sums"


GRAM = "gram"


Arrays = dict[str, NDArray[Any]]


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


def encode_classes(class_ids: Tensor, counts: Tensor) -> Arrays:
    """Write class ids and counts in the smallest unsigned types that hold them."""
    return {CLASS_IDS: _in_smallest_type(class_ids), COUNTS: _in_smallest_type(counts)}


def _in_smallest_type(values: Tensor) -> NDArray[Any]:
    array = values.numpy()
    return array.astype(np.min_scalar_type(int(array.max(initial=0))))


def decode_classes(arrays: Mapping[str, NDArray[Any]]) -> tuple[Tensor, Tensor]:
    """Read class ids and counts back as int64; raises UserError if they are no whole numbers."""
    for name in (CLASS_IDS, COUNTS):
        if arrays[name].dtype.kind not in "iu":
            raise UserError(f"The field {name} must hold whole numbers, but holds {arrays[name].dtype}: mend it.")
    class_ids, counts = (torch.from_numpy(arrays[name].astype(np.int64)) for name in (CLASS_IDS, COUNTS))
    return class_ids, counts


def require_arrays(arrays: Mapping[str, NDArray[Any]], *names: str) -> None:
    """Check that an upload has all arrays that it needs; raises UserError that names the missing."""
    missing = [name for name in names if name not in arrays]
    if missing:
        raise UserError(f"The upload lacks {', '.join(missing)}: send all of {', '.join(names)}.")


def require_classes(arrays: Mapping[str, NDArray[Any]], *names: str) -> None:
    """Check that an upload has its classes and counts, and some more arrays; raises UserError."""
    require_arrays(arrays, CLASS_IDS, COUNTS, *names)


def row_count(arrays: Mapping[str, NDArray[Any]]) -> int:
    """Count the class ids of an upload that has them as an array; 0 where it has none."""
    return len(np.atleast_1d(arrays[CLASS_IDS])) if CLASS_IDS in arrays else 0
