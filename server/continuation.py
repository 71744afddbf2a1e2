"""Training after the closed form: another strategy's rounds, made repeatable, checked, and safe to interrupt."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from logging import getLogger
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result, Strategy

from fedcof import UserError
from fedcof.heads.trainable import check_shapes
from fedcof.run.protocol import ARRAYS, FISHER, METRICS, NO_SAMPLE, NUM_EXAMPLES
from server.metrics import ACCURACY, LOSS, metrics_of
from server.reasons import bounded

logger = getLogger("flwr")


class Continuation(Strategy):
    """Runs another strategy so that its rounds come out the same each time, from whichever round on.

    Clients are drawn by the seed and the round's number; an upload that is not of the network's shapes, or not
    finite, is left out; a client without a sample has not failed, and counts for no quorum; the aggregate keeps
    the arrays' types, where Flower's adaptive strategies turn float32 into float64 and so send twice the bytes.

    Parameters
    ----------
    strategy : Strategy
        Flower's, or one's own.
    seed : int
        Seed of the drawing of clients.
    quorum : float
        Share of the asked clients, from 0 to 1, whose upload must be accepted in each round.
    rounds_done : int
        Rounds that were made before; the strategy's numbers go on from there.
    evaluate_always : bool
        Whether clients evaluate the network after every round.
    evaluate_finally : bool
        Whether they do after the last round, so that all have it.
    on_reply : callable
        Called with the client after every reply to a request to train.
    needs_fisher : bool
        Whether a reply has to say, beside its network, how curved its loss is along each weight.
    names : mapping of int to str, optional
        Names of clients that are nodes.

    Attributes
    ----------
    num_accepted : int
        Clients whose upload was used in the last round.
    accepted_bytes : int
        Bytes of these uploads' numbers alone.
    train_metrics, evaluate_metrics : MetricRecord or None
        The last round's, as the strategy averaged them.
    """

    def __init__(
        self,
        strategy: Strategy,
        seed: int = 0,
        quorum: float = 0.8,
        rounds_done: int = 0,
        evaluate_always: bool = False,
        evaluate_finally: bool = False,
        on_reply: Callable[[int], object] = lambda client: None,
        needs_fisher: bool = False,
        names: Mapping[int, str] | None = None,
    ) -> None:
        self.array_records = {ARRAYS: "network"} | ({FISHER: "Fisher information"} if needs_fisher else {})
        self.names = names or {}
        self.strategy = strategy
        self.seed = seed
        self.quorum = quorum
        self.rounds_done = rounds_done
        self.evaluate_always = evaluate_always
        self.evaluate_finally = evaluate_finally
        self.on_reply = on_reply
        self.num_accepted = 0
        self.accepted_bytes = 0
        self.train_metrics: MetricRecord | None = None
        self.evaluate_metrics: MetricRecord | None = None
        self._asked: list[int] = []
        self._last_round = 0
        self._sent: dict[str, np.ndarray[Any, Any]] = {}

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Let the strategy ask clients, which it draws from the seed and the round."""
        number = self.rounds_done + server_round
        self._sent = {name: array.numpy() for name, array in arrays.items()}
        with _drawn_from(f"train {self.seed} {number}"):
            messages = list(self.strategy.configure_train(number, arrays, config, grid))
        messages = _by_client(messages)
        self._asked = [message.metadata.dst_node_id for message in messages]
        return messages

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Let the strategy aggregate what can be used.

        Raises
        ------
        UserError
            If that came from fewer clients than the quorum.
        """
        number, usable = self.rounds_done + server_round, self._usable(server_round, replies)
        # Flower's own go over them more than once.
        streams = getattr(self.strategy, "streams", False)
        arrays, self.train_metrics = self.strategy.aggregate_train(number, usable if streams else list(usable))
        self.accepted_bytes = self.num_accepted * self._bytes_of_network()
        if arrays is None:
            raise UserError(
                f"The strategy makes no network of what {self.num_accepted} clients trained in round {number}, "
                "too few for it: ask more of them with continue-fraction, or set another continue-strategy."
            )
        kept = {name: arrays[name].numpy().astype(sent.dtype, copy=False) for name, sent in self._sent.items()}
        if not all(np.isfinite(array).all() for array in kept.values()):
            raise UserError(
                f"The network is not finite after round {number}: lower server-learning-rate or learning-rate."
            )
        return ArrayRecord({name: Array(array) for name, array in kept.items()}), self.train_metrics

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Let the strategy ask clients to evaluate, if they are to."""
        last = server_round == self._last_round
        if not (self.evaluate_always or (self.evaluate_finally and last)):
            return []
        number = self.rounds_done + server_round
        with _drawn_from(f"evaluate {self.seed} {number}"):
            return _by_client(list(self.strategy.configure_evaluate(number, arrays, config, grid)))

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Let the strategy put the clients' metrics together, without clients that failed or have no sample."""
        counted = [reply for reply in replies if reply.has_content() and _says(reply, ACCURACY)]
        counted.sort(key=lambda reply: reply.metadata.src_node_id)
        self.evaluate_metrics = None
        if counted:
            self.evaluate_metrics = self.strategy.aggregate_evaluate(self.rounds_done + server_round, counted)
        return self.evaluate_metrics

    def summary(self) -> None:
        """Log the strategy's settings."""
        self.strategy.summary()

    def start(
        self,
        grid: Grid,
        initial_arrays: ArrayRecord,
        num_rounds: int = 3,
        timeout: float = 3600,
        train_config: ConfigRecord | None = None,
        evaluate_config: ConfigRecord | None = None,
        evaluate_fn: Callable[[int, ArrayRecord], MetricRecord | None] | None = None,
    ) -> Result:
        """Run the strategy for as many rounds; see ``flwr.serverapp.strategy.Strategy.start``."""
        self._last_round = num_rounds
        return super().start(grid, initial_arrays, num_rounds, timeout, train_config, evaluate_config, evaluate_fn)

    def _usable(self, server_round: int, replies: Iterable[Message]) -> Iterator[Message]:
        """Pass on what can be used, so that sums are the same whichever node answers first; check the quorum."""
        number, reasons, empty = self.rounds_done + server_round, list[str](), 0
        self.num_accepted = 0
        turns, early = deque(self._asked), dict[int, Message | None]()
        for reply in replies:
            client, reason = reply.metadata.src_node_id, self._reason_against(reply)
            if _has_no_sample(reply):
                empty += 1
            elif reason:
                logger.warning("Client %s is left out of this round: %s", self._named(client), reason)
                reasons.append(f"client {self._named(client)}: {reason.rstrip('.')}")
            else:
                self.num_accepted += 1
            early[client] = None if reason else reply
            self.on_reply(reply.metadata.src_node_id)
            while turns and turns[0] in early:
                usable = early.pop(turns.popleft())
                if usable is not None:
                    yield usable
        self._check_quorum(number, len(self._asked) - empty, empty, reasons)

    def _check_quorum(self, number: int, with_samples: int, empty: int, reasons: list[str]) -> None:
        if empty and not with_samples:
            raise UserError(
                f"None of the {empty} clients asked in round {number} has a sample to train on: ask more of them "
                "with continue-fraction, or deal the samples to fewer with num-clients."
            )
        if not self.num_accepted or self.num_accepted < self.quorum * with_samples:
            example = next(iter(reasons), "none was asked")
            raise UserError(
                f"Only {self.num_accepted} of {with_samples} clients trained in round {number}, fewer than the "
                f"quorum of {self.quorum:g}: mend the clients or lower the quorum ({example})."
            )

    def _named(self, client: int) -> str:
        return self.names.get(client, str(client))

    def _bytes_of_network(self) -> int:
        return len(self.array_records) * sum(array.nbytes for array in self._sent.values())

    def _reason_against(self, reply: Message) -> str:
        """Say why a reply cannot be used; nothing if it can."""
        if reply.has_error():
            return bounded(reply.error.reason or "") or f"error {reply.error.code}"
        if set(reply.content) != {*self.array_records, METRICS}:
            return "it sent other records than it was asked for"
        for name, words in self.array_records.items():
            reason = self._reason_against_arrays(reply.content.array_records.get(name, ArrayRecord()), words)
            if reason:
                return reason
        return "" if _says(reply, LOSS) else "it does not say on how many samples it trained, and with what loss"

    def _reason_against_arrays(self, record: ArrayRecord, words: str) -> str:
        try:
            arrays = {name: array.numpy() for name, array in record.items()}
            check_shapes(arrays, {name: array.shape for name, array in self._sent.items()})
        except (UserError, ValueError, TypeError) as error:
            return str(error)
        return "" if all(_is_finite(array) for array in arrays.values()) else f"its {words} is not finite"


