"""An upload's named arrays packed into one run of bytes, because each array of a message costs Flower some 480.

The bytes are MessagePack values, one after another and none within another, so that a reader needs no more memory
than for the bytes it was given: a version; then for each array its name, numpy's name of its type (``<f4``), its
number of dimensions, each of them, and its numbers in C order, least significant byte first. An array costs 10 to
20 bytes beside its numbers and its name; safetensors' header of JSON takes some 60, and numpy's own 128.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import TYPE_CHECKING, Any

import msgpack
import numpy as np
from numpy.typing import NDArray

from fedcof.errors import UserError

if TYPE_CHECKING:
    from fedcof.wire.arrays import Arrays

VERSION = 1
MOST_ARRAYS = 32
MOST_DIMENSIONS = 4
LONGEST_NAME = 100
LARGEST_DIMENSION = 2**32 - 1
TYPES = frozenset(["|b1", "|i1", "|u1", "<i2", "<u2", "<i4", "<u4", "<i8", "<u8", "<f2", "<f4", "<f8"])


def pack_arrays(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """Put named arrays into one run of bytes.

    Parameters
    ----------
    arrays : mapping of str to ndarray
        At most 32, of truth values, whole numbers or fractions, and of at most four dimensions.

    Returns
    -------
    bytes
        For :func:`unpack_arrays`.

    Raises
    ------
    UserError
        If an array is none of these.
    """
    packer = msgpack.Packer()
    parts = [packer.pack(VERSION)]
    for name, array in arrays.items():
        contiguous = np.ascontiguousarray(array, array.dtype.newbyteorder("<")).reshape(array.shape)
        if not _is_known(name, contiguous.dtype.str, len(array.shape), len(arrays)):
            raise UserError(
                f"The array {name[:LONGEST_NAME]!r} holds {array.dtype} in {array.ndim} dimensions and cannot be "
                f"packed: send at most {MOST_ARRAYS} arrays of numbers, of at most {MOST_DIMENSIONS} dimensions."
            )
        described = (name, contiguous.dtype.str, array.ndim, *array.shape, contiguous.tobytes())
        parts += map(packer.pack, described)
    return b"".join(parts)


def unpack_arrays(packed: bytes) -> Arrays:
    """Take named arrays out again; the inverse of :func:`pack_arrays`.

    Parameters
    ----------
    packed : bytes
        What was sent.

    Returns
    -------
    dict of str to ndarray
        Read-only, as they were.

    Raises
    ------
    UserError
        If it is not what :func:`pack_arrays` makes. No memory is taken but for as many bytes as there are.
    """
    size = len(packed)
    # Nothing that holds other values is taken, and nothing longer than what was sent.
    unpacker = msgpack.Unpacker(
        max_buffer_size=max(size, 1), max_bin_len=size, max_str_len=LONGEST_NAME, max_array_len=0, max_map_len=0,
        max_ext_len=0,
    )  # fmt: skip
    arrays: Arrays = {}
    try:
        unpacker.feed(packed)
        version = unpacker.unpack()
        if version != VERSION:
            raise UserError(f"The packed arrays are of another version than {VERSION}: use one version of fedcof.")
        while unpacker.tell() < size:
            name, array = _next_array(unpacker, len(arrays) + 1)
            if name in arrays:
                raise _damaged(f"two are called {name}")
            arrays[name] = array
    except (msgpack.UnpackException, ValueError, TypeError) as error:
        raise _damaged("they end too soon, or hold what no array has") from error
    return arrays


def _next_array(unpacker: msgpack.Unpacker, number: int) -> tuple[str, NDArray[Any]]:
    name, kind, dimensions = (unpacker.unpack() for _ in range(3))
    if not _is_known(name, kind, dimensions, number):
        raise _damaged("an array has a name, a type or a number of dimensions that none can have")
    shape = [unpacker.unpack() for _ in range(dimensions)]
    numbers = unpacker.unpack()
    if not all(type(length) is int and 0 <= length <= LARGEST_DIMENSION for length in shape):
        raise _damaged(f"the shape of {name} is none")
    if not isinstance(numbers, bytes) or len(numbers) != prod(shape) * np.dtype(kind).itemsize:
        raise _damaged(f"{name} holds more or fewer numbers than its shape says")
    return name, np.frombuffer(numbers, kind).reshape(shape)


def _is_known(name: object, kind: object, dimensions: object, number: int) -> bool:
    """Whether an array may be called so, hold this type, and be the one of this number."""
    named = isinstance(name, str) and len(name.encode()) <= LONGEST_NAME
    typed = isinstance(kind, str) and kind in TYPES
    flat = type(dimensions) is int and 0 <= dimensions <= MOST_DIMENSIONS
    return named and typed and flat and number <= MOST_ARRAYS


def _damaged(how: str) -> UserError:
    return UserError(f"The packed arrays cannot be read ({how}): send them again.")
