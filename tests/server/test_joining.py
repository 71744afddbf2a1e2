"""Who is waited for, and how long: the next to join and the next to answer, on a clock that these tests turn."""

from collections import defaultdict

import pytest
from flwr.app import Message, RecordDict

from fedcof import UserError
from server import exchange
from server.federation import Federation
from server.joining import await_nodes
from tests.server.in_memory_grid import InMemoryGrid
from tests.server.test_federation import ask_all, number_in, numbering_app


class TimedGrid(InMemoryGrid):
    """Partition p connects ``connects[p]`` seconds after the start, and answers ``answers[p]`` after that."""

    def __init__(self, clock, app, num_nodes, connects=None, answers=None, **settings):
        super().__init__(app, num_nodes, **settings)
        self.clock, self.start = clock, clock.now
        self.connects, self.answers = connects or {}, answers or {}
        self.asked_at = {}

    def get_node_ids(self):
        passed = self.clock.now - self.start
        return {node for node, place in self.partition_of_node.items() if self.connects.get(place, 0) <= passed}

    def push_messages(self, messages):
        ids = super().push_messages(messages)
        self.asked_at |= dict.fromkeys(ids, self.clock.now)
        return ids

    def pull_messages(self, message_ids):
        ready = [i for i in message_ids if i in self.unanswered and self._partition(i) not in self.dead]
        due = [i for i in ready if self.clock.now >= self.asked_at[i] + self.answers.get(self._partition(i), 0)]
        return [self._answer(self.unanswered.pop(i), i) for i in due]


def partitions(grid, nodes):
    return [grid.partition_of_node[node] for node in nodes.by_partition]


def test_nodes_that_never_come_are_named_or_waited_for(clock):
    with pytest.raises(UserError, match="No node joined within 120 seconds"):
        await_nodes(InMemoryGrid(numbering_app(), 0), 120)
    assert 1120 <= clock.now < 1121
    with pytest.raises(UserError, match="does not say which partition"):
        await_nodes(InMemoryGrid(numbering_app(), 2, node_config=lambda partition: {}), 1)
    grid = InMemoryGrid(
        numbering_app(), 3, node_config=lambda partition: {"partition-id": partition, "num-partitions": 4}
    )
    assert len(await_nodes(grid, 1).by_partition) == 3


def test_nodes_come_in_the_order_of_their_partitions():
    grid = InMemoryGrid(numbering_app(), 9, seed=3)
    assert partitions(grid, await_nodes(grid, 5)) == list(range(9))


@pytest.mark.parametrize("gap", [10, 29])
def test_nodes_are_waited_for_while_others_join(clock, gap):
    """All in all it takes longer than the limit; from one to the next it does not."""
    grid = TimedGrid(clock, numbering_app(), 8, connects={place: gap * place for place in range(8)})
    assert partitions(grid, await_nodes(grid, 30)) == list(range(8))
    assert clock.now - grid.start > 7 * gap


@pytest.mark.parametrize("what", ["connects", "answers"])
def test_one_that_comes_too_late_after_the_last_is_not_waited_for(clock, what):
    grid = TimedGrid(clock, numbering_app(), 4, **{what: {3: 300}})
    assert partitions(grid, await_nodes(grid, 30)) == [0, 1, 2]
    assert 30 <= clock.now - grid.start < 31


def test_the_first_answer_is_waited_for_while_somebody_is_connected(clock):
    """A simulation's nodes are there at once, but none speaks before Ray and torch have started."""
    grid = TimedGrid(clock, numbering_app(), 4, answers={place: 900 + place for place in range(4)})
    assert partitions(grid, await_nodes(grid, 30)) == [0, 1, 2, 3]


def test_a_first_answer_that_never_comes_ends_the_wait(clock):
    grid = TimedGrid(clock, numbering_app(), 2, dead={0, 1})
    with pytest.raises(UserError, match="No node joined within 3600 seconds"):
        await_nodes(grid, 30)
    grid = TimedGrid(clock, numbering_app(), 2, dead={0, 1})
    with pytest.raises(UserError, match="No node joined within 50 seconds"):
        await_nodes(grid, 30, first_answer=50)


def test_one_that_hangs_keeps_nobody_from_being_asked(clock):
    grid = TimedGrid(clock, numbering_app(), 4, connects={2: 20, 3: 25}, dead={0})
    assert partitions(grid, await_nodes(grid, 30)) == [1, 2, 3]


def test_one_that_left_is_asked_again_when_it_returns(clock):
    grid = TimedGrid(clock, numbering_app(), 2, dead={1})
    (leaving,) = (node for node, place in grid.partition_of_node.items() if place == 1)
    everybody = grid.get_node_ids

    def get_node_ids():
        away = 5 < clock.now - grid.start < 10
        # Who returns has forgotten what it was asked.
        grid.dead = set() if clock.now - grid.start >= 10 else grid.dead
        if away:
            grid.unanswered.clear()
        return everybody() - ({leaving} if away else set())

    grid.get_node_ids = get_node_ids
    assert partitions(grid, await_nodes(grid, 30)) == [0, 1]


def test_many_are_asked_a_few_at_a_time(clock):
    grid = TimedGrid(clock, numbering_app(), 300, answers=defaultdict(lambda: 3))
    assert len(await_nodes(grid, 30).by_partition) == 300
    assert grid.most_unanswered <= 64


def test_a_reply_is_waited_for_while_others_come(clock):
    """One at a time, as clients answer who share a machine: each within the limit of the one before it."""
    grid = TimedGrid(clock, numbering_app(), 9)
    federation = Federation(grid, 9)
    grid.answers = {place: 0.25 * (place + 1) for place in range(9)}
    assert [number_in(reply) for reply in ask_all(federation)] == list(range(9))
    grid.answers = {place: 0.25 * (9 - place) for place in range(9)}
    assert [number_in(reply) for reply in ask_all(federation)] == list(range(9))


@pytest.mark.parametrize("late", [0, 4, 8])
def test_a_reply_is_not_waited_for_once_none_comes(clock, late):
    grid = TimedGrid(clock, numbering_app(), 9)
    federation = Federation(grid, 9)
    grid.answers = {place: 5.0 if place == late else 0.1 for place in range(9)}
    replies = ask_all(federation)
    assert [reply.has_error() for reply in replies] == [place == late for place in range(9)]
    assert replies[late].error.reason == "no answer within 0.3 seconds"


def test_a_silent_federation_is_given_up_after_the_limit(clock):
    grid = TimedGrid(clock, numbering_app(), 3)
    nodes = await_nodes(grid, 5).by_partition
    grid.dead = {0, 1, 2}
    before = clock.now
    messages = [Message(RecordDict(), node, "query.statistics") for node in nodes]
    assert [reply for _, reply in exchange.exchange(grid, messages, timeout=60)] == [None] * 3
    assert 60 <= clock.now - before < 62
