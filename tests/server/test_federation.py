"""A federation over an in-memory grid: who is asked, in what order replies come, what is counted, what fails."""

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents

from clients.hosting import answer, introduce
from fedcof import UserError
from server.exchange import exchange
from server.federation import Federation, form_of, serialised_bytes
from server.joining import await_nodes
from tests.server.in_memory_grid import InMemoryGrid


def numbering_app(broken_clients=()):
    """A ClientApp whose clients answer with their number, and some not at all."""
    app = ClientApp()
    app.query("introduction")(introduce)

    def number(client, content, context):
        if client in broken_clients:
            raise UserError(f"client {client} has no disk")
        return RecordDict({"statistics": ArrayRecord({"number": Array(np.full(client + 1, client))})})

    @app.query("statistics")
    def statistics(message, context):
        return answer(number, message, context)

    return app


def ask_all(federation):
    content = RecordDict({"config": ConfigRecord({"seed": 7})})
    requests = [Message(content, client, "query.statistics") for client in federation.get_node_ids()]
    return list(federation.send_and_receive(requests, timeout=0.3))


def number_in(reply):
    return int(reply.content["statistics"]["number"].numpy()[0])


@pytest.mark.parametrize(("clients", "nodes"), [(1, 1), (7, 7), (20, 2), (100, 3), (3, 5)])
@pytest.mark.parametrize("seed", [0, 1])
def test_every_client_answers_once_in_order_wherever_it_lives(clients, nodes, seed):
    federation = Federation(InMemoryGrid(numbering_app(), nodes, seed=seed), clients)
    replies = ask_all(federation)
    assert [number_in(reply) for reply in replies] == list(range(clients))
    assert [reply.metadata.src_node_id for reply in replies] == list(range(clients))


def test_hosting_does_not_change_the_ledger():
    apart = Federation(InMemoryGrid(numbering_app(), 12), 12)
    together = Federation(InMemoryGrid(numbering_app(), 2), 12)
    ask_all(apart)
    replies = ask_all(together)
    assert apart.ledger == together.ledger
    entries = {occasion.client: traffic for occasion, traffic in apart.ledger.entries()}
    assert entries[3].uplink == serialised_bytes(replies[3].content)
    assert apart.ledger.uplink_bytes == sum(serialised_bytes(reply.content) for reply in replies)
    assert apart.ledger.downlink_bytes == 12 * entries[0].downlink > 0
    assert (
        apart.ledger.to_csv().splitlines()[1] == f"0,query.statistics,0,{entries[0].uplink},{entries[0].downlink}"
    )


def test_the_ledger_counts_what_flower_puts_on_the_wire():
    """Flower sends a message as the objects of its content, each as long as its own bytes."""
    content = RecordDict(
        {"config": ConfigRecord({"seed": 7}), "statistics": ArrayRecord({"means": Array(np.ones((50, 40), "f4"))})}
    )
    sent = {key: item.deflate() for key, item in get_all_nested_objects(content).items()}
    assert b"".join(sent.values()).count(np.ones((50, 40), "f4").tobytes()) == 1
    assert serialised_bytes(content) == len(b"".join(sent.values()))
    restored = inflate_object_from_contents(content.object_id, sent)
    assert np.array_equal(restored["statistics"]["means"].numpy(), np.ones((50, 40)))


def test_hosted_clients_share_messages():
    grid = InMemoryGrid(numbering_app(), 2)
    ask_all(Federation(grid, 100))
    assert grid.messages_by_type["query.statistics"] == 4


def test_one_broken_client_leaves_its_neighbours_whole():
    replies = ask_all(Federation(InMemoryGrid(numbering_app(broken_clients=[4]), 2), 10))
    assert [reply.has_error() for reply in replies] == [client == 4 for client in range(10)]
    assert replies[4].error.reason == "client 4 has no disk"


def test_a_failing_and_a_dead_node_are_errors_of_their_clients():
    replies = ask_all(Federation(InMemoryGrid(numbering_app(), 5, failing=[1]), 5))
    assert [reply.has_error() for reply in replies] == [False, True, False, False, False]
    grid = InMemoryGrid(numbering_app(), 5)
    federation = Federation(grid, 5)
    grid.dead = {2}
    replies = ask_all(federation)
    assert [reply.has_error() for reply in replies] == [False, False, True, False, False]
    assert "no answer within 0.3 seconds" in replies[2].error.reason


def test_the_window_bounds_what_is_under_way():
    grid = InMemoryGrid(numbering_app(), 30)
    nodes = await_nodes(grid, 5).by_partition
    messages = (Message(RecordDict(), node, "query.introduction") for node in nodes)
    grid.most_unanswered = 0
    assert len(list(exchange(grid, messages, timeout=5, window=4))) == 30
    assert grid.most_unanswered <= 4


def arrays(**named):
    return ArrayRecord({name: Array(array) for name, array in named.items()})


def contents():
    """Contents whose bytes differ for every reason there is: sizes, types, names, and objects sent once."""
    generator = np.random.default_rng(0)
    for rows in (1, 2, 9, 10, 99, 100):
        for dtype in ("f4", "f2", "i1"):
            means = generator.integers(-9, 9, (rows, 16)).astype(dtype)
            ids, counts = (generator.integers(1, 3, rows).astype("u1") for _ in range(2))
            yield RecordDict({"statistics": arrays(ids=ids, counts=counts, means=means)})
            yield RecordDict({"statistics": arrays(ids=ids, counts=ids, means=means)})
            yield RecordDict({"statistics": arrays(ids=ids, other_counts=ids, means=means)})
            yield RecordDict({"a": arrays(ids=ids), "b": arrays(ids=ids)})
            yield RecordDict({"a": arrays(ids=ids), "b": arrays(ids=counts)})
            yield RecordDict({"a": arrays(ids=ids), "b": ArrayRecord()})
            yield RecordDict({"a": arrays(ids=ids), "b": ConfigRecord({"rows": rows})})
            yield RecordDict({"a": arrays(zeros=np.zeros(0, dtype))})
    yield RecordDict()


def test_contents_of_one_form_have_equally_many_bytes():
    bytes_of_form = {}
    for content in [*contents(), *contents()]:
        form = form_of(content)
        if form is not None:
            assert bytes_of_form.setdefault(form, serialised_bytes(content)) == serialised_bytes(content)
    assert len(bytes_of_form) > 20


def test_what_has_no_form_is_counted():
    pieces = np.zeros(FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE, np.uint8)
    assert form_of(RecordDict({"a": arrays(pieces=pieces)})) is None
    assert form_of(RecordDict({"a": ConfigRecord({"x": 1})})) is None
