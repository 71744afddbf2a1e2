"""One-shot methods as a Flower strategy: ask every client once, solve one classifier."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable
from logging import getLogger

import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result, Strategy
from flwr.serverapp.strategy.strategy_utils import aggregate_metricrecords
from torch import Tensor, nn

from fedcof import UserError
from fedcof.heads.adapter_options import AdapterOptions
from fedcof.heads.classifier import Classifier
from fedcof.heads.linear import LinearClassifier
from fedcof.heads.temperature import softmax_start
from fedcof.heads.text_prior import TextPrior
from fedcof.heads.trainable import Network
from fedcof.methods.base import Aggregator, take_prior
from fedcof.methods.method import FederatedMethod
from fedcof.methods.projected import Projected
from fedcof.methods.registry import METHODS
from fedcof.methods.robust import left_out, robust
from fedcof.methods.robust_rules import SCREEN
from fedcof.methods.section import MethodSection
from fedcof.privacy.mechanism import Privacy
from fedcof.run.protocol import ARRAYS, CONFIG, METRICS, NUM_EXAMPLES, SERVER_ROUND, STATISTICS
from fedcof.statistics.base import Statistics
from fedcof.statistics.squared_length import SquaredLength
from fedcof.statistics.validation import MOST_SAMPLES
from fedcof.wire.arrays import num_bytes
from fedcof.wire.codec import Sent
from server.continuation import joined
from server.corrected import corrected_rows
from server.intake import Intake, NodeRules
from server.keeping import Keeper
from server.metrics import ACCURACY, metrics_of
from server.reasons import bounded
from server.receiving import receiving_chain
from server.records import classifier_to_arrays, network_to_arrays, sent_in
from server.step_size import with_step_of_head

logger = getLogger("flwr")

EvaluateFunction = Callable[[int, ArrayRecord], MetricRecord | None]


class OneShotStrategy(Strategy):
    """A method whose clients are asked once, as a Flower strategy.

    Parameters
    ----------
    section : MethodSection
        Names the method, with its keys.
    num_classes, feature_dim : int
        Size of the classifier.
    **participation
        See :class:`Participation`; one that is misspelt is a TypeError.

    Attributes
    ----------
    num_asked, num_accepted : int
        Clients asked so far, and clients whose upload is used.
    rejected : dict of int to str
        Why each client was left out, by node id.
    expected_uplink_bytes : int
        Bytes of the accepted uploads' numbers alone.
    class_samples : Tensor of shape (C,), int64
        Samples of each class behind them.
    client_metrics : MetricRecord or None
        What the clients found when they evaluated the classifier.
    intake : Intake or None
        What became of the uploads of nodes with data of their own.
    aggregator : Aggregator
        The uploads so far.
    """

    def __init__(
        self,
        section: MethodSection,
        num_classes: int,
        feature_dim: int,
        *,
        quorum: float = 0.8,
        fraction: float = 1.0,
        seed: int = 0,
        broadcast: bool = False,
        on_reply: Callable[[int], object] = lambda client: None,
        then: Strategy | None = None,
        init_rounds: int = 1,
        backbone: nn.Module | None = None,
        adapters: AdapterOptions | None = None,
        privacy: Privacy | None = None,
        subtract_noise: bool = True,
        projection: Tensor | None = None,
        prior: TextPrior | None = None,
        rules: NodeRules | None = None,
        keeper: Keeper | None = None,
    ) -> None:
        method = METHODS.get(section.name)
        if not isinstance(method, FederatedMethod):
            raise UserError(
                f"The method {section.name} asks no clients, so there is no strategy of it: choose another."
            )
        self.quorum, self.fraction, self.seed = quorum, fraction, seed
        self.broadcast, self.on_reply = broadcast, on_reply
        self.then, self.init_rounds = then, init_rounds
        self.backbone, self.adapters = backbone, adapters
        self.intake = Intake(rules) if rules else None
        self._keeper = keeper
        self.client_metrics: MetricRecord | None = None
        self.num_asked = 0
        self.num_accepted = 0
        self.rejected: dict[int, str] = {}
        self.expected_uplink_bytes = 0
        self.class_samples = torch.zeros(num_classes, dtype=torch.int64)
        dimension = feature_dim if projection is None else projection.shape[1]
        aggregator = robust(method.aggregator(num_classes, dimension, section, privacy, subtract_noise), section)
        take_prior(aggregator, prior)
        self.aggregator: Aggregator = aggregator if projection is None else Projected(aggregator, projection)
        self._chain = receiving_chain(
            method, num_classes, feature_dim, privacy, subtract_noise, rules.most_rows if rules else None
        )
        self._lengths = SquaredLength(num_classes)
        # Who is not believed is taken out of what was counted, so that what was added has to be known.
        self._added: dict[int, tuple[Statistics, Sent]] | None = {} if section.robust == SCREEN else None
        self._to_ask: list[int] | None = None
        self._asked_now = self._rounds_asked = 0
        self._last_round = 1
        self._classifier: Classifier | None = None

    def read_upload(self, sent: Sent) -> Statistics:
        """Read one client's upload as what the aggregator adds; raises UserError if it cannot be used."""
        return self._chain.receive(sent.arrays, sent.tag)

    def read_kept(self, sent: Sent) -> Statistics:
        """Read a kept upload, which may have been corrected since it was sent; see :meth:`read_upload`."""
        rows = corrected_rows(sent)
        return self.read_upload(sent) if rows is None else self.take_decoded(rows)

    def take_decoded(self, statistics: Statistics) -> Statistics:
        """Check decoded statistics, and note their noise; raises UserError if they cannot be used."""
        return self._chain.receive_decoded(statistics)

    def solve(self) -> Classifier:
        """Solve for the classifier of all uploads so far."""
        return self.aggregator.solve()

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ask the round's share of those clients that have not been asked for their statistics."""
        clients = sorted(grid.get_node_ids())
        kept: list[int] = []
        if self._to_ask is None:
            if self.intake:
                kept = self.intake.take_kept(self.read_kept)
                clients = [client for client in clients if client not in kept]
            self._to_ask = random.Random(self.seed).sample(clients, len(clients)) if self.fraction < 1 else clients
        size = math.ceil(self.fraction * len(clients))
        asked, self._to_ask = self._to_ask[:size], self._to_ask[size:]
        self._asked_now = len(kept) + len(asked)
        self.num_asked += self._asked_now
        self._rounds_asked += 1
        config[SERVER_ROUND] = server_round
        content = RecordDict({CONFIG: config})
        message_type = f"{MessageType.QUERY}.{STATISTICS}"
        return [Message(content, client, message_type) for client in sorted(asked)]

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Fold the replies in as they arrive and solve.

        Raises
        ------
        UserError
            If fewer clients than the quorum sent an upload that can be used.
        """
        for reply in replies:
            self._fold_in(reply)
            self.on_reply(reply.metadata.src_node_id)
        if self.intake:
            self._add_taken(self.intake)
        if self._keeper:
            self._keeper.finish()
        if not self._asked_now:
            return None, None
        self._believe()
        if self.num_accepted < max(self.quorum * (expected := self._expected()), 1):
            raise UserError(self._quorum_missed(expected))
        self._classifier = self.solve()
        metrics = MetricRecord({"clients": self.num_accepted, "clients-rejected": len(self.rejected)})
        return classifier_to_arrays(self._classifier), metrics

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Send the classifier to all clients after the last round, if it is to be broadcast and nothing follows."""
        if not self.broadcast or self.then is not None or server_round < self._last_round:
            return []
        config[SERVER_ROUND] = server_round
        content = RecordDict({ARRAYS: arrays, CONFIG: config})
        return [Message(content, client, MessageType.EVALUATE) for client in sorted(grid.get_node_ids())]

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Average the clients' metrics over their samples; clients that failed or have none do not count."""
        answered = [reply for reply in replies if reply.has_content()]
        answered.sort(key=lambda reply: reply.metadata.src_node_id)
        contents = self._checked(answered) if self.intake else [reply.content for reply in answered]
        counted = [c for c in contents if any(m.get(NUM_EXAMPLES) for m in c.metric_records.values())]
        self.client_metrics = aggregate_metricrecords(counted, NUM_EXAMPLES) if counted else None
        return self.client_metrics

    def _checked(self, replies: list[Message]) -> list[RecordDict]:
        """Take of strangers' evaluations what can be, and nothing else."""
        contents = []
        for reply in replies:
            client = reply.metadata.src_node_id
            metrics, reason = metrics_of(reply, ACCURACY, self._most_examples(client))
            if metrics is None:
                logger.warning("Client %d's evaluation does not count: %s", client, reason)
            else:
                contents.append(RecordDict({METRICS: metrics}))
        return contents

    def _most_examples(self, client: int) -> int:
        """How many samples a client can have: a node, those of its upload."""
        known = self.intake.nodes.get(client) if self.intake else None
        return known.samples if known and known.samples else MOST_SAMPLES

    def summary(self) -> None:
        """Log the strategy's settings."""
        logger.info("\t├──> Quorum: %g", self.quorum)
        logger.info("\t├──> Fraction asked in a round: %g", self.fraction)
        logger.info("\t└──> Broadcast of the classifier: %s", self.broadcast)

    def start(
        self,
        grid: Grid,
        initial_arrays: ArrayRecord | None = None,
        num_rounds: int = 1,
        timeout: float = 3600,
        train_config: ConfigRecord | None = None,
        evaluate_config: ConfigRecord | None = None,
        evaluate_fn: EvaluateFunction | None = None,
    ) -> Result:
        """Run the strategy; there is nothing to start from, so ``initial_arrays`` may be left out.

        See ``flwr.serverapp.strategy.Strategy.start`` for the parameters and the result. Where another strategy
        goes on, ``num_rounds`` counts its rounds too, and so do the numbers that ``evaluate_fn`` is called with; it
        is called with the network that training starts from, under the number of the last round before.
        """
        collecting = num_rounds if self.then is None else min(self.init_rounds, num_rounds)
        self._last_round = collecting
        arrays = ArrayRecord() if initial_arrays is None else initial_arrays
        result = super().start(grid, arrays, collecting, timeout, train_config, evaluate_config, evaluate_fn)
        if self.then is None or collecting == num_rounds:
            return result

        def evaluate_later(training_round: int, arrays: ArrayRecord) -> MetricRecord | None:
            return evaluate_fn(collecting + training_round, arrays) if evaluate_fn else None

        start = network_to_arrays(self.starting_network())
        rounds = num_rounds - collecting
        sizes = self.aggregator.num_classes, self.aggregator.feature_dim
        told = with_step_of_head(train_config, self.squared_length(), *sizes)
        training = self.then.start(grid, start, rounds, timeout, told, evaluate_config, evaluate_later)
        return joined(result, training, collecting)

    def starting_network(self) -> Network:
        """Give the network that training starts from.

        Returns
        -------
        Network
            The classifier, scaled to a softmax (:mod:`fedcof.heads.temperature`), on the backbone if that trains,
            or its adapters do.
        """
        solved = self.solved()
        if not isinstance(solved, LinearClassifier):
            raise UserError(
                f"Training starts from a linear classifier, but the strategy solves a {solved.KIND} one: set its "
                "head to ridge or lda."
            )
        classifier = softmax_start(solved, self.aggregator.class_means())
        network = Network(classifier.num_classes, classifier.feature_dim, self.backbone, self.adapters)
        return network.set_head(classifier)

    def squared_length(self) -> float:
        """Estimate the mean squared length of the feature vectors from the uploads, where training follows."""
        return self._lengths.mean(self.aggregator.class_means()) if self.then is not None else 0.0

    def solved(self) -> Classifier:
        """Give the classifier of a strategy that has run.

        Returns
        -------
        Classifier
            C classes, d features.

        Raises
        ------
        UserError
            If no client was asked.
        """
        if self._classifier is None:
            raise UserError("No client was asked, so there is no classifier: start the strategy on some clients.")
        return self._classifier

    def _fold_in(self, reply: Message) -> None:
        client = reply.metadata.src_node_id
        if reply.has_error():
            self._reject(client, reply.error.reason or f"error {reply.error.code}")
            return
        try:
            if self.intake:
                self.intake.check_size(reply.content)
            sent = sent_in(reply.content)
            upload = self.read_upload(sent)
            if self.intake:
                self.intake.take(client, upload, sent, reply.content)
            else:
                self._add(client, upload, sent)
        except UserError as error:
            self._reject(client, str(error))

    def _add(self, client: int, upload: Statistics, sent: Sent) -> None:
        self.aggregator.add(upload, client)
        if self._keeper:
            self._keeper.take(client, sent, upload)
        if self._added is None:
            self._count(upload, sent)
        else:
            self._added[client] = upload, sent

    def _believe(self) -> None:
        """Count those whose uploads are believed, now that all can be compared; later ones may tell otherwise."""
        if not self._added:
            return
        against = left_out(self.aggregator)
        self.num_accepted = self.expected_uplink_bytes = 0
        self.class_samples.zero_()
        self._lengths = SquaredLength(len(self.class_samples))
        for client, (upload, sent) in self._added.items():
            if client in against:
                self._reject(client, against[client])
                continue
            if self.rejected.pop(client, None) and self.intake:
                self.intake.take_back(client)
            self._count(upload, sent)

    def _count(self, upload: Statistics, sent: Sent) -> None:
        if self.then is not None:
            self._lengths.add(upload)
        self.num_accepted += 1
        self.class_samples.index_add_(0, upload.class_ids, upload.counts)
        self.expected_uplink_bytes += num_bytes(sent.arrays)

    def _add_taken(self, intake: Intake) -> None:
        for client, upload, sent, reason in intake.release():
            if reason:
                self._reject(client, reason)
            else:
                self._add(client, upload, sent)

    def _reject(self, client: int, reason: str) -> None:
        self.rejected[client] = bounded(reason) or "no reason given"
        if self.intake:
            self.intake.reject(client, self.rejected[client])
        logger.warning("Client %d is left out: %s", client, self.rejected[client])

    def _expected(self) -> int:
        """How many clients the quorum is a share of; of nodes that did not join, as many as would be asked."""
        if not self.intake:
            return self.num_asked
        share = min(1.0, self.fraction * self._rounds_asked)
        return max(self.num_asked, math.ceil(share * self.intake.rules.expected))

    def _quorum_missed(self, expected: int) -> str:
        example = "the others did not join"
        if self.rejected:
            client, reason = next(iter(self.rejected.items()))
            example = f"client {client}: {reason.rstrip('.')}"
        return (
            f"Only {self.num_accepted} of {expected} clients sent an upload that can be used, fewer than the "
            f"quorum of {self.quorum:g}: mend the clients or lower the quorum ({example})."
        )
