"""One run: collect from the clients, solve, evaluate, and put what it came to on disk."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from logging import getLogger
from pathlib import Path

import numpy as np
import torch
from flwr.app import ArrayRecord, ConfigRecord, MetricRecord
from torch import Tensor

from fedcof import LinearClassifier, Oracle
from fedcof.communication import Ledger
from fedcof.configuration import RunConfig
from fedcof.partitioning import describe_partition
from fedcof.results import HEAD_FILE_NAME, RoundResult, RunResult, write_whole
from fedcof.virtual_clients import client_indices, labels_of, problem_of, split_features
from server.federation import Federation
from server.strategy import Fed3R, FedCOF, FedNCM, OneShotStrategy, Participation

LEDGER_FILE_NAME = "ledger.csv"
FEDERATION_FILE_NAME = "federation.npz"

logger = getLogger("flwr")

Watcher = Callable[[], None]


@dataclass
class _Outcome:
    """What a method came to, before it is evaluated and written."""

    classifier: LinearClassifier
    seconds: float
    ledger: Ledger = field(default_factory=Ledger)
    clients: int = 0
    rejected: dict[int, str] = field(default_factory=dict)
    rounds: list[RoundResult] = field(default_factory=list)
    expected_uplink_bytes: int = 0


def execute(federation: Federation, config: RunConfig, output: Path, folder: str, on_reply: Watcher) -> RunResult:
    """Execute one run and write its classifier, its ledger and who held what.

    Parameters
    ----------
    federation : Federation
        The clients.
    config : RunConfig
        What to run.
    output : Path
        Folder of the results.
    folder : str
        Folder of this run's files within it.
    on_reply : callable
        Called after every client's reply.

    Returns
    -------
    RunResult
        What it came to.

    Raises
    ------
    UserError
        If too few clients sent an upload that can be used.
    """
    outcome = _oracle(config) if config.method == "oracle" else _federated(federation, config, on_reply)
    problem = problem_of(config)
    classifier = replace(outcome.classifier, class_names=problem.class_names)
    right = _rightly_classified(classifier, config)
    class_accuracy = _accuracy_by_class(right, torch.from_numpy(labels_of(config, "test")), problem.num_classes)
    result = RunResult(
        method=config.method,
        seed=config.seed,
        accuracy=_share(right),
        uplink_bytes=outcome.ledger.uplink_bytes,
        downlink_bytes=outcome.ledger.downlink_bytes,
        clients=outcome.clients,
        clients_rejected=len(outcome.rejected),
        seconds=round(outcome.seconds, 3),
        config=config.to_mapping(),
        rejected={str(client): reason for client, reason in sorted(outcome.rejected.items())},
        head=(Path(folder) / HEAD_FILE_NAME).as_posix(),
        class_names=list(problem.class_names),
        class_accuracy=class_accuracy,
        rounds=outcome.rounds,
        expected_uplink_bytes=outcome.expected_uplink_bytes,
    )
    _write_files(output / folder, classifier, outcome.ledger, config)
    logger.info("%s: accuracy %.4f with %d bytes up", config.method, result.accuracy, result.uplink_bytes)
    return result


def strategy_of(config: RunConfig, on_reply: Watcher) -> OneShotStrategy:
    """Make the strategy that a run-config names.

    Parameters
    ----------
    config : RunConfig
        The run.
    on_reply : callable
        Called after every client's reply.

    Returns
    -------
    OneShotStrategy
        Ready to start.
    """
    problem = problem_of(config)
    sizes = problem.num_classes, problem.feature_dim
    participation = Participation(
        quorum=config.quorum,
        fraction=config.fraction,
        seed=config.seed,
        broadcast=config.broadcast,
        on_reply=on_reply,
    )
    if config.method == "fedncm":
        return FedNCM(*sizes, **participation)
    if config.method == "fed3r":
        return Fed3R(*sizes, config.ridge_penalty, **participation)
    return FedCOF(*sizes, config.estimator, config.shrinkage, config.head, **participation)


def _federated(federation: Federation, config: RunConfig, on_reply: Watcher) -> _Outcome:
    """Let the strategy ask the clients, and evaluate after every round."""
    strategy = strategy_of(config, on_reply)
    ledger = federation.new_ledger()
    rounds: list[RoundResult] = []

    def evaluate(server_round: int, arrays: ArrayRecord) -> MetricRecord | None:
        if not server_round:
            return None
        accuracy = _share(_rightly_classified(strategy.solved(), config))
        totals = ledger.uplink_bytes, ledger.downlink_bytes
        rounds.append(RoundResult(server_round, strategy.num_accepted, accuracy, *totals))
        return MetricRecord({"accuracy": accuracy})

    started = time.perf_counter()
    strategy.start(
        federation,
        num_rounds=min(config.init_rounds, math.ceil(1 / config.fraction)),
        timeout=config.reply_timeout,
        train_config=ConfigRecord({**config.to_mapping()}),
        evaluate_config=ConfigRecord({**config.to_mapping()}),
        evaluate_fn=evaluate,
    )
    return _Outcome(
        strategy.solved(),
        time.perf_counter() - started,
        ledger,
        strategy.num_accepted,
        strategy.rejected,
        rounds,
        strategy.expected_uplink_bytes,
    )


def _oracle(config: RunConfig) -> _Outcome:
    """Solve on all training features in one place: no client is asked and nothing is sent."""
    started = time.perf_counter()
    table = split_features(config, "train")
    oracle = Oracle(problem_of(config).num_classes, table.features.shape[1], config.shrinkage, config.head)
    oracle.add_samples(torch.from_numpy(table.features[:]), torch.from_numpy(table.labels[:]))
    classifier = oracle.solve()
    return _Outcome(classifier, time.perf_counter() - started)


def _rightly_classified(classifier: LinearClassifier, config: RunConfig) -> Tensor:
    """Which test samples the classifier gets right: shape (n,), bool."""
    table = split_features(config, "test")
    predicted = classifier.predict(torch.from_numpy(table.features[:]))
    return predicted == torch.from_numpy(table.labels[:])


def _share(right: Tensor) -> float:
    return float(right.double().mean())


def _accuracy_by_class(right: Tensor, labels: Tensor, num_classes: int) -> list[float | None]:
    samples = torch.bincount(labels, minlength=num_classes).tolist()
    hits = torch.bincount(labels[right], minlength=num_classes).tolist()
    return [hit / count if count else None for hit, count in zip(hits, samples, strict=True)]


def _write_files(folder: Path, classifier: LinearClassifier, ledger: Ledger, config: RunConfig) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    classifier.save(folder / HEAD_FILE_NAME)
    write_whole(folder / LEDGER_FILE_NAME, ledger.to_csv())
    labels = labels_of(config, "train")
    counts = describe_partition(client_indices(config), labels, problem_of(config).num_classes)
    np.savez_compressed(folder / FEDERATION_FILE_NAME, counts=counts.astype(np.int32))
