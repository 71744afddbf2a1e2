"""A simulated run's covariance beside the oracle's, which sees all training features."""

from __future__ import annotations

from fedcof import FedCOF, Oracle
from fedcof.covariance.diagnosis import compare_covariances
from fedcof.covariance.diagnostic import CovarianceDiagnostic
from fedcof.methods.base import Aggregator, own_aggregator
from fedcof.run.config import RunConfig
from server.evaluation import rightly_classified, share, training_set


def diagnose(aggregator: Aggregator, config: RunConfig) -> CovarianceDiagnostic:
    """Compare the covariance that a run has rebuilt with that of all training samples.

    Parameters
    ----------
    aggregator : FedCOF
        Holds all uploads of the run; or another is around it that corrects for noise, or for wrong uploads.
    config : RunConfig
        The run, of a simulation.

    Returns
    -------
    CovarianceDiagnostic
        With as many leading directions as there are classes.
    """
    aggregator = own_aggregator(aggregator)
    assert isinstance(aggregator, FedCOF)
    oracle = Oracle(
        aggregator.num_classes, aggregator.feature_dim, config.method.shrinkage, config.method.chosen_head
    )
    oracle.add_samples(*training_set(config))
    return compare_covariances(
        aggregator.covariance(shrunk=False),
        aggregator.covariance(),
        oracle.covariance(shrunk=False),
        num_directions=min(aggregator.num_classes, aggregator.feature_dim),
        rows_per_class=aggregator.rows_per_class(),
        oracle_accuracy=share(rightly_classified(oracle.solve(), config)),
    )
