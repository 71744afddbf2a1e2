"""Feature moments as they are, in float32."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from fedcof.statistics.moments import FeatureMoments
from fedcof.wire.arrays import GRAM, SUMS, Arrays, decode_classes, encode_classes, require_classes, row_count
from fedcof.wire.codec import Codec
from fedcof.wire.precision import check_moments


class Float32Moments(Codec):
    """Feature moments in float32: class ids and counts (R,), ``sums`` (R, d), ``gram`` (d (d + 1) / 2,)."""

    kind: ClassVar[str] = "gram"
    encoding: ClassVar[str] = "float32"

    def encode(self, statistics: FeatureMoments, seed: int) -> Arrays:
        """Write feature moments; see :meth:`Codec.encode`."""
        check_moments(statistics.sums, statistics.gram, int(statistics.counts.sum()))
        classes = encode_classes(statistics.class_ids, statistics.counts)
        sums, gram = statistics.sums.to(torch.float32).numpy(), statistics.gram.to(torch.float32).numpy()
        return {**classes, SUMS: sums, GRAM: gram}

    def decode(self, arrays: Mapping[str, NDArray[Any]]) -> FeatureMoments:
        """Read feature moments back; see :meth:`Codec.decode`."""
        require_classes(arrays, SUMS, GRAM)
        sums, gram = (torch.from_numpy(np.array(arrays[name])) for name in (SUMS, GRAM))
        return FeatureMoments(*decode_classes(arrays), sums, gram)

    def rows_claimed(self, arrays: Mapping[str, NDArray[Any]]) -> int:
        """Count the class ids; see :meth:`Codec.rows_claimed`."""
        return row_count(arrays)

    def recognises(self, arrays: Mapping[str, NDArray[Any]]) -> bool:
        """Take any Gram matrix; see :meth:`Codec.recognises`."""
        return GRAM in arrays


MOMENTS = Float32Moments()
