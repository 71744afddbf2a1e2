"""What one node can do to a run: odd introductions, names, numbers, sizes, reasons and metrics, and silence."""

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from fedcof import UserError
from fedcof.wire.codec import Sent
from fedcof.wire.packing import pack_arrays
from server import exchange, strategy
from server.continuation import Continuation
from server.federation import Federation
from server.intake import NodeRules
from server.joining import await_nodes
from server.metrics import metrics_of
from server.name_book import NameBook
from server.reasons import LONGEST_REASON, bounded
from server.training_strategy import training_strategy
from server.upload_store import UploadStore
from tests.server.in_memory_grid import InMemoryGrid
from tests.server.test_joining import TimedGrid
from tests.server.test_nodes import CONFIG, FINGERPRINT, asked, node_config, weight_of
from tests.simulations import hostile_client
from tests.simulations.hostile_client import CLASSES, DIM


def introducing(records):
    """An app whose node of partition p says what ``records[p]`` is, and honest names otherwise."""
    app = ClientApp()

    @app.query("introduction")
    def introduce(message, context):
        place = context.node_config["partition-id"]
        record = records.get(place, {"name": f"site-{place}"})
        return Message(RecordDict({"node": ConfigRecord(record)} if record else {}), reply_to=message)

    return app


ODD = [
    {},
    {"name": ""},
    {"name": "x" * 201},
    {"name": "\N{LATIN SMALL LETTER U WITH DIAERESIS}" * 40},
    {"name": "line\nend"},
    {"name": "\x1b[2J"},
    {"name": 7},
    {"name": ["a", "b"]},
    {"name": 1.5},
    {"name": b"bytes"},
    {"name": "a", "more": 1},
    {"partition-id": 0, "num-partitions": 10**9},
    {"partition-id": -1, "num-partitions": 0},
    {"partition-id": "first"},
    {"name": "site-0", "partition-id": 0},
]


@pytest.mark.parametrize("odd", ODD, ids=str)
def test_an_odd_introduction_leaves_that_node_out_and_no_other(odd, tmp_path):
    grid = InMemoryGrid(introducing({1: odd}), 3, seed=4)
    nodes = await_nodes(grid, 0.2, num_named=3, names=NameBook(tmp_path))
    assert sorted(nodes.by_name) == ["site-0", "site-2"]
    ((name, reason),) = nodes.left_out.items()
    assert name.startswith("node ")
    assert reason
    assert len(reason) < 300


def test_a_name_of_any_letters_is_a_name(tmp_path):
    name = "Sankt-J\N{LATIN SMALL LETTER O WITH DIAERESIS}rgen"
    grid = InMemoryGrid(introducing({1: {"name": name, "data-state": "x"}}), 2)
    nodes = await_nodes(grid, 0.2, num_named=2, names=NameBook(tmp_path))
    assert name in nodes.by_name
    assert nodes.data_states[name] == "x"


def test_a_name_belongs_to_the_node_that_had_it_first_in_later_runs_too(tmp_path):
    grid = InMemoryGrid(introducing({}), 2, seed=1)
    first = await_nodes(grid, 0.2, num_named=2, names=NameBook(tmp_path))
    thief = InMemoryGrid(introducing({0: {"name": "site-1"}}), 1, seed=2)
    with pytest.raises(UserError, match="goes by the name of site-1, which is another node's"):
        await_nodes(thief, 0.2, num_named=1, names=NameBook(tmp_path))
    again = await_nodes(grid, 0.2, num_named=2, names=NameBook(tmp_path))
    assert again.by_name == first.by_name


