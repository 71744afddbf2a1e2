"""Clients in the process of a benchmark, as a Flower Grid: both ends of the wire, without the wire."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from itertools import count

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from fedcof.run.protocol import ARRAYS, NUM_PARTITIONS, PARTITION_ID

NODE = 1


class InProcessGrid(Grid):
    """One node that hosts all clients and answers at once.

    What clients have trained in a first round is kept, and given again where the same is asked: of runs that differ
    in what the server does with it, all but one then cost the server's part alone.

    Parameters
    ----------
    client_app : ClientApp
        The clients'.
    key_of : callable
        Gives what a message's config says that a client's training depends on.
    """

    def __init__(self, client_app: ClientApp, key_of: Callable[[RecordDict], object]) -> None:
        for name in ("_run_id", "_task_id", "_node_id"):
            # Flower stamps messages with who sends them, which its own processes are told as they start.
            setattr(TaskIdentity, name, NODE)
        self._client_app, self._key_of = client_app, key_of
        self._numbers = count(1)
        self._replies: dict[str, Message] = {}
        self._trained: dict[str, RecordDict] = {}

    def set_run(self, run: Run) -> None:
        """Do nothing: there is no run of Flower's."""

    @property
    def run(self) -> Run:
        """Refuse: there is no run of Flower's."""
        raise NotImplementedError

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """Make a message."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> list[int]:
        """Give the one node."""
        return [NODE]

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Have the node answer."""
        numbers = []
        for message in messages:
            number = f"message-{next(self._numbers)}"
            message.metadata.__dict__["_message_id"] = number
            self._replies[number] = self._answer(message)
            numbers.append(number)
        return numbers

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """Give the answers, once."""
        return [self._replies.pop(number) for number in list(message_ids) if number in self._replies]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        """Have the node answer, and give the answers."""
        return self.pull_messages(self.push_messages(messages))

    def _answer(self, message: Message) -> Message:
        place: dict[str, bool | float | int | str] = {PARTITION_ID: 0, NUM_PARTITIONS: 1}
        context = Context(run_id=1, node_id=NODE, node_config=place, state=RecordDict(), run_config={})
        digest = self._digest(message)
        if digest in self._trained:
            return Message(RecordDict(dict(self._trained[digest])), reply_to=message)
        reply = self._client_app(message, context)
        if digest and reply.has_content():
            self._trained[digest] = RecordDict(dict(reply.content))
        return reply

    def _digest(self, message: Message) -> str:
        """Tell requests to train in a first round apart; empty for any other."""
        said = self._key_of(message.content)
        if message.metadata.message_type != "train" or said is None:
            return ""
        found = hashlib.sha256(json.dumps(said, sort_keys=True, default=str).encode())
        for name, array in message.content.array_records[ARRAYS].items():
            found.update(name.encode() + array.data)
        return found.hexdigest()
