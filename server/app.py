"""The Flower ServerApp: collect, solve, evaluate, write the results."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from logging import getLogger
from pathlib import Path

import torch
from flwr.app import ConfigRecord, Context
from flwr.serverapp import Grid, ServerApp

from fedcof import LinearClassifier, UserError
from fedcof.configuration import RunConfig
from fedcof.results import HEAD_FILE_NAME, RunResult, append_result, write_whole
from fedcof.virtual_clients import backbone_of, dataset_of, split_features
from server.federation import Federation
from server.strategy import FedCOF, FedNCM, OneShotStrategy

FAILURE_FILE_NAME = "failure.txt"
PROGRESS = "Run %d of %d, client %d of %d"

logger = getLogger("flwr")

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run what the run-config asks for: one run, or those that its plan lists."""
    base = RunConfig.from_mapping(context.run_config)
    output = Path(base.output or Path.home() / ".fedcof" / "runs" / str(context.run_id))
    try:
        federation = None
        runs = planned_runs(base)
        for number, (folder, config) in enumerate(runs, start=1):
            if federation is None or len(federation.get_node_ids()) != config.num_clients:
                federation = Federation(grid, config.num_clients, config.node_timeout)
            watch = _progress_log(number, len(runs), config.num_clients)
            append_result(output, execute(federation, config, output, folder, watch))
    except UserError as error:
        write_whole(output / FAILURE_FILE_NAME, str(error))
        raise
    logger.info("Results are in %s", output)


def planned_runs(base: RunConfig) -> list[tuple[str, RunConfig]]:
    """List the runs to execute.

    Parameters
    ----------
    base : RunConfig
        The Flower run's own configuration.

    Returns
    -------
    list of (str, RunConfig)
        For each run the folder of its files, relative to the output, and its configuration.
    """
    if not base.plan:
        return [("", base)]
    runs = json.loads(Path(base.plan).read_text())
    return [(run["folder"], RunConfig.from_mapping(run["config"])) for run in runs]


def execute(
    federation: Federation, config: RunConfig, output: Path, folder: str, on_reply: Callable[[], None] | None = None
) -> RunResult:
    """Execute one run and write its classifier.

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
    on_reply : callable, optional
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
    dataset = dataset_of(config)
    strategy = strategy_of(config, dataset.num_classes, backbone_of(config).feature_dim, on_reply)
    federation.new_ledger()
    started = time.perf_counter()
    strategy.start(federation, train_config=ConfigRecord({**config.to_mapping()}), timeout=config.reply_timeout)
    seconds = time.perf_counter() - started
    classifier = replace(strategy.solved(), class_names=dataset.class_names)
    head = Path(folder) / HEAD_FILE_NAME
    (output / head).parent.mkdir(parents=True, exist_ok=True)
    classifier.save(output / head)
    result = RunResult(
        method=config.method,
        seed=config.seed,
        accuracy=accuracy_on_test_split(classifier, config),
        uplink_bytes=federation.ledger.uplink_bytes,
        downlink_bytes=federation.ledger.downlink_bytes,
        clients=strategy.num_accepted,
        clients_rejected=len(strategy.rejected),
        seconds=round(seconds, 3),
        config=config.to_mapping(),
        rejected={str(client): reason for client, reason in sorted(strategy.rejected.items())},
        head=head.as_posix(),
    )
    logger.info("%s: accuracy %.4f with %d bytes up", config.method, result.accuracy, result.uplink_bytes)
    return result


def strategy_of(
    config: RunConfig, num_classes: int, feature_dim: int, on_reply: Callable[[], None] | None = None
) -> OneShotStrategy:
    """Make the strategy that a run-config names.

    Parameters
    ----------
    config : RunConfig
        The run.
    num_classes, feature_dim : int
        Size of the classifier.
    on_reply : callable, optional
        Called after every client's reply.

    Returns
    -------
    OneShotStrategy
        Ready to start.
    """
    if config.method == "fedncm":
        return FedNCM(num_classes, feature_dim, config.quorum, on_reply)
    return FedCOF(
        num_classes, feature_dim, config.estimator, config.shrinkage, config.head, config.quorum, on_reply
    )


def accuracy_on_test_split(classifier: LinearClassifier, config: RunConfig) -> float:
    """Evaluate a classifier on the test split.

    Parameters
    ----------
    classifier : LinearClassifier
        What to evaluate.
    config : RunConfig
        The run, whose dataset and backbone are used.

    Returns
    -------
    float
        Share of the test samples classified rightly, from 0 to 1.
    """
    table = split_features(config, "test")
    predicted = classifier.predict(torch.from_numpy(table.features[:]))
    return float((predicted == torch.from_numpy(table.labels[:])).double().mean())


def _progress_log(number: int, num_runs: int, num_clients: int) -> Callable[[], None]:
    """Log about a hundred lines a run, however many clients there are."""
    step = max(num_clients // 100, 1)
    replies = count(1)

    def on_reply() -> None:
        client = next(replies)
        if client % step == 0 or client == num_clients:
            logger.info(PROGRESS, number, num_runs, client, num_clients)

    return on_reply
