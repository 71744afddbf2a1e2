"""The layout of a coded stream: its header and the arrays that follow."""

from __future__ import annotations

import struct
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fedcof.errors import UserError
from fedcof.wire.entropy_coding import NUM_SCALES

VERSION = 1


LAYOUT = struct.Struct("<5Bh2f6I")


CHECKSUM = struct.Struct("<I")


class Header(NamedTuple):
    """What precedes the arrays in a stream, in the order of ``LAYOUT``."""

    version: int
    id_bytes: int
    count_bytes: int
    centre_scale: int
    power: int
    middle: int
    centre_step: float
    step: float
    dim: int
    num_rows: int
    seed: int
    centre_words: int
    centre_escapes: int
    escapes: int


LARGEST_POWER = 24


# A class id, a count and a scale.
BYTES_PER_ROW = 3


def split_stream(content: bytes, header: Header) -> list[NDArray[Any]]:
    """Cut the arrays that follow a header out of a stream; it must end where they do."""
    known = header.centre_scale < NUM_SCALES and header.power <= LARGEST_POWER
    known = known and 0 <= header.centre_step < float("inf") and 0 < header.step < float("inf")
    if not known or {header.id_bytes, header.count_bytes} - {1, 2, 4, 8}:
        raise _damaged_header()
    rows = header.num_rows
    layout = [(f"<u{header.id_bytes}", rows), (f"<u{header.count_bytes}", rows), ("<i1", rows)]
    layout += [("<i2", header.centre_escapes), ("<i2", header.escapes), ("<u4", header.centre_words)]
    num_words, surplus = divmod(len(content) - sum(np.dtype(kind).itemsize * size for kind, size in layout), 4)
    if num_words < 0 or surplus:
        raise _damaged_header()
    parts, start = [], 0
    for kind, size in [*layout, ("<u4", num_words)]:
        parts.append(np.frombuffer(content, kind, size, start))
        start += parts[-1].nbytes
    return parts


def _damaged_header() -> UserError:
    return UserError("The upload's coded means have a damaged header: send them again.")


def _in_smallest_type(values: Tensor) -> NDArray[Any]:
    array = values.numpy()
    return array.astype(np.min_scalar_type(int(array.max(initial=0))))


def little_endian(array: NDArray[Any]) -> bytes:
    """Give an array's bytes, least significant first on every machine."""
    return array.astype(array.dtype.newbyteorder("<")).tobytes()
