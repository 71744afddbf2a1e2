"""Class means as they are, in float32 or float16."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from fedcof.errors import UserError
from fedcof.statistics.class_means import ClassMeans
from fedcof.wire.arrays import MEANS, Arrays, decode_classes, encode_classes, require_classes, row_count
from fedcof.wire.codec import Codec
from fedcof.wire.precision import check_spread
from fedcof.wire.quantised import EncodedClassMeans


class Float32Means(Codec):
    """Class means in float32: ``class-ids`` (R,), ``counts`` (R,) and ``means`` (R, d)."""

    kind: ClassVar[str] = "class-means"
    encoding: ClassVar[str] = "float32"

    def encode(self, statistics: ClassMeans, seed: int) -> Arrays:
        """Write class means; see :meth:`Codec.encode`."""
        check_spread(statistics.means, statistics.counts)
        classes = encode_classes(statistics.class_ids, statistics.counts)
        return {**classes, MEANS: statistics.means.to(torch.float32).numpy()}

    def decode(self, arrays: Mapping[str, NDArray[Any]]) -> ClassMeans:
        """Read class means back; see :meth:`Codec.decode`."""
        require_classes(arrays, MEANS)
        return ClassMeans(*decode_classes(arrays), torch.from_numpy(np.array(arrays[MEANS])).to(torch.float32))

    def rows_claimed(self, arrays: Mapping[str, NDArray[Any]]) -> int:
        """Count the class ids; see :meth:`Codec.rows_claimed`."""
        return row_count(arrays)

    def recognises(self, arrays: Mapping[str, NDArray[Any]]) -> bool:
        """Take any means of a type that no other encoding has; see :meth:`Codec.recognises`."""
        return MEANS in arrays and arrays[MEANS].dtype not in (np.float16, np.int8, np.uint8)


class Float16Means(Float32Means):
    """Class means in float16, kept so and decoded as they are read."""

    encoding: ClassVar[str] = "float16"

    def encode(self, statistics: ClassMeans, seed: int) -> Arrays:
        """Write class means; raises UserError if one is out of range."""
        check_spread(statistics.means, statistics.counts)
        means = statistics.means.to(torch.float16)
        if not bool(means.isfinite().all()):
            raise UserError("A class mean is beyond float16's 65,504: send it as float32 or int8.")
        return {**encode_classes(statistics.class_ids, statistics.counts), MEANS: means.numpy()}

    def decode(self, arrays: Mapping[str, NDArray[Any]]) -> EncodedClassMeans:  # type: ignore[override]
        """Read class means back; see :meth:`Codec.decode`."""
        require_classes(arrays, MEANS)
        return EncodedClassMeans(*decode_classes(arrays), torch.from_numpy(np.array(arrays[MEANS])))

    def recognises(self, arrays: Mapping[str, NDArray[Any]]) -> bool:
        """Take means of float16; see :meth:`Codec.recognises`."""
        return MEANS in arrays and arrays[MEANS].dtype == np.float16


FLOAT32 = Float32Means()
FLOAT16 = Float16Means()
