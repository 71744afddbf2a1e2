"""What tells a backbone that has been trained from others: the frozen one's fingerprint and all that trains."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray


def digest_of_arrays(arrays: Mapping[str, NDArray[Any]]) -> str:
    """Digest a network's arrays.

    Parameters
    ----------
    arrays : mapping of str to ndarray
        What trains, by name, in any order.

    Returns
    -------
    str
        Hexadecimal SHA-256 digest of names, types, shapes and values.
    """
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def trained_fingerprint(frozen: str, arrays: Mapping[str, NDArray[Any]]) -> str:
    """Give the fingerprint of a backbone that has been trained.

    Parameters
    ----------
    frozen : str
        That of the backbone which training started from, see :class:`fedcof.embedding.backbones.Backbone`.
    arrays : mapping of str to ndarray
        What has been trained since.

    Returns
    -------
    str
        As long as any backbone's; equal on two sides that have the same frozen backbone and the same arrays.
    """
    return hashlib.sha256(f"{frozen} {digest_of_arrays(arrays)}".encode()).hexdigest()
