"""The codec of class means that are written near their entropy, as fine as asked or within a budget."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from fedcof.errors import UserError
from fedcof.statistics.class_means import ClassMeans
from fedcof.wire.arrays import CODED, Arrays, require_arrays
from fedcof.wire.budget import step_of, within_class_deviation, write_within_budget
from fedcof.wire.codec import Codec, Measurement, Written
from fedcof.wire.coded_means import CodedClassMeans, read_class_means, rows_claimed, write_class_means
from fedcof.wire.plain import FLOAT32
from fedcof.wire.precision import check_spread

if TYPE_CHECKING:
    from fedcof.wire.section import WireSection


class CodedMeans(Codec):
    """Class means as one stream of bytes; see :mod:`fedcof.wire.coded_means`."""

    kind: ClassVar[str] = "class-means"
    encoding: ClassVar[str] = "coded"

    def write(self, measurement: Measurement, groups: int, settings: WireSection, seed: int) -> Written:
        """Choose the step, and with a budget the groups too; see :meth:`Codec.write`."""
        if settings.has_budget:
            return self._within_budget(measurement, settings, seed)
        means = _class_means(measurement, groups)
        step = step_of(settings.rounding_noise, within_class_deviation(measurement.features, measurement.labels))
        return Written(means, groups, self.with_step(means, step, seed))

    def _within_budget(self, measurement: Measurement, settings: WireSection, seed: int) -> Written:
        held = max(len(torch.unique(measurement.labels)), 1)
        num_bytes = settings.bytes_per_client or settings.bytes_per_class * held
        if num_bytes:
            return self._spent(measurement, num_bytes, settings, seed)
        means = _class_means(measurement, 1)
        as_in_the_paper = Written(means, 1, FLOAT32.encode(means, seed), FLOAT32.tag)
        num_bytes = measurement.message_bytes(as_in_the_paper.arrays, FLOAT32.tag)
        try:
            return self._spent(measurement, num_bytes, settings, seed)
        except UserError:
            # Few features are shorter as they are than behind a header.
            return as_in_the_paper

    def _spent(self, measurement: Measurement, num_bytes: int, settings: WireSection, seed: int) -> Written:
        # Bytes that are unlike one another: of equal pieces Flower sends one.
        content = np.random.default_rng(0).integers(0, 256, num_bytes, dtype=np.uint8)
        around = measurement.message_bytes({CODED: content}, self.tag) - num_bytes
        rows_of = cache(lambda groups: _class_means(measurement, groups))
        features, labels = measurement.features, measurement.labels
        plan, stream = write_within_budget(rows_of, features, labels, num_bytes, seed, around)
        means = rows_of(plan.groups)
        check_spread(means.means, means.counts)
        return Written(means, plan.groups, {CODED: stream})

    def with_step(self, means: ClassMeans, step: float, seed: int) -> Arrays:
        """Write class means with the step of a mean of one sample; raises UserError if it is unfit."""
        check_spread(means.means, means.counts)
        return {CODED: write_class_means(means, step, seed)}

    def encode(self, statistics: ClassMeans, seed: int) -> Arrays:
        """Refuse: without the samples nobody knows how fine to be."""
        raise UserError("The encoding coded needs a step: give one, or a budget in bytes that sets it.")

    def decode(self, arrays: Mapping[str, NDArray[Any]]) -> CodedClassMeans:
        """Read class means back; see :meth:`Codec.decode`."""
        require_arrays(arrays, CODED)
        return read_class_means(arrays[CODED])

    def rows_claimed(self, arrays: Mapping[str, NDArray[Any]]) -> int:
        """Read the number from the stream's header; see :meth:`Codec.rows_claimed`."""
        return rows_claimed(arrays[CODED]) if CODED in arrays else 0

    def recognises(self, arrays: Mapping[str, NDArray[Any]]) -> bool:
        """Take any stream; see :meth:`Codec.recognises`."""
        return CODED in arrays


def _class_means(measurement: Measurement, groups: int) -> ClassMeans:
    means = measurement.take(groups)
    assert isinstance(means, ClassMeans)
    return means


CODED_MEANS = CodedMeans()
