"""FedNCM: the nearest class mean."""

from __future__ import annotations

from fedcof.covariance.totals import class_totals
from fedcof.heads.linear import LinearClassifier
from fedcof.heads.nearest_mean import nearest_class_mean
from fedcof.methods.base import ClassMeansAggregator


class FedNCM(ClassMeansAggregator):
    """The nearest class mean, by angle (Legate et al., NeurIPS 2023, arXiv 2306.03937)."""

    def solve(self) -> LinearClassifier:
        """Solve for the class means; see :meth:`ClassMeansAggregator.solve`."""
        return nearest_class_mean(class_totals(self._rows(), self.num_classes))
