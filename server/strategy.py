"""FedNCM and FedCOF as Flower strategies: one query to every client, one classifier."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from logging import getLogger

from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result, Strategy

import fedcof
from fedcof import LinearClassifier, UserError
from fedcof.aggregators import ClassMeansAggregator
from fedcof.encoding import decode_class_means
from fedcof.protocol import CONFIG, STATISTICS

logger = getLogger("flwr")

EvaluateFunction = Callable[[int, ArrayRecord], MetricRecord | None]


class OneShotStrategy(Strategy):
    """What the training-free strategies share: ask each client once, fold its reply in, solve.

    Parameters
    ----------
    aggregator : ClassMeansAggregator
        Where uploads are added, and what solves for the classifier.
    quorum : float
        Share of the asked clients, from 0 to 1, whose upload must be accepted.
    on_reply : callable, optional
        Called after every reply, for those who watch.

    Attributes
    ----------
    num_accepted : int
        Clients whose upload is used.
    rejected : dict of int to str
        Why each client was left out, by node id.
    """

    def __init__(
        self, aggregator: ClassMeansAggregator, quorum: float = 0.8, on_reply: Callable[[], None] | None = None
    ) -> None:
        self.aggregator = aggregator
        self.quorum = quorum
        self.on_reply = on_reply or (lambda: None)
        self.num_accepted = 0
        self._classifier: LinearClassifier | None = None
        self.rejected: dict[int, str] = {}

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ask every client for its statistics; later rounds ask nobody."""
        if server_round > 1:
            return []
        content = RecordDict({CONFIG: config})
        message_type = f"{MessageType.QUERY}.{STATISTICS}"
        return [Message(content, node, message_type) for node in sorted(grid.get_node_ids())]

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Fold the replies in as they arrive and solve.

        Raises
        ------
        UserError
            If fewer clients than the quorum sent an upload that can be used.
        """
        num_replies = 0
        for reply in replies:
            num_replies += 1
            self._fold_in(reply)
            self.on_reply()
        if not num_replies:
            return None, None
        if self.num_accepted < self.quorum * num_replies:
            raise UserError(self._quorum_missed(num_replies))
        self._classifier = self.aggregator.solve()
        metrics = MetricRecord({"clients": self.num_accepted, "clients-rejected": len(self.rejected)})
        return classifier_to_arrays(self._classifier), metrics

    def solved(self) -> LinearClassifier:
        """Give the classifier of a strategy that has run.

        Returns
        -------
        LinearClassifier
            C classes, d features.

        Raises
        ------
        UserError
            If no client was asked.
        """
        if self._classifier is None:
            raise UserError("No client was asked, so there is no classifier: start the strategy on some clients.")
        return self._classifier

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ask nobody: the classifier is evaluated on the server."""
        return []

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Nothing to aggregate."""
        return None

    def summary(self) -> None:
        """Log the strategy's settings."""
        logger.info("\t├──> Method: %s", type(self.aggregator).__name__)
        logger.info("\t├──> Classes: %d", self.aggregator.num_classes)
        logger.info("\t├──> Feature dimension: %d", self.aggregator.feature_dim)
        logger.info("\t└──> Quorum: %g", self.quorum)

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

        See ``flwr.serverapp.strategy.Strategy.start`` for the parameters and the result.
        """
        arrays = ArrayRecord() if initial_arrays is None else initial_arrays
        return super().start(grid, arrays, num_rounds, timeout, train_config, evaluate_config, evaluate_fn)

    def _fold_in(self, reply: Message) -> None:
        client = reply.metadata.src_node_id
        if reply.has_error():
            self._reject(client, reply.error.reason or f"error {reply.error.code}")
            return
        try:
            record = reply.content.array_records.get(STATISTICS, ArrayRecord())
            self.aggregator.add(decode_class_means({key: record[key].numpy() for key in record}), client)
            self.num_accepted += 1
        except UserError as error:
            self._reject(client, str(error))

    def _reject(self, client: int, reason: str) -> None:
        self.rejected[client] = reason.strip().splitlines()[-1] if reason.strip() else "no reason given"
        logger.warning("Client %d is left out: %s", client, self.rejected[client])

    def _quorum_missed(self, asked: int) -> str:
        client, reason = next(iter(self.rejected.items()))
        return (
            f"Only {self.num_accepted} of {asked} clients sent an upload that can be used, fewer than the quorum "
            f"of {self.quorum:g}: mend the clients or lower the quorum (client {client}: {reason.rstrip('.')})."
        )


class FedNCM(OneShotStrategy):
    """Nearest class mean (arXiv 2306.03937) as a Flower strategy.

    Parameters
    ----------
    num_classes, feature_dim : int
        Size of the classifier.
    quorum, on_reply
        See :class:`OneShotStrategy`.
    """

    def __init__(
        self,
        num_classes: int,
        feature_dim: int,
        quorum: float = 0.8,
        on_reply: Callable[[], None] | None = None,
    ) -> None:
        super().__init__(fedcof.FedNCM(num_classes, feature_dim), quorum, on_reply)


class FedCOF(OneShotStrategy):
    """Covariances for free (arXiv 2412.14326) as a Flower strategy.

    Parameters
    ----------
    num_classes, feature_dim : int
        Size of the classifier.
    estimator, shrinkage, head
        See :class:`fedcof.FedCOF`.
    quorum, on_reply
        See :class:`OneShotStrategy`.
    """

    def __init__(
        self,
        num_classes: int,
        feature_dim: int,
        estimator: str = "per-class",
        shrinkage: float | str = 1.0,
        head: str = "ridge",
        quorum: float = 0.8,
        on_reply: Callable[[], None] | None = None,
    ) -> None:
        aggregator = fedcof.FedCOF(num_classes, feature_dim, estimator, shrinkage, head)
        super().__init__(aggregator, quorum, on_reply)


def classifier_to_arrays(classifier: LinearClassifier) -> ArrayRecord:
    """Write a classifier as the arrays of a Flower model.

    Parameters
    ----------
    classifier : LinearClassifier
        C classes, d features.

    Returns
    -------
    ArrayRecord
        ``weight`` (C, d) float32, ``bias`` (C,) float32, ``present`` (C,) bool.
    """
    tensors = {"weight": classifier.weight, "bias": classifier.bias, "present": classifier.present}
    return ArrayRecord({name: Array(tensor.numpy()) for name, tensor in tensors.items()})
