"""What methods on class means share on the client: measured as asked, with or without privacy."""

from __future__ import annotations

from typing import ClassVar

import torch

from fedcof.methods.method import FederatedMethod, Samples
from fedcof.privacy.correction import PrivateRows
from fedcof.privacy.mechanism import Privacy
from fedcof.privacy.noise import NoiseSource
from fedcof.privacy.plausibility import check_plausible
from fedcof.privacy.release import private_class_means
from fedcof.statistics.base import Statistics
from fedcof.statistics.class_means import ClassMeanRows, ClassMeans, class_means, means_of_groups


class ClassMeansMethod(FederatedMethod):
    """A method whose clients send class means."""

    statistics: ClassVar[type[Statistics]] = ClassMeans

    def measure(self, samples: Samples, groups: int) -> ClassMeans:
        """Average each class, or each of its groups; see :meth:`FederatedMethod.measure`."""
        if samples.cells is not None:
            return means_of_groups(samples.features, samples.labels, samples.cells % groups, groups)
        generator = torch.Generator().manual_seed(samples.seed)
        return class_means(samples.features, samples.labels, groups, generator)

    def measure_privately(self, samples: Samples, groups: int, privacy: Privacy, source: NoiseSource) -> ClassMeans:
        """Average clipped samples under noise; see :meth:`FederatedMethod.measure_privately`."""
        return private_class_means(samples.features, samples.labels, samples.num_classes, privacy, source, groups)

    def received(
        self, statistics: Statistics, privacy: Privacy, num_classes: int, subtract_noise: bool
    ) -> ClassMeanRows:
        """Check the lengths of the means, and note their noise; see :meth:`FederatedMethod.received`."""
        assert isinstance(statistics, ClassMeanRows)
        check_plausible(statistics, privacy, num_classes)
        return PrivateRows.of(statistics, privacy) if subtract_noise else statistics
