"""The strategies on a federation and on a plain Flower grid: same classifier, quorum, rejections."""

import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

import fedcof
from clients.hosting import answer, introduce
from fedcof import UserError, class_means, feature_moments
from fedcof.wire.encoding import encode_class_means
from fedcof.wire.gram import MOMENTS
from server.federation import Federation
from server.strategy import Fed3R, FedCOF, FedNCM
from tests.server.in_memory_grid import InMemoryGrid

DIM, CLASSES = 6, 4


def upload_of(client):
    generator = torch.Generator().manual_seed(client)
    labels = torch.randint(0, CLASSES, (25,), generator=generator)
    return class_means(torch.randn(25, DIM, generator=generator) + labels[:, None], labels)


def statistics_app(spoil=None):
    app = ClientApp()
    app.query("introduction")(introduce)

    def statistics(client, content, context):
        arrays = encode_class_means(upload_of(client))
        if spoil:
            arrays = spoil(client, arrays)
        return RecordDict({"statistics": ArrayRecord({key: Array(array) for key, array in arrays.items()})})

    @app.query("statistics")
    def handle(message, context):
        return answer(statistics, message, context)

    return app


def local_weight(aggregator, clients):
    for client in clients:
        aggregator.add(upload_of(client))
    return aggregator.solve().weight


@pytest.mark.parametrize("grid_seed", range(4))
@pytest.mark.parametrize("nodes", [2, 10])
def test_the_federated_classifier_is_the_local_one_to_the_last_bit(nodes, grid_seed):
    federation = Federation(InMemoryGrid(statistics_app(), nodes, seed=grid_seed), 10)
    strategy = FedCOF(CLASSES, DIM, shrinkage=0.1)
    result = strategy.start(federation, train_config=ConfigRecord({}))
    expected = local_weight(fedcof.FedCOF(CLASSES, DIM, shrinkage=0.1), range(10))
    assert torch.equal(strategy.solved().weight, expected)
    assert torch.equal(torch.from_numpy(result.arrays["weight"].numpy()), expected)
    assert result.train_metrics_clientapp[1]["clients"] == 10


def test_a_plain_flower_grid_will_do():
    grid = InMemoryGrid(statistics_app(), 5)
    grid.registered = 5
    strategy = FedNCM(CLASSES, DIM)
    strategy.start(grid)
    expected = local_weight(fedcof.FedNCM(CLASSES, DIM), range(5))
    torch.testing.assert_close(strategy.solved().weight, expected)


def test_bad_uploads_are_counted_named_and_left_out():
    def spoil(client, arrays):
        if client == 3:
            arrays["means"][0, 0] = float("nan")
        if client == 6:
            arrays["class-ids"][0] = CLASSES
        return arrays

    strategy = FedCOF(CLASSES, DIM, shrinkage=0.1, quorum=0.7)
    strategy.start(Federation(InMemoryGrid(statistics_app(spoil), 10, failing=[8]), 10))
    assert strategy.num_accepted == 7
    assert set(strategy.rejected) == {3, 6, 8}
    assert "means" in strategy.rejected[3]
    assert "class_ids" in strategy.rejected[6]
    assert strategy.rejected[8] == "RuntimeError: the disk is full"
    expected = local_weight(fedcof.FedCOF(CLASSES, DIM, shrinkage=0.1), [0, 1, 2, 4, 5, 7, 9])
    assert torch.equal(strategy.solved().weight, expected)


def test_below_the_quorum_the_run_fails():
    grid = InMemoryGrid(statistics_app(), 10, failing=[1, 2, 3])
    with pytest.raises(UserError, match="Only 7 of 10 clients .* quorum of 0.8.*the disk is full"):
        FedCOF(CLASSES, DIM).start(Federation(grid, 10))
    grid = InMemoryGrid(statistics_app(), 10, failing=[1, 2, 3])
    FedCOF(CLASSES, DIM, quorum=0.7).start(Federation(grid, 10))


def test_watchers_see_every_reply():
    seen = []
    strategy = FedNCM(CLASSES, DIM, on_reply=seen.append)
    with pytest.raises(UserError, match="start the strategy"):
        strategy.solved()
    strategy.start(Federation(InMemoryGrid(statistics_app(), 3), 8))
    assert sorted(seen) == list(range(8))


def moments_app():
    app = ClientApp()
    app.query("introduction")(introduce)

    def statistics(client, content, context):
        generator = torch.Generator().manual_seed(client)
        labels = torch.randint(0, CLASSES, (25,), generator=generator)
        arrays = MOMENTS.encode(feature_moments(torch.randn(25, DIM, generator=generator), labels), 0)
        return RecordDict({"statistics": ArrayRecord({key: Array(array) for key, array in arrays.items()})})

    @app.query("statistics")
    def handle(message, context):
        return answer(statistics, message, context)

    return app


