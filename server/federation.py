"""The clients of a run as a Flower Grid: addressed by client number, wherever they live.

Flower draws node ids from the system's randomness and starts a ServerApp while nodes still register. A Federation
waits until all are there, learns once which node is which, and from then on a strategy sees clients 0, 1, 2 ... in
that order, in every run. Several clients may live on one node; a strategy does not notice.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from itertools import groupby
from typing import cast

from flwr.app import ArrayRecord, ConfigRecord, Error, Message, MessageType, RecordDict
from flwr.common.constant import FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE
from flwr.serverapp import Grid
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects
from flwr.supercore.run import Run

from fedcof.run.ledger import Ledger, Occasion
from fedcof.run.protocol import (
    CLIENTS,
    CONFIG,
    ERROR,
    HOSTED,
    REASON,
    SERVER_ROUND,
    split_hosted_key,
)
from server.exchange import exchange
from server.joining import await_nodes
from server.name_book import NameBook
from server.reasons import bounded

CLIENTS_PER_MESSAGE = 32
# What training sends back is as large as what it was sent: so many bytes in one message, and in all under way.
BYTES_PER_MESSAGE, BYTES_UNDER_WAY = 2**25, 2**28
MESSAGES_UNDER_WAY = 64
NO_ANSWER = 1001
CLIENT_FAILED = 1002

Form = tuple[object, ...]


class Federation(Grid):
    """A Grid whose node ids are client numbers.

    Parameters
    ----------
    grid : Grid
        Flower's own, with one id per node.
    num_clients : int
        Clients in the federation; client i lives on node i * nodes // clients. Nodes with data of their own are a
        client each, numbered in the order of their names; as many are expected.
    node_timeout : float
        Seconds to wait for the next node, counted from the last that joined.
    known_names : collection of str
        Names of nodes that need not be there, but have a number.
    names : NameBook, optional
        Whose names are known to belong to which nodes: the nodes then have data of their own, and are strangers.

    Attributes
    ----------
    ledger : Ledger
        Bytes of each client's messages, as if each were alone on its node.
    names : dict of int to str
        Names of the clients that are nodes with data of their own.
    left_out : dict of str to str
        Why a node is no client, by its name.
    data_states : dict of int to str
        What tells whether a node's data has changed, by its client; empty where it does not say.

    Raises
    ------
    UserError
        If no node joins in time, or nodes do not say which partition they are.
    """

    def __init__(
        self,
        grid: Grid,
        num_clients: int,
        node_timeout: float = 120.0,
        known_names: Collection[str] = (),
        names: NameBook | None = None,
    ) -> None:
        self._grid = grid
        self.ledger = Ledger()
        self.names: dict[int, str] = {}
        self._last_counted = RecordDict(), 0
        self._bytes_of_form: dict[Form, int] = {}
        nodes = await_nodes(grid, node_timeout, num_clients, set(known_names), names=names)
        self.left_out = nodes.left_out
        self.data_states: dict[int, str] = {}
        if nodes.by_name or known_names:
            everybody = sorted({*nodes.by_name, *known_names})
            self.names = dict(enumerate(everybody))
            here = {client: nodes.by_name[name] for client, name in self.names.items() if name in nodes.by_name}
            self._node_of_client = here
            self.data_states = {client: nodes.data_states.get(self.names[client], "") for client in here}
        else:
            places, share = nodes.by_partition, len(nodes.by_partition)
            self._node_of_client = {i: places[i * share // num_clients] for i in range(num_clients)}

    def new_ledger(self) -> Ledger:
        """Begin to count from zero, as for the next run with the same clients.

        Returns
        -------
        Ledger
            The new one, also found as ``ledger``.
        """
        self.ledger = Ledger()
        return self.ledger

    def set_run(self, run: Run) -> None:
        """Set the run; see Flower's Grid."""
        self._grid.set_run(run)

    @property
    def run(self) -> Run:
        """The run; see Flower's Grid."""
        return self._grid.run

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """Make a message for a client; see Flower's Grid."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> list[int]:
        """List the clients that are there: 0, 1, 2 ... in every run."""
        return list(self._node_of_client)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Refuse: replies of hosted clients are told apart only by :meth:`send_and_receive`."""
        raise NotImplementedError("Use Federation.send_and_receive, which streams.")

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Refuse; see :meth:`push_messages`."""
        raise NotImplementedError("Use Federation.send_and_receive, which streams.")

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterator[Message]:
        """Send messages to clients and yield one reply for each: in their order, or of strangers as they arrive.

        Parameters
        ----------
        messages : iterable of Message
            Messages whose destinations are client numbers.
        timeout : float, optional
            Seconds that a reply may take; an hour if None.

        Yields
        ------
        Message
            The client's reply; one with an error if it failed or did not answer in time. Its source is the
            client's number.
        """
        timeout = 3600.0 if timeout is None else timeout
        batches: dict[int, list[Message]] = {}

        def outgoing() -> Iterator[Message]:
            for batch in self._batches(messages):
                message = self._message_to_node(batch)
                batches[id(message)] = batch
                yield message

        messages = list(messages)
        window = _fitting(BYTES_UNDER_WAY, messages, MESSAGES_UNDER_WAY)
        for message, reply in exchange(self._grid, outgoing(), timeout, window, ordered=not self.names):
            batch = batches.pop(id(message))
            for request, client_reply in zip(batch, _replies_of_clients(batch, reply, timeout), strict=True):
                self._count(request, client_reply)
                yield client_reply

    def _batches(self, messages: Iterable[Message]) -> Iterator[list[Message]]:
        """Group what goes to one node with the same content, so that the content crosses once."""

        def destination(message: Message) -> tuple[int, int, str]:
            node = self._node_of_client[message.metadata.dst_node_id]
            return node, id(message.content), message.metadata.message_type

        for _, group in groupby(messages, destination):
            batch = list(group)
            size = _fitting(BYTES_PER_MESSAGE, batch, CLIENTS_PER_MESSAGE)
            for start in range(0, len(batch), size):
                yield batch[start : start + size]

    def _message_to_node(self, batch: list[Message]) -> Message:
        clients = [message.metadata.dst_node_id for message in batch]
        return Message(
            RecordDict({**batch[0].content, HOSTED: ConfigRecord({CLIENTS: clients})}),
            self._node_of_client[clients[0]],
            batch[0].metadata.message_type,
            group_id=batch[0].metadata.group_id,
        )

    def _count(self, request: Message, reply: Message) -> None:
        config = request.content.config_records.get(CONFIG, ConfigRecord())
        server_round = cast(int, config.get(SERVER_ROUND, 0))
        occasion = Occasion(server_round, request.metadata.message_type, request.metadata.dst_node_id)
        uplink = self._reply_bytes(reply.content) if reply.has_content() else 0
        self.ledger.record(occasion, uplink, self._content_bytes(request.content))

    def _reply_bytes(self, content: RecordDict) -> int:
        """Count a reply, and only once what has the same form."""
        form = form_of(content)
        if form is None:
            return serialised_bytes(content)
        if form not in self._bytes_of_form:
            self._bytes_of_form[form] = serialised_bytes(content)
        return self._bytes_of_form[form]

    def _content_bytes(self, content: RecordDict) -> int:
        """Count what may go to many clients once."""
        if content is not self._last_counted[0]:
            self._last_counted = content, serialised_bytes(content)
        return self._last_counted[1]


def serialised_bytes(content: RecordDict) -> int:
    """Count the bytes of a message's content as Flower serialises it.

    Parameters
    ----------
    content : RecordDict
        What a message carries.

    Returns
    -------
    int
        Bytes of the content and of all objects nested in it.
    """
    return sum(len(item.deflate()) for item in get_all_nested_objects(content).values())


def form_of(content: RecordDict) -> Form | None:
    """Describe what decides how many bytes a message's content has, apart from its values.

    Flower hashes every object to name it, which takes longer than all else that the server does with a small reply.
    All names are equally long, so the bytes follow from the records' and arrays' keys, types, shapes and lengths,
    and from which arrays are equal, because equal objects are sent once.

    Parameters
    ----------
    content : RecordDict
        What a message carries.

    Returns
    -------
    tuple or None
        Equal only for contents of equally many bytes; None where the bytes must be counted: if there are records of
        another kind than arrays, or arrays that Flower cuts into pieces.
    """
    form: list[object] = []
    number_of_data: dict[bytes, int] = {}
    for name, record in content.items():
        if not isinstance(record, ArrayRecord):
            return None
        form.append((name, len(record)))
        for key, array in record.items():
            if not 0 < len(array.data) <= FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE:
                return None
            number = number_of_data.setdefault(array.data, len(number_of_data))
            form.append((key, array.dtype, array.shape, array.stype, len(array.data), number))
    return tuple(form)


def _fitting(most_bytes: int, messages: list[Message], most: int) -> int:
    """Say how many replies fit into so many bytes, at least one, where each is as large as what is sent."""
    if not messages or messages[0].metadata.message_type != MessageType.TRAIN:
        return most
    records = messages[0].content.array_records.values()
    weight = sum(len(array.data) for record in records for array in record.values())
    return max(1, min(most, most_bytes // max(weight, 1)))


def _replies_of_clients(batch: list[Message], reply: Message | None, timeout: float) -> Iterator[Message]:
    """Take a node's reply apart into one per client of the batch."""
    if reply is None:
        error = Error(NO_ANSWER, f"no answer within {timeout:g} seconds")
    elif reply.has_error():
        error = Error(reply.error.code, bounded(reply.error.reason or f"error {reply.error.code}"))
    else:
        records = _records_of_clients(reply.content)
        yield from (_reply_of_client(request, records) for request in batch)
        return
    yield from (Message(error, reply_to=request) for request in batch)


def _records_of_clients(content: RecordDict) -> dict[int, RecordDict]:
    """Sort a node's records by client; those that belong to none are dropped."""
    records: dict[int, RecordDict] = {}
    for key, record in content.items():
        try:
            client, name = split_hosted_key(key)
        except ValueError:
            continue
        records.setdefault(client, RecordDict())[name] = record
    return records


def _reply_of_client(request: Message, records: dict[int, RecordDict]) -> Message:
    content = records.get(request.metadata.dst_node_id)
    if content is None:
        return Message(Error(CLIENT_FAILED, "its node's reply has nothing from it"), reply_to=request)
    if ERROR in content:
        reason = content.config_records.get(ERROR, ConfigRecord()).get(REASON, "it failed")
        return Message(Error(CLIENT_FAILED, bounded(reason)), reply_to=request)
    return Message(content, reply_to=request)
