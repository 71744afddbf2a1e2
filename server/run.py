"""One run: what the method makes of the clients, or of all samples, evaluated and put on disk."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from logging import getLogger
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fedcof.data.class_names import prior_of
from fedcof.data.clip_features import projection_of
from fedcof.data.partitioning import describe_partition
from fedcof.data.problem import labels_of, problem_of
from fedcof.data.virtual_clients import client_indices, held_out_part
from fedcof.files import whole_file, write_whole
from fedcof.heads.temperature import softmax_scale
from fedcof.methods.base import backbone_scores, shrinkage_used, take_prior
from fedcof.methods.method import PooledMethod
from fedcof.methods.projected import Projected
from fedcof.run.config import RunConfig
from fedcof.run.confusion import Confusion
from fedcof.run.ledger import Ledger
from fedcof.run.results import FEDERATION_FILE_NAME, HEAD_FILE_NAME, RunResult
from server.callbacks import Callback, Callbacks
from server.client_accuracy import accuracy_of_clients
from server.energy import measured
from server.evaluation import features_of, predictions_of, training_set
from server.federated_run import FederatedRun
from server.federation import Federation
from server.influence import influence_of_run
from server.quality import Predictions
from server.scheduled_run import ScheduledRun

LEDGER_FILE_NAME = "ledger.csv"

logger = getLogger("flwr")


def execute(
    federation: Federation, config: RunConfig, output: Path, folder: str, callbacks: Sequence[Callback] = ()
) -> RunResult:
    """Execute one run and write its classifier, its ledger and, of a simulation, who held what.

    Parameters
    ----------
    federation : Federation
        The clients.
    config : RunConfig
        What to run.
    output : Path
        Folder of the results.
    folder : str
        Folder of this run's files within it; a run whose checkpoint lies there goes on from it.
    callbacks : sequence of Callback
        Told how it goes.

    Returns
    -------
    RunResult
        What it came to.

    Raises
    ------
    UserError
        If too few clients sent something that can be used, or energy is to be measured and cannot be.
    """
    everybody = Callbacks(callbacks)
    try:
        everybody.on_run_start(config, output, folder)
        result = _executed(federation, config, output, folder, callbacks)
        everybody.on_run_end(result)
    except Exception as error:
        everybody.on_failure(error)
        raise
    return result


def _executed(
    federation: Federation, config: RunConfig, output: Path, folder: str, callbacks: Sequence[Callback]
) -> RunResult:
    with measured(config) as energy_used:
        method = config.method.chosen
        if isinstance(method, PooledMethod):
            result = _pooled(method, config, output / folder)
        else:
            result = _federated(federation, config, output / folder, callbacks)
        energy = energy_used()
    known = "unknown" if result.accuracy is None else f"{result.accuracy:.4f}"
    logger.info("%s: accuracy %s with %d bytes up", config.method.name, known, result.uplink_bytes)
    return replace(result, head=(Path(folder) / HEAD_FILE_NAME).as_posix(), energy=energy)


def _federated(federation: Federation, config: RunConfig, folder: Path, callbacks: Sequence[Callback]) -> RunResult:
    kind = ScheduledRun if config.data.in_steps else FederatedRun
    run = kind(federation, config, folder, callbacks)
    classifier = run.execute()
    run.save_networks(folder)
    _write_files(folder, run.ledger, config)
    features = features_of(config, run.network)
    means = run.class_means()
    nats = 1.0 if means is None else softmax_scale(classifier, means)
    predictions = predictions_of(classifier, config, features, nats)
    write_confusion(folder, predictions)
    best = run.best
    asked = run.anew or run.strategy
    sent = asked.class_samples if asked else None
    result = result_of(config, predictions, class_samples(config, sent))
    return replace(
        result,
        accuracy=run.rounds[-1].accuracy if result.accuracy is None else result.accuracy,
        uplink_bytes=run.ledger.uplink_bytes,
        downlink_bytes=run.ledger.downlink_bytes,
        clients=run.clients,
        clients_rejected=len(run.rejected),
        seconds=round(run.seconds, 3),
        rejected={str(client): reason for client, reason in sorted(run.rejected.items())},
        rounds=run.rounds,
        steps=run.steps,
        expected_uplink_bytes=run.expected_uplink_bytes,
        best_accuracy=best.accuracy if best else None,
        best_round=best.round if best else None,
        nodes=run.nodes,
        covariance=run.diagnosis(),
        influence=influence_of_run(run.strategy, federation, config),
        shrinkage=run.shrinkage,
        **asdict(run.backbone_scores),
        client_accuracy=accuracy_of_clients(classifier, config, nats, features, run.network),
        nats_per_score=nats,
    )


def _pooled(method: PooledMethod, config: RunConfig, folder: Path) -> RunResult:
    """Solve on all training features in one place: no client is asked and nothing is sent."""
    started = time.perf_counter()
    problem = problem_of(config)
    features, labels = training_set(config)
    projection = projection_of(config)
    if projection is not None:
        features = features @ projection.to(features.dtype)
    aggregator = method.pooled(features, labels, problem.num_classes, config.method)
    take_prior(aggregator, prior_of(config))
    if projection is not None:
        aggregator = Projected(aggregator, projection)
    solved = aggregator.solve()
    seconds = round(time.perf_counter() - started, 3)
    classifier = solved.named(problem.class_names)
    _write_files(folder, Ledger(), config)
    classifier.save(folder / HEAD_FILE_NAME)
    tested, nats = features_of(config), softmax_scale(classifier, aggregator.class_means())
    predictions = predictions_of(classifier, config, tested, nats)
    write_confusion(folder, predictions)
    return replace(
        result_of(config, predictions, class_samples(config)),
        seconds=seconds,
        shrinkage=shrinkage_used(aggregator),
        **asdict(backbone_scores(aggregator)),
        client_accuracy=accuracy_of_clients(classifier, config, nats, tested),
        nats_per_score=nats,
    )


def class_samples(config: RunConfig, sent: Tensor | None = None) -> NDArray[np.int64] | None:
    """Count the training samples of each class that all clients have together.

    Parameters
    ----------
    config : RunConfig
        The run.
    sent : Tensor of shape (C,), int64, optional
        Samples behind the rows that were sent, which is what is known of nodes' own data, and what is left where
        clients come and go.

    Returns
    -------
    ndarray of shape (C,), int64, or None
        Of a simulation without those that clients keep for evaluation; None where nobody knows.
    """
    if config.data.on_nodes or config.data.in_steps:
        return None if sent is None else sent.numpy()
    dealt = enumerate(client_indices(config))
    learnt = [held_out_part(samples, config, client, held_out=False) for client, samples in dealt]
    labels = labels_of(config, "train")[np.concatenate(learnt)]
    return np.bincount(labels, minlength=problem_of(config).num_classes).astype(np.int64, copy=False)


def result_of(config: RunConfig, predictions: Predictions, samples: NDArray[np.int64] | None = None) -> RunResult:
    """Begin the result of a run with what a classifier is worth.

    Parameters
    ----------
    config : RunConfig
        The run.
    predictions : Predictions
        What it makes of the test split.
    samples : ndarray of shape (C,), int64, optional
        Training samples of each class, where they are known.

    Returns
    -------
    RunResult
        Without clients and bytes.
    """
    problem = problem_of(config)
    left_out: dict[str, dict[str, int]] = {}
    for split, label, count in problem.left_out:
        left_out.setdefault(split, {})[label] = count
    return RunResult(
        method=config.method.name,
        seed=config.data.seed,
        accuracy=predictions.accuracy,
        uplink_bytes=0,
        downlink_bytes=0,
        clients=0,
        clients_rejected=0,
        seconds=0.0,
        config=config.to_mapping(),
        class_names=list(problem.class_names),
        class_accuracy=predictions.accuracy_by_class(),
        left_out=left_out,
        balanced_accuracy=predictions.balanced_accuracy(),
        macro_f1=predictions.macro_f1(),
        calibration_error=predictions.calibration_error(),
        accuracy_by_samples=None if samples is None else predictions.accuracy_by_samples(samples),
    )


def write_confusion(folder: Path, predictions: Predictions) -> None:
    """Write which classes were taken for which beside the classifier, where there are test samples."""
    if len(predictions.labels):
        labels, predicted = predictions.labels.numpy(), predictions.predicted.numpy()
        Confusion.of(labels, predicted, predictions.num_classes).save(folder)


def _write_files(folder: Path, ledger: Ledger, config: RunConfig) -> None:
    write_whole(folder / LEDGER_FILE_NAME, ledger.to_csv())
    if config.data.on_nodes:
        return
    labels = labels_of(config, "train")
    counts = describe_partition(client_indices(config), labels, problem_of(config).num_classes)
    with whole_file(folder / FEDERATION_FILE_NAME) as unfinished:
        np.savez_compressed(unfinished, counts=counts.astype(np.int32))