@pytest.mark.parametrize("make", [FedCOF, FedNCM, Fed3R])
def test_the_classifier_of_several_rounds_is_that_of_one(make):
    app = moments_app() if make is Fed3R else statistics_app()

    def run(**options):
        strategy = make(CLASSES, DIM, **options)
        rounds = []

        def evaluate(server_round, arrays):
            if server_round:
                rounds.append((strategy.num_accepted, strategy.solved().weight))

        num_rounds = 4 if options else 1
        strategy.start(Federation(InMemoryGrid(app, 5), 11), num_rounds=num_rounds, evaluate_fn=evaluate)
        return rounds

    ((_, at_once),) = run()
    rounds = run(fraction=0.25, seed=3)
    assert [clients for clients, _ in rounds] == [3, 6, 9, 11]
    assert not torch.equal(rounds[0][1], at_once)
    if make is Fed3R:
        # Its sums are taken in another order, in float64.
        torch.testing.assert_close(rounds[-1][1], at_once, rtol=1e-6, atol=1e-7)
    else:
        assert torch.equal(rounds[-1][1], at_once)


def test_no_client_is_asked_twice_and_the_seed_decides_who_is_asked_when():
    def first_three(seed):
        strategy = FedNCM(CLASSES, DIM, fraction=0.25, seed=seed)
        messages = list(strategy.configure_train(1, ArrayRecord(), ConfigRecord(), federation))
        later = [
            m for r in (2, 3, 4, 5) for m in strategy.configure_train(r, ArrayRecord(), ConfigRecord(), federation)
        ]
        asked = [message.metadata.dst_node_id for message in messages + later]
        assert sorted(asked) == list(range(11))
        return asked[:3]

    federation = Federation(InMemoryGrid(statistics_app(), 5), 11)
    assert first_three(0) == first_three(0)
    assert len({tuple(first_three(seed)) for seed in range(5)}) > 1


def test_the_broadcast_sends_the_classifier_to_every_client_once():
    app = statistics_app()

    @app.evaluate()
    def evaluate(message, context):
        def metrics(client, content, context):
            assert content["arrays"]["weight"].numpy().shape == (CLASSES, DIM)
            return RecordDict({"metrics": MetricRecord({"accuracy": client / 10, "num-examples": 1 + client % 2})})

        return answer(metrics, message, context)

    federation = Federation(InMemoryGrid(app, 3), 4)
    strategy = FedNCM(CLASSES, DIM, broadcast=True, fraction=0.5)
    result = strategy.start(federation, num_rounds=2)
    assert list(result.evaluate_metrics_clientapp) == [2]
    assert result.evaluate_metrics_clientapp[2]["accuracy"] == pytest.approx((0 + 0.2 + 0.2 + 0.6) / 6)
    sent = [entry for entry in federation.ledger.entries() if entry[0].message == "evaluate"]
    assert [(occasion.round, occasion.client) for occasion, _ in sent] == [(2, client) for client in range(4)]
    assert all(traffic.downlink > CLASSES * DIM * 4 for _, traffic in sent)


def test_the_expected_bytes_are_those_of_the_accepted_numbers():
    strategy = FedNCM(CLASSES, DIM, quorum=0.5)
    federation = Federation(InMemoryGrid(statistics_app(), 5, failing=[1]), 5)
    strategy.start(federation)
    rows = sum(upload_of(client).num_rows for client in (0, 2, 3, 4))
    assert strategy.expected_uplink_bytes == rows * (4 * DIM + 2)
    assert federation.ledger.uplink_bytes > strategy.expected_uplink_bytes


@pytest.mark.parametrize("make", [FedCOF, FedNCM, Fed3R])
@pytest.mark.parametrize("misspelt", ["quorom", "fractions", "shrinkag", "on_replies"])
def test_a_misspelt_keyword_is_an_error_and_no_default(make, misspelt):
    with pytest.raises(TypeError, match=misspelt):
        make(CLASSES, DIM, **{misspelt: 1})
    make(CLASSES, DIM, quorum=1, fraction=0.5)


def test_a_keyword_of_another_method_is_an_error_too():
    for make, keyword in ((FedNCM, "shrinkage"), (FedCOF, "penalty"), (Fed3R, "head")):
        with pytest.raises(TypeError, match=keyword):
            make(CLASSES, DIM, **{keyword: 0.5})