def test_one_whose_introduction_fails_is_named_as_that(tmp_path):
    app = ClientApp()

    @app.query("introduction")
    def introduce(message, context):
        if context.node_config["partition-id"] == 0:
            return Message(RecordDict({"node": ConfigRecord({"name": "site-0"})}), reply_to=message)
        raise AssertionError

    class Failing(InMemoryGrid):
        def _answer(self, message, message_id):
            from flwr.app import Error

            if self.partition_of_node[message.metadata.dst_node_id]:
                return Message(Error(2, "no disk\n" + "x" * 10**6), reply_to=message)
            return super()._answer(message, message_id)

    nodes = await_nodes(Failing(app, 2), 0.2, num_named=2, names=NameBook(tmp_path))
    ((name, reason),) = nodes.left_out.items()
    assert name.startswith("node ")
    assert "failed to say who it is" in reason
    assert len(reason) < 400


def test_a_book_of_names_that_is_none_is_a_sentence(tmp_path):
    for content in ("[1]", "{", '{"a": "b"}', "null"):
        (tmp_path / "names.json").write_text(content)
        with pytest.raises(UserError, match="remove it"):
            NameBook(tmp_path)


def test_three_silent_nodes_cost_one_timeout_and_hold_nobody_back(clock):
    grid = TimedGrid(clock, hostile_client.app, 6, dead={0, 1, 2}, answers={3: 5, 4: 1, 5: 3})
    by_place = {place: node for node, place in grid.partition_of_node.items()}
    messages = [Message(RecordDict(), by_place[place], "query.silence") for place in range(6)]
    grid.client_app = lambda message, context: Message(RecordDict(), reply_to=message)
    arrived = []
    for message, reply in exchange.exchange(grid, messages, timeout=100, ordered=False):
        place = grid.partition_of_node[message.metadata.dst_node_id]
        arrived.append((place, reply is None, clock.now - grid.start))
    assert [place for place, *_ in arrived[:3]] == [4, 5, 3]
    assert all(late < 6 for *_, late in arrived[:3])
    assert {place for place, silent, _ in arrived if silent} == {0, 1, 2}
    assert clock.now - grid.start < 107


def spoiling(how):
    """The light app, with one node whose answers are what ``how`` makes of them."""
    app = ClientApp()
    app.query("introduction")(hostile_client.introduce)

    @app.query("statistics")
    def statistics(message, context):
        reply = hostile_client.statistics(message, context)
        return how(reply) if context.node_config["site"] == 2 else reply

    @app.evaluate()
    def evaluate(message, context):
        reply = hostile_client.evaluate(message, context)
        return how(reply) if context.node_config["site"] == 2 else reply

    return app


def run(folder, app=hostile_client.app, nodes=5, broadcast=False, fraction=1.0, quorum=0.5, seed=0, **rules):
    store = UploadStore(folder / "out", CONFIG)
    grid = InMemoryGrid(app, nodes, seed=seed, node_config=node_config(folder))
    known = [name for name in store.names() if store.read(name)]
    federation = Federation(grid, nodes, 0.3, known, NameBook(folder / "out"))
    made = NodeRules(store, federation.names, FINGERPRINT, CLASSES, nodes, federation.left_out, **rules)
    fedcof = strategy.FedCOF(
        CLASSES, DIM, shrinkage=0.1, quorum=quorum, rules=made, broadcast=broadcast, fraction=fraction
    )
    fedcof.start(federation, timeout=1.0, train_config=ConfigRecord({}))
    return fedcof


def arrays_of(reply):
    key = next(key for key in reply.content if key.endswith("statistics"))
    return reply.content.array_records[key]


def junk(reply):
    reply.content["2:more"] = ArrayRecord({"junk": Array(np.zeros(10**6))})
    return reply


def heavy(reply):
    arrays_of(reply)["junk"] = Array(np.zeros(10**6))
    return reply


def huge(reply):
    record = arrays_of(reply)
    record["means"] = Array(record["means"].numpy() * np.float32(3e19))
    return reply


def imaginary(reply):
    record = arrays_of(reply)
    record["means"] = Array(record["means"].numpy().astype(np.complex64))
    return reply


def infinite(reply):
    record = arrays_of(reply)
    record["means"] = Array(np.full_like(record["means"].numpy(), np.inf))
    return reply


