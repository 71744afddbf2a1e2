"""Training-free federated learning: class means in, a closed-form classifier out."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
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

_HOMES = {
    "ClassMeans": "fedcof.statistics.class_means",
    "FeatureMoments": "fedcof.statistics.moments",
    "Fed3R": "fedcof.methods.fed3r",
    "FedCOF": "fedcof.methods.fedcof",
    "FedCOFClassifier": "fedcof.methods.estimator",
    "FedNCM": "fedcof.methods.fedncm",
    "LinearClassifier": "fedcof.heads.linear",
    "Oracle": "fedcof.methods.oracle",
    "UserError": "fedcof.errors",
    "class_means": "fedcof.statistics.class_means",
    "feature_moments": "fedcof.statistics.moments",
}

if not TYPE_CHECKING:  # A type checker reads the imports above, and so sees a misspelt name.

    def __getattr__(name: str) -> object:
        """Import a name when it is first asked for: torch takes seconds, and the command's --help needs none."""
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(_HOMES[name]), name)
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
