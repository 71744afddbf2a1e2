"""Training-free federated learning: class means in, a closed-form classifier out."""

from fedcof.aggregators import FedCOF, FedNCM
from fedcof.classifiers import LinearClassifier
from fedcof.errors import UserError
from fedcof.statistics import ClassMeans, class_means

__all__ = ["ClassMeans", "FedCOF", "FedNCM", "LinearClassifier", "UserError", "class_means"]