def packed(reply, spoiled, **beside):
    """Replace a reply's arrays by packed ones, or by what only says that it is."""
    content = spoiled(pack_arrays({name: array.numpy() for name, array in arrays_of(reply).items()}))
    named = {"packed": Array("uint8", (len(content),), "fedcof.packed", content), **beside}
    key = next(key for key in reply.content if key.endswith("statistics"))
    reply.content[key] = ArrayRecord(named)
    return reply


def packed_and_cut(reply):
    return packed(reply, lambda content: content[:-1])


def packed_and_no_numbers(reply):
    return packed(reply, lambda content: b"\xdd\xff\xff\xff\xff")


def packed_and_others(reply):
    return packed(reply, lambda content: content, junk=Array(np.zeros(3)))


def packed_and_heavy(reply):
    return packed(reply, lambda content: content + bytes(10**6))


def with_metrics(reply):
    reply.content["2:metrics"] = MetricRecord({"accuracy": 1.0})
    return reply


def long_reason(reply):
    reply.content["2:error"] = ConfigRecord({"reason": "x" * 5_000_000})
    return reply


BAD_REPLIES = [junk, heavy, huge, imaginary, infinite, with_metrics, long_reason]
BADLY_PACKED = [packed_and_cut, packed_and_no_numbers, packed_and_others, packed_and_heavy]


@pytest.mark.parametrize("how", BAD_REPLIES + BADLY_PACKED)
def test_a_reply_that_is_none_is_refused_by_name_and_the_run_goes_on(tmp_path, how):
    fedcof = run(tmp_path, spoiling(how), most_bytes=10**6, screened=False)
    assert list(fedcof.rejected) == [2]
    assert 0 < len(fedcof.rejected[2]) <= LONGEST_REASON
    assert fedcof.intake.results()[2].outcome == f"left out: {fedcof.rejected[2]}"
    assert fedcof.num_accepted == 4
    assert np.isfinite(fedcof.solved().weight.numpy()).all()


def test_packed_arrays_are_the_arrays(tmp_path):
    fedcof = run(tmp_path, spoiling(lambda reply: packed(reply, bytes)), broadcast=False)
    assert fedcof.num_accepted == 5
    assert np.array_equal(fedcof.solved().weight, weight_of(range(5)))


EVALUATIONS = [
    {"accuracy": -1.0, "num-examples": 10},
    {"accuracy": 7.0, "num-examples": 10},
    {"accuracy": float("nan"), "num-examples": 10},
    {"accuracy": 1.0, "num-examples": 10**12},
    {"accuracy": 1.0, "num-examples": -5},
    {"accuracy": 1.0, "num-examples": 31},
    {"accuracy": [1.0, 1.0], "num-examples": 10},
    {"accuracy": 1.0, "num-examples": [10]},
    {"accuracy": 1.0},
    {"other": 1.0, "num-examples": 10},
]


@pytest.mark.parametrize("metrics", EVALUATIONS, ids=str)
def test_an_evaluation_that_cannot_be_counts_for_nothing(tmp_path, metrics):
    def how(reply):
        if "2:metrics" in reply.content:
            reply.content["2:metrics"] = MetricRecord(metrics)
        return reply

    fedcof = run(tmp_path, spoiling(how), broadcast=True)
    assert dict(fedcof.client_metrics) == {"accuracy": 0.5}
    assert fedcof.num_accepted == 5


def test_what_else_an_evaluation_says_is_not_looked_at(tmp_path):
    def how(reply):
        if "2:metrics" in reply.content:
            reply.content["2:metrics"]["poison"] = 1.0
            reply.content["2:other"] = MetricRecord({"accuracy": 1.0, "num-examples": 10})
        return reply

    assert dict(run(tmp_path, spoiling(how), broadcast=True).client_metrics) == {"accuracy": 0.5}