def joined(first: Result, then: Result, rounds: int) -> Result:
    """Put the results of two strategies together, of which one goes on where the other has ended.

    Parameters
    ----------
    first, then : Result
        Of the one and the other; the first is changed.
    rounds : int
        How many rounds the first had.

    Returns
    -------
    Result
        The first, with the other's rounds counted on from it.
    """
    for field in ("train_metrics_clientapp", "evaluate_metrics_clientapp", "evaluate_metrics_serverapp"):
        metrics = getattr(first, field)
        metrics.update({rounds + number: record for number, record in getattr(then, field).items()})
    first.arrays = then.arrays
    return first


def _is_finite(array: np.ndarray[Any, Any]) -> bool:
    return bool(np.issubdtype(array.dtype, np.floating) and np.isfinite(array).all())


def _says(reply: Message, metric: str) -> bool:
    """Whether a reply says a metric over some samples; what else it says is taken out: strategies average all."""
    metrics, _ = metrics_of(reply, metric)
    if metrics is None or not metrics[NUM_EXAMPLES]:
        return False
    reply.content.metric_records[METRICS] = metrics
    return True


def _has_no_sample(reply: Message) -> bool:
    """Whether a client says that there is nothing that it could train on."""
    return reply.has_error() and NO_SAMPLE in (reply.error.reason or "")


def _by_client(messages: list[Message]) -> list[Message]:
    """Sort messages, so that those to clients of one node follow one another."""
    return sorted(messages, key=lambda message: message.metadata.dst_node_id)


@contextmanager
def _drawn_from(seed: str) -> Iterator[None]:
    """Seed the random numbers of Python that Flower draws clients with, and put them back."""
    before = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(before)
