"""Who takes part: nodes are asked who they are as they connect, and waited for while more of them come."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from logging import getLogger
from typing import cast
from urllib.parse import quote

from flwr.app import Message, MessageType, RecordDict
from flwr.serverapp import Grid

from fedcof import UserError
from fedcof.run.protocol import DATA_STATE, INTRODUCTION, NAME, NODE, NUM_PARTITIONS, PARTITION_ID
from server.name_book import NameBook
from server.reasons import bounded

logger = getLogger("flwr")

LONGEST_NAME = 200
# A node that is connected lives, but before the first answer Ray and the frameworks start, on whatever machine.
FIRST_ANSWER_SECONDS = 3600.0

_QUESTIONS_AT_ONCE = 64
_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.01, 0.1


@dataclass
class Nodes:
    """The nodes that joined.

    Attributes
    ----------
    by_partition : list of int
        Node ids of a simulation, in the order of their partition ids.
    by_name : dict of str to int
        Node ids of nodes with data of their own.
    left_out : dict of str to str
        Why a node cannot take part.
    data_states : dict of str to str
        What tells whether a node's data has changed, by its name.
    """

    by_partition: list[int] = field(default_factory=list)
    by_name: dict[str, int] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    data_states: dict[str, str] = field(default_factory=dict)


def await_nodes(
    grid: Grid,
    timeout: float,
    num_named: int = 1,
    known: set[str] | None = None,
    first_answer: float = FIRST_ANSWER_SECONDS,
    names: NameBook | None = None,
) -> Nodes:
    """Wait until as many nodes have joined as they say they are, or are expected.

    Parameters
    ----------
    grid : Grid
        Flower's own.
    timeout : float
        Seconds to wait for the next node, counted from the last that joined: how long many take to start says
        more of their machine than of the nodes. Then the federation starts with those that are there.
    num_named : int
        How many nodes are expected if they have data of their own.
    known : set of str
        Names of such nodes that are not waited for.
    first_answer : float
        Seconds that the first may take to say who it is, while any node is connected.
    names : NameBook, optional
        Which names belong to which nodes. With it nodes are strangers with data of their own: one that says
        something else of itself is left out.

    Returns
    -------
    Nodes
        Those that joined.

    Raises
    ------
    UserError
        If no node joins in time, or in a simulation one does not say which partition it is.
    """
    roll = _RollCall(grid, num_named, known or set(), names)
    joined, since, pause, patience = roll.joined, time.monotonic(), _SHORTEST_PAUSE, timeout
    while roll.joined < roll.expected:
        roll.call()
        if roll.joined > joined:
            joined, since, pause = roll.joined, time.monotonic(), _SHORTEST_PAUSE
            continue
        patience = max(timeout, first_answer) if roll.is_anybody_here and not joined else timeout
        if time.monotonic() - since >= patience:
            break
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)
    nodes = roll.nodes()
    if not joined:
        example = "".join(f" ({name}: {reason})" for name, reason in list(nodes.left_out.items())[:1])
        raise UserError(
            f"No node joined within {patience:g} seconds{example}: start the nodes, or raise node-timeout."
        )
    if joined < roll.expected:
        said = "Only %d of %d nodes joined, and no more within %g seconds."
        logger.warning(said, joined, roll.expected, timeout)
    return nodes


class _RollCall:
    """The nodes that are connected, those that were asked who they are, and those that said so."""

    def __init__(self, grid: Grid, num_named: int, known: set[str], names: NameBook | None) -> None:
        self._grid, self._num_named, self._known, self._names = grid, num_named, known, names
        # Before anybody has come, whose names are known may be all there are.
        self.expected = num_named if known else 1
        self.is_anybody_here = False
        self._asked: dict[str, int] = {}
        self._answered: set[int] = set()
        self._partitions: dict[int, int] = {}
        self._failures: dict[int, str] = {}
        self._nodes = Nodes()

    @property
    def joined(self) -> int:
        """How many can take part."""
        return len(self._partitions) or len({*self._nodes.by_name, *self._known})

    def nodes(self) -> Nodes:
        """Give those that joined, a simulation's in order, and those that never said who they are."""
        for node, reason in self._failures.items():
            if node not in self._answered:
                self._nodes.left_out[f"node {node}"] = f"it failed to say who it is ({reason})"
        self._nodes.by_partition = [self._partitions[partition] for partition in sorted(self._partitions)]
        return self._nodes

    def call(self) -> None:
        """Ask those that have come, and take the answers that are there."""
        here = set(self._grid.get_node_ids())
        self.is_anybody_here = bool(here)
        self._asked = {message: node for message, node in self._asked.items() if node in here}
        waiting = sorted(here - self._answered - set(self._asked.values()))
        for node in waiting[: _QUESTIONS_AT_ONCE - len(self._asked)]:
            question = Message(RecordDict(), node, f"{MessageType.QUERY}.{INTRODUCTION}")
            (message,) = self._grid.push_messages([question])
            self._asked[message] = node
        replies = {
            reply.metadata.reply_to_message_id: reply for reply in self._grid.pull_messages(list(self._asked))
        }
        for node, message in sorted((self._asked.pop(message), message) for message in replies):
            # One that fails is asked again.
            if replies[message].has_error():
                self._failures[node] = bounded(replies[message].error.reason or replies[message].error.code)
            else:
                self._answered.add(node)
                self._take(node, replies[message])

    def _take(self, node: int, reply: Message) -> None:
        introduction = dict(reply.content.config_records.get(NODE, {}))
        partition, of = introduction.get(PARTITION_ID), introduction.get(NUM_PARTITIONS)
        if self._names is None and set(introduction) == {PARTITION_ID, NUM_PARTITIONS}:
            self._partitions[int(cast(int, partition))] = node
            self.expected = int(cast(int, of))
        elif isinstance(name := introduction.get(NAME), str) and set(introduction) <= {NAME, DATA_STATE}:
            self.expected = self._num_named
            self._add_named(name, node, introduction.get(DATA_STATE, ""))
        elif self._names is None:
            raise UserError(
                f"Node {node} does not say which partition it is, nor what data it has: "
                f"start it with {PARTITION_ID} and {NUM_PARTITIONS}, or with data and {NAME}, in its node-config."
            )
        else:
            self._leave_out(f"node {node}", "it does not say its name", node)

    def _add_named(self, name: str, node: int, data_state: object) -> None:
        if not 0 < len(quote(name, safe="")) <= LONGEST_NAME or not name.isprintable():
            reason = f"its node-config gives no name of up to {LONGEST_NAME} printable characters"
            self._leave_out(f"node {node}", reason, node)
        elif self._names is not None and not self._names.belongs(name, node):
            self._leave_out(f"node {node}", f"it goes by the name of {name}, which is another node's", node)
        elif name in self._nodes.by_name:
            self._leave_out(name, "two nodes have this name, of which the first is asked", node)
        else:
            self._nodes.by_name[name] = node
            self._nodes.data_states[name] = data_state if isinstance(data_state, str) else ""

    def _leave_out(self, name: str, reason: str, node: int) -> None:
        self._nodes.left_out[name] = reason
        logger.warning("Node %d is left out: %s", node, reason)
