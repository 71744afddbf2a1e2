"""The within-class covariance: totals, scatter, shrinkage, diagnosis."""
