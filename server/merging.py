"""Merging as the server's step: the rounds of a Flower strategy that averages, with another rule in its place."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from logging import getLogger
from typing import Any, ClassVar

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg, Strategy

from fedcof.merging.merge import Merge, MergeOptions, Update
from fedcof.merging.registry import MERGES
from fedcof.merging.section import MergingSection
from fedcof.run.protocol import ARRAYS, CONFIG, FISHER, METRICS, NUM_EXAMPLES
from server.metrics import ACCURACY, metrics_of

# Lengths that are tried for a merged update, in units of how long the clients' mean update is.
FACTORS = (1.0, 0.5, 2.0, 4.0)

logger = getLogger("flwr")


class Merging(Strategy):
    """Draws, asks and evaluates as another strategy does, and merges what comes back by a rule.

    Updates are folded in one after another: a rule that needs but their sum holds one at a time.

    Parameters
    ----------
    strategy : FedAvg
        Flower's, or one of its kind.
    section : MergingSection
        Names the rule, with its keys.
    adapter_scaling : float
        What the product of an adapter's two matrices is multiplied by.
    searches : bool
        Whether the length of the merged update is chosen in the first round on the samples that clients hold out,
        where the rule leaves it open and no key says it.

    Attributes
    ----------
    streams : bool
        Whether replies may be given one at a time.
    factor : float
        What the merged update is multiplied by; 0 until it has been chosen.
    """

    streams: ClassVar[bool] = True

    def __init__(
        self, strategy: FedAvg, section: MergingSection, adapter_scaling: float = 1.0, searches: bool = False
    ) -> None:
        self.strategy, self._section, self._adapter_scaling = strategy, section, adapter_scaling
        rule = MERGES.get(section.rule)
        self.factor = 0.0 if searches and rule.TAKES_SCALE and not section.scale else 1.0
        self._rule = rule
        self._start: dict[str, np.ndarray[Any, Any]] = {}
        self._asks: tuple[Grid, ConfigRecord] | None = None

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Let the strategy ask clients."""
        self._start = {name: array.numpy() for name, array in arrays.items()}
        self._asks = grid, config
        return self.strategy.configure_train(server_round, arrays, config, grid)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Fold the replies in, in their order, and merge."""
        merge = self._rule(self._start, self._options())
        metrics: list[RecordDict] = []
        clients: list[int] = []
        for update, reply in _updates(replies):
            merge.add(update)
            metrics.append(RecordDict({METRICS: reply.content.metric_records[METRICS]}))
            clients.append(reply.metadata.src_node_id)
        if not clients:
            return None, None
        if not self.factor:
            self.factor = self._best_factor(merge, clients)
        merged = merge.merged(self.factor)
        # What a strategy holds between rounds is kept in checkpoints.
        self._start, self._asks = {}, None
        for note in merged.notes:
            logger.info("%s", note)
        if merged.lost is not None:
            logger.info("Adapters of this rank lose %.2f %% of the merged update.", 100 * merged.lost)
        return _record(merged.arrays), self.strategy.train_metrics_aggr_fn(metrics, NUM_EXAMPLES)

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Let the strategy ask clients to evaluate."""
        return self.strategy.configure_evaluate(server_round, arrays, config, grid)

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Let the strategy put the clients' metrics together."""
        return self.strategy.aggregate_evaluate(server_round, replies)

    def summary(self) -> None:
        """Log the strategy's settings."""
        self.strategy.summary()
        logger.info("\t└──> Merge: %s", self._section.rule)

    def _options(self) -> MergeOptions:
        section = self._section
        return MergeOptions(section.scale, section.density, section.core_rule, self._adapter_scaling, section.atoms)

    def _best_factor(self, merge: Merge, clients: list[int]) -> float:
        """Have the clients that trained evaluate each length; of equals the first."""
        assert self._asks is not None
        grid, config = self._asks
        shares = {}
        for factor in FACTORS:
            content = RecordDict({ARRAYS: _record(merge.merged(factor).arrays), CONFIG: config})
            messages = [Message(content, client, MessageType.EVALUATE) for client in clients]
            shares[factor] = _rightly_classified(grid.send_and_receive(messages))
        best = max(FACTORS, key=lambda factor: shares[factor])
        found = ", ".join(f"{factor:g}: {100 * share:.2f} %" for factor, share in shares.items())
        logger.info("Length of the merged update, on held-out samples (%s): %g", found, best)
        return best


def _updates(replies: Iterable[Message]) -> Iterator[tuple[Update, Message]]:
    for reply in replies:
        records = reply.content.array_records
        fisher = _arrays(records[FISHER]) if FISHER in records else None
        samples = reply.content.metric_records[METRICS][NUM_EXAMPLES]
        assert isinstance(samples, int)
        yield Update(_arrays(records[ARRAYS]), samples, fisher), reply


def _arrays(record: ArrayRecord) -> Mapping[str, np.ndarray[Any, Any]]:
    return {name: array.numpy() for name, array in record.items()}


def _record(arrays: Mapping[str, np.ndarray[Any, Any]]) -> ArrayRecord:
    return ArrayRecord({name: Array(np.ascontiguousarray(array)) for name, array in arrays.items()})


def _rightly_classified(replies: Iterable[Message]) -> float:
    """Give the share of all clients' held-out samples that are classified rightly; 0 where nobody says."""
    right, samples = 0.0, 0
    for reply in replies:
        metrics = metrics_of(reply, ACCURACY)[0] if reply.has_content() else None
        if metrics is not None:
            examples = int(str(metrics[NUM_EXAMPLES]))
            right, samples = right + float(str(metrics[ACCURACY])) * examples, samples + examples
    return right / samples if samples else 0.0
