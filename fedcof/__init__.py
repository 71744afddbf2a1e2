"""Training-free federated learning: class means in, a closed-form classifier out."""

from fedcof.errors import UserError
from fedcof.heads.linear import LinearClassifier
from fedcof.methods.estimator import FedCOFClassifier
from fedcof.methods.fed3r import Fed3R
from fedcof.methods.fedcof import FedCOF
from fedcof.methods.fedncm import FedNCM
from fedcof.methods.oracle import Oracle
from fedcof.statistics.class_means import ClassMeans, class_means
from fedcof.statistics.moments import FeatureMoments, feature_moments

__all__ = [
    "ClassMeans",
    "FeatureMoments",
    "Fed3R",
    "FedCOF",
    "FedCOFClassifier",
    "FedNCM",
    "LinearClassifier",
    "Oracle",
    "UserError",
    "class_means",
    "feature_moments",
]