@pytest.mark.parametrize(("loss", "examples"), [(float("inf"), 5), (1.0, 10**12), ([1.0], 5), (1.0, [5]), (1.0, 0)])
def test_a_training_that_says_what_cannot_be_is_left_out(loss, examples):
    config = CONFIG.replaced(dataset="digits", classes="", continue_="linear-probe")
    continuation = Continuation(training_strategy(config), quorum=0.5)
    continuation._sent = continuation.strategy._start = {"head.weight": np.zeros((2, 2), np.float32)}
    continuation._asked = [0, 1]
    replies = []
    network = ArrayRecord({"head.weight": Array(np.ones((2, 2), np.float32))})
    for client, said in enumerate([(1.0, 5), (loss, examples)]):
        asked_for = Message(RecordDict(), client, "train")
        metrics = MetricRecord({"loss": said[0], "num-examples": said[1]})
        replies.append(Message(RecordDict({"arrays": network, "metrics": metrics}), reply_to=asked_for))
    continuation.aggregate_train(1, replies)
    assert continuation.num_accepted == 1


def test_a_metric_is_read_alone():
    message = Message(RecordDict(), 1, "evaluate")
    reply = Message(
        RecordDict({"metrics": MetricRecord({"accuracy": 1, "num-examples": 3, "x": 2.0})}), reply_to=message
    )
    record, reason = metrics_of(reply, "accuracy")
    assert (dict(record), reason) == ({"accuracy": 1.0, "num-examples": 3}, "")


@pytest.mark.parametrize("said", ["a\nb", "x" * 10**6, 7, ["a"], "\x1b[2J", "", "  \n "])
def test_reasons_are_one_short_printable_line(said):
    assert len(bounded(said)) <= LONGEST_REASON
    assert bounded(said).isprintable()
    assert "\n" not in bounded(said)


def test_a_share_of_the_nodes_is_enough_where_a_share_is_asked(tmp_path):
    fedcof = run(tmp_path, nodes=5, fraction=0.4, quorum=1.0)
    assert (fedcof.num_asked, fedcof.num_accepted) == (2, 2)


def test_data_that_has_changed_is_asked_for_again(tmp_path):
    def stating(states):
        app = ClientApp()
        app.query("statistics")(hostile_client.statistics)

        @app.query("introduction")
        def introduce(message, context):
            reply = hostile_client.introduce(message, context)
            reply.content["node"]["data-state"] = states[context.node_config["site"]]
            return reply

        return app

    def times():
        return [asked(tmp_path, site) for site in range(3)]

    for states, expected in (("aaa", [1, 1, 1]), ("aab", [1, 1, 2]), ("aab", [1, 1, 2])):
        store = UploadStore(tmp_path / "out", CONFIG)
        grid = InMemoryGrid(stating(states), 3, node_config=node_config(tmp_path))
        federation = Federation(grid, 3, 0.3, (), NameBook(tmp_path / "out"))
        states_now = federation.data_states
        rules = NodeRules(store, federation.names, FINGERPRINT, CLASSES, 3, data_states=states_now)
        fedcof = strategy.FedCOF(CLASSES, DIM, shrinkage=0.1, rules=rules)
        fedcof.start(federation, timeout=1.0, train_config=ConfigRecord({}))
        assert times() == expected
        assert np.array_equal(fedcof.solved().weight, weight_of(range(3)))


@pytest.mark.parametrize(
    ("kept_with", "read_with", "is_there"), [("a", "a", True), ("a", "b", False), ("", "b", True)]
)
def test_uploads_of_another_backbone_of_the_same_name_are_asked_for_again(tmp_path, kept_with, read_with, is_there):
    """Where it is not known, as in uploads of earlier versions, it is taken to be the same."""
    UploadStore(tmp_path, CONFIG, kept_with).keep("site", Sent(hostile_client.upload(0), "class-means.float32"))
    store = UploadStore(tmp_path, CONFIG, read_with)
    assert (store.read("site") is not None) == is_there
    assert store.names() == ["site"]
