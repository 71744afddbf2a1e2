"""The strategies on a federation and on a plain Flower grid: same classifier, quorum, rejections."""

import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from flwr.clientapp import ClientApp

import fedcof
from clients.hosting import answer, introduce
from fedcof import UserError, class_means
from fedcof.encoding import encode_class_means
from server.federation import Federation
from server.strategy import FedCOF, FedNCM
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
    strategy = FedNCM(CLASSES, DIM, on_reply=lambda: seen.append(1))
    with pytest.raises(UserError, match="start the strategy"):
        strategy.solved()
    strategy.start(Federation(InMemoryGrid(statistics_app(), 3), 8))
    assert len(seen) == 8
