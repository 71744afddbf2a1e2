"""The scatter that a few uploads give, in one call."""

from fedcof.covariance.blocks import as_sequence
from fedcof.covariance.choices import check_shrinkage
from fedcof.covariance.estimators import class_weights_of, row_weights_of
from fedcof.covariance.scatter import ScatterSum
from fedcof.covariance.shrunk import shrunk_scatter


def within_class_scatter(uploads, totals, estimator="per-class", shrinkage=1.0):
    check_shrinkage(shrinkage)
    row_weights = row_weights_of(estimator, class_weights_of(totals, estimator))
    num_classes, dim = totals.means.shape
    scatter_sum = ScatterSum(num_classes, dim, row_weights, totals)
    return shrunk_scatter(scatter_sum.add(as_sequence(uploads)), estimator, shrinkage).scatter
