"""A one-shot strategy over several steps: only what is new is asked for, and who leaves is taken out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from copy import deepcopy
from typing import Unpack, cast

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid

from fedcof import UserError
from fedcof.data.schedule import Schedule
from fedcof.methods.section import MethodSection
from fedcof.statistics.base import Statistics
from fedcof.statistics.class_means import ClassMeanRows
from fedcof.statistics.merged import merged
from fedcof.wire.arrays import num_bytes
from fedcof.wire.codec import Sent
from server.one_shot import OneShotStrategy
from server.participation import Participation
from server.records import classifier_to_arrays


class ScheduledStrategy(OneShotStrategy):
    """A method whose clients are asked at each step for the rows of their new samples.

    A step is a round of Flower's. After it the classifier is solved from the rows of all that are there, by an
    aggregator that has seen no others: client by client, the uploads of each put together. So it is, to the last
    bit, the classifier of a federation whose clients have sent these rows at once, and never had any others.

    Parameters
    ----------
    section, num_classes, feature_dim, **participation
        See :class:`server.one_shot.OneShotStrategy`.
    schedule : Schedule
        Who is there at each step.
    to_ask : mapping of int to list of int
        The clients that have something new at each step.

    Attributes
    ----------
    num_asked : int
        Uploads that were asked for so far.
    num_accepted : int
        Clients whose rows are in the classifier.
    num_taken : int
        Uploads that were taken in at the last step.
    """

    def __init__(
        self,
        section: MethodSection,
        num_classes: int,
        feature_dim: int,
        *,
        schedule: Schedule,
        to_ask: Mapping[int, list[int]],
        **participation: Unpack[Participation],
    ) -> None:
        super().__init__(section, num_classes, feature_dim, **participation)
        self.num_taken = 0
        self._schedule, self._to_ask_at = schedule, to_ask
        self._without_uploads = deepcopy(self.aggregator)
        self._kept: dict[int, ClassMeanRows] = {}
        self._taken_so_far = 0

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ask those clients that have something new at this step."""
        self._to_ask = list(self._to_ask_at[server_round])
        self.num_taken = 0
        return super().configure_train(server_round, arrays, config, grid)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Take in what is new, take out who has left, and solve.

        Raises
        ------
        UserError
            If fewer uploads than the quorum could be used so far, or nobody who is there has sent a row.
        """
        for reply in replies:
            self._fold_in(reply)
            self.on_reply(reply.metadata.src_node_id)
        if self._taken_so_far < self.quorum * self.num_asked:
            self.num_accepted = self._taken_so_far
            raise UserError(self._quorum_missed(self.num_asked))
        for client in self._schedule.leaving(server_round).tolist():
            self._kept.pop(client, None)
        self._put_together(server_round)
        self._classifier = self.solve()
        metrics = MetricRecord({"clients": self.num_accepted, "uploads": self.num_taken})
        return classifier_to_arrays(self._classifier), metrics

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Send the last classifier to those clients that are still there, if it is to be broadcast."""
        here = set(self._schedule.here(server_round).tolist())
        messages = super().configure_evaluate(server_round, arrays, config, grid)
        return [message for message in messages if message.metadata.dst_node_id in here]

    def _add(self, client: int, upload: Statistics, sent: Sent) -> None:
        new = cast(ClassMeanRows, upload)
        self._kept[client] = merged([self._kept[client], new]) if client in self._kept else new
        self.num_taken += 1
        self._taken_so_far += 1
        self.expected_uplink_bytes += num_bytes(sent.arrays)

    def _put_together(self, step: int) -> None:
        self.aggregator = deepcopy(self._without_uploads)
        self.class_samples.zero_()
        self.num_accepted = 0
        for client, upload in sorted(self._kept.items()):
            self.aggregator.add(upload, client)
            self.class_samples.index_add_(0, upload.class_ids, upload.counts)
            self.num_accepted += 1
        if not self.class_samples.any():
            raise UserError(
                f"At step {step} nobody who is there has sent a class mean, so there is nothing to solve: let "
                "clients join, or classes arrive, earlier."
            )
