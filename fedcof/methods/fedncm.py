"""FedNCM: the nearest class mean."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from fedcof.covariance.totals import class_totals
from fedcof.heads.linear import LinearClassifier
from fedcof.heads.nearest_mean import nearest_class_mean
from fedcof.methods.base import Aggregator, ClassMeansAggregator
from fedcof.methods.class_means import ClassMeansMethod
from fedcof.methods.noise_corrected import noise_corrected
from fedcof.methods.role import Role
from fedcof.privacy.mechanism import Privacy

if TYPE_CHECKING:
    from fedcof.methods.section import MethodSection


class FedNCM(ClassMeansAggregator):
    """The nearest class mean, by angle (Legate et al., NeurIPS 2023, arXiv 2306.03937)."""

    def solve(self) -> LinearClassifier:
        """Solve for the class means; see :meth:`ClassMeansAggregator.solve`."""
        return nearest_class_mean(class_totals(self._rows(), self.num_classes))


class FedNCMMethod(ClassMeansMethod):
    """Both ends of FedNCM."""

    name: ClassVar[str] = "fedncm"
    title: ClassVar[str] = "FedNCM"
    colour: ClassVar[str] = "#E69F00"
    marker: ClassVar[str] = "s"
    role: ClassVar[Role] = Role.MEANS_ALONE

    def aggregator(
        self,
        num_classes: int,
        feature_dim: int,
        section: MethodSection,
        privacy: Privacy | None = None,
        subtract_noise: bool = True,
    ) -> Aggregator:
        """Make the server's end; see :meth:`FederatedMethod.aggregator`."""
        return noise_corrected(FedNCM(num_classes, feature_dim), privacy, subtract_noise)


METHOD = FedNCMMethod()
