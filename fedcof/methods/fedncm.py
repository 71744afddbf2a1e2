"""FedNCM: the nearest class mean."""

from __future__ import annotations

from fedcof.covariance.totals import class_totals
from fedcof.heads.linear import LinearClassifier
from fedcof.heads.nearest_mean import nearest_class_mean
from fedcof.methods.base import ClassMeansAggregator, nothing_to_solve


class FedNCM(ClassMeansAggregator):
    """The nearest class mean, by angle (Legate et al., NeurIPS 2023, arXiv 2306.03937)."""

    def solve(self) -> LinearClassifier:
        """Solve for the class means; see :meth:`ClassMeansAggregator.solve`."""
        if not (uploads := self._kept()):
            raise nothing_to_solve()
        return nearest_class_mean(class_totals(uploads, self.num_classes))
