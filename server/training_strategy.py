"""The strategy that a run-config names for its rounds of training: Flower's own, or one of its with a merge."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from flwr.app import MetricRecord, RecordDict
from flwr.serverapp.strategy import (
    Bulyan,
    FedAdam,
    FedAvg,
    FedAvgM,
    FedMedian,
    FedProx,
    FedTrimmedAvg,
    FedYogi,
    Krum,
    QFedAvg,
    Strategy,
)

from fedcof.run.config import RunConfig
from fedcof.run.protocol import METRICS
from fedcof.run.training import (
    BULYAN,
    FEDADAM,
    FEDAVG,
    FEDAVGM,
    FEDPROX,
    FEDYOGI,
    KRUM,
    MEDIAN,
    Q_FEDAVG,
    TRIMMED_MEAN,
    TrainingSection,
)
from server.merging import Merging
from server.metrics import ACCURACY, LOSS

WORST_TENTH = "worst-tenth-accuracy"

# Measured for linear probing on CIFAR-100; Flower's own default of 0.1 moves every weight further than it is long.
SERVER_LEARNING_RATES = {FEDAVGM: 1.0, FEDADAM: 0.03, FEDYOGI: 0.03}


def training_strategy(config: RunConfig) -> Strategy:
    """Make the strategy that a run-config names for the training.

    Parameters
    ----------
    config : RunConfig
        The run.

    Returns
    -------
    Strategy
        Flower's own; around one that averages, with the merge that the run-config names.
    """
    common: dict[str, Any] = {
        "fraction_train": config.training.fraction,
        # Flower rounds down; this rounds to the nearest.
        "min_train_nodes": config.clients_in_a_round,
        "min_evaluate_nodes": 1,
        "min_available_nodes": 1,
        "evaluate_metrics_aggr_fn": client_accuracies,
    }
    own = _STRATEGIES[config.training.strategy](config.training, common)
    if not config.training.averages:
        return own
    assert isinstance(own, FedAvg)
    adapter_scaling = config.training.adapter_scaling
    return Merging(own, config.merging, adapter_scaling, searches=config.data.client_test_share > 0)


def _fedopt(kind: type[FedAdam | FedYogi]) -> Callable[[TrainingSection, dict[str, Any]], Strategy]:
    return lambda section, common: kind(eta=_server_rate(section), eta_l=section.learning_rate, **common)


def _server_rate(section: TrainingSection) -> float:
    return section.server_learning_rate or SERVER_LEARNING_RATES[section.strategy]


_STRATEGIES: dict[str, Callable[[TrainingSection, dict[str, Any]], Strategy]] = {
    FEDAVG: lambda section, common: FedAvg(**common),
    FEDPROX: lambda section, common: FedProx(proximal_mu=section.proximal_mu, **common),
    FEDAVGM: lambda section, common: FedAvgM(
        server_learning_rate=_server_rate(section), server_momentum=0.9, **common
    ),
    FEDADAM: _fedopt(FedAdam),
    FEDYOGI: _fedopt(FedYogi),
    KRUM: lambda section, common: Krum(num_malicious_nodes=section.malicious_clients, **common),
    BULYAN: lambda section, common: Bulyan(num_malicious_nodes=section.malicious_clients, **common),
    TRIMMED_MEAN: lambda section, common: FedTrimmedAvg(beta=section.trimmed_share, **common),
    MEDIAN: lambda section, common: FedMedian(**common),
    Q_FEDAVG: lambda section, common: QFedAvg(
        client_learning_rate=section.learning_rate, q=section.fairness, train_loss_key=LOSS, **common
    ),
}


def client_accuracies(contents: list[RecordDict], weighted_by_key: str) -> MetricRecord:
    """Average the clients' accuracies, each client counting the same, and those of the worst tenth.

    Parameters
    ----------
    contents : list of RecordDict
        The replies of clients that have samples to evaluate on.
    weighted_by_key : str
        Flower's; not used, because a client with few samples is a client too.

    Returns
    -------
    MetricRecord
        ``accuracy`` and ``worst-tenth-accuracy``, from 0 to 1; the tenth is rounded up.
    """
    accuracies = sorted(float(str(content.metric_records[METRICS][ACCURACY])) for content in contents)
    worst = accuracies[: math.ceil(len(accuracies) / 10)]
    return MetricRecord({ACCURACY: float(np.mean(accuracies)), WORST_TENTH: float(np.mean(worst))})
