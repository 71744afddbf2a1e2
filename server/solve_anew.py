"""Solving anew after training: one more upload, of the features of the backbone that the clients have trained."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from logging import getLogger
from pathlib import Path
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid

from fedcof.data.problem import labels_of
from fedcof.embedding.trained import trained_fingerprint
from fedcof.heads.trainable import Network
from fedcof.run.config import RunConfig
from fedcof.run.protocol import METRICS, NETWORK, NUM_EXAMPLES
from fedcof.run.results import ANEW, RoundResult
from fedcof.statistics.base import Statistics
from fedcof.statistics.class_means import ClassMeanRows
from fedcof.wire.codec import Sent
from server.evaluation import rightly_classified, share
from server.federation import Federation
from server.gone_clients import kept_rows, moved_rows
from server.intake import NodeRules
from server.keeping import store_of
from server.metrics import ACCURACY
from server.one_shot import OneShotStrategy
from server.records import network_to_arrays
from server.run_strategy import strategy_of
from server.training_strategy import WORST_TENTH, client_accuracies
from server.upload_store import UploadStore

FOLDER_NAME = "anew"

logger = getLogger("flwr")


class SolvingAnew(OneShotStrategy):
    """A one-shot method whose clients embed with a network that is sent along.

    All are asked, whatever share was for the first upload; and whoever evaluates is told the network again. Clients
    that are gone count by what they sent before, moved; towards the quorum they do not.

    Parameters
    ----------
    *sizes
        As :class:`OneShotStrategy` takes them.
    network : ArrayRecord
        What trains.
    rounds_before : int
        Rounds of the run so far, from which the numbers go on.
    evaluates : bool
        Whether clients evaluate the classifier.
    **participation
        As :class:`OneShotStrategy` takes it.

    Attributes
    ----------
    before : mapping of int to ClassMeanRows
        What clients sent of the features before training, by client; empty where nobody kept it.
    moved : list of int
        The clients that are gone and count.
    """

    def __init__(
        self,
        *sizes: Any,  # noqa: ANN401
        network: ArrayRecord,
        rounds_before: int,
        evaluates: bool,
        **participation: Any,  # noqa: ANN401
    ) -> None:
        super().__init__(*sizes, **participation)
        self.network, self.rounds_before = network, rounds_before
        self.fraction, self.broadcast = 1.0, evaluates
        self.before: Mapping[int, ClassMeanRows] = {}
        self.moved: list[int] = []
        self._after: dict[int, ClassMeanRows] = {}

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ask all clients for the statistics of the network's features."""
        messages = super().configure_train(self.rounds_before + server_round, arrays, config, grid)
        return self._with_network(messages)

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Send the classifier to all clients, if they are to evaluate it."""
        messages = super().configure_evaluate(self.rounds_before + server_round, arrays, config, grid)
        return self._with_network(messages)

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Average the clients' accuracies as after a round of training, each client counting the same."""
        answered = sorted((r for r in replies if r.has_content()), key=lambda reply: reply.metadata.src_node_id)
        counted = [c for c in self._checked(answered) if c.metric_records[METRICS][NUM_EXAMPLES]]
        self.client_metrics = client_accuracies(counted, NUM_EXAMPLES) if counted else None
        return self.client_metrics

    def _add(self, client: int, upload: Statistics, sent: Sent) -> None:
        super()._add(client, upload, sent)
        if self.before and isinstance(upload, ClassMeanRows):
            self._after[client] = upload

    def _believe(self) -> None:
        super()._believe()
        moved = moved_rows(self.before, self._after, self.aggregator.num_classes)
        for client, rows in moved.items():
            self.aggregator.add(rows, client)
            self.class_samples.index_add_(0, rows.class_ids, rows.counts)
        self.moved = list(moved)
        if moved:
            logger.info("%d clients that are gone count by their kept uploads, moved as their classes.", len(moved))

    def _with_network(self, messages: Iterable[Message]) -> list[Message]:
        """Put the network into messages, which share their content: it crosses to a node once."""
        messages = list(messages)
        for message in messages:
            message.content[NETWORK] = self.network
        return messages


def solve_anew(
    federation: Federation,
    config: RunConfig,
    network: Network,
    rounds_before: int,
    folder: Path,
    rules: NodeRules | None,
    on_reply: Callable[[int], object],
) -> tuple[SolvingAnew, RoundResult]:
    """Ask all clients for their statistics of trained features, and solve.

    Parameters
    ----------
    federation : Federation
        The clients.
    config : RunConfig
        The run; its own head is solved, and not the linear one that training started from.
    network : Network
        As training has left it.
    rounds_before : int
        Number of the run's last round.
    folder : Path
        The run's, in which the first uploads are kept.
    rules : NodeRules or None
        The first upload's, for nodes with data of their own.
    on_reply : callable
        Called with the client after every reply.

    Returns
    -------
    tuple of (SolvingAnew, RoundResult)
        The strategy, which has solved, and how far the run is then.

    Raises
    ------
    UserError
        If fewer clients than the quorum sent something that can be used.
    """
    has_test_samples = len(labels_of(config, "test")) > 0
    evaluates = config.participation.broadcast or config.data.client_test_share > 0 or not has_test_samples
    sent = network_to_arrays(network)
    make = partial(SolvingAnew, network=sent, rounds_before=rounds_before, evaluates=evaluates)
    of_trained = _rules_of_trained(rules, config, network) if rules else None
    strategy = strategy_of(config, on_reply, rules=of_trained, make=make)
    assert isinstance(strategy, SolvingAnew)
    strategy.before = kept_rows(strategy, rules.store if rules else store_of(folder, config), rules)
    strategy.start(
        federation,
        timeout=config.execution.reply_timeout,
        train_config=ConfigRecord({**config.for_message()}),
        evaluate_config=ConfigRecord({**config.for_message()}),
    )
    found = strategy.client_metrics or MetricRecord()
    client_accuracy, worst = (_number(found.get(metric)) for metric in (ACCURACY, WORST_TENTH))
    accuracy = client_accuracy
    if has_test_samples:
        accuracy = share(rightly_classified(strategy.solved(), config, network))
    ledger = federation.ledger
    result = RoundResult(
        rounds_before + 1,
        strategy.num_accepted,
        accuracy,
        ledger.uplink_bytes,
        ledger.downlink_bytes,
        phase=ANEW,
        client_accuracy=client_accuracy,
        worst_tenth_accuracy=worst,
    )
    return strategy, result


def _rules_of_trained(rules: NodeRules, config: RunConfig, network: Network) -> NodeRules:
    """Expect the trained backbone of all, and keep its uploads apart from the first ones."""
    fingerprint = trained_fingerprint(rules.fingerprint, network.to_arrays())
    store = UploadStore(rules.store.folder / FOLDER_NAME, config, fingerprint)
    return replace(rules, store=store, fingerprint=fingerprint)


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None
