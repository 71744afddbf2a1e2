"""Training-free federated learning: class means in, a closed-form classifier out."""

from fedcof.aggregators import Fed3R, FedCOF, FedNCM, Oracle
from fedcof.classifiers import LinearClassifier
from fedcof.errors import UserError
from fedcof.statistics import ClassMeans, FeatureMoments, class_means, feature_moments

__all__ = [
    "ClassMeans",
    "FeatureMoments",
    "Fed3R",
    "FedCOF",
    "FedNCM",
    "LinearClassifier",
    "Oracle",
    "UserError",
    "class_means",
    "feature_moments",
]
