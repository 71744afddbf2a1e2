"""Training by Flower's strategies: their results by hand, repeatable drawing, bad uploads, bytes, metrics."""

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAdam, FedAvg, Strategy

from clients.hosting import answer, introduce
from fedcof import UserError
from fedcof.heads.temperature import softmax_start
from fedcof.run.config import RunConfig
from fedcof.run.protocol import NO_SAMPLE
from fedcof.run.training import STRATEGIES
from server.continuation import Continuation
from server.federation import Federation
from server.strategy import FedCOF
from server.training_strategy import client_accuracies, training_strategy
from tests.server.in_memory_grid import InMemoryGrid
from tests.server.test_strategy import CLASSES, DIM

CLIENTS = 10


def arrays_of(value, shape=(3, 2)):
    return ArrayRecord({"head.weight": Array(np.full(shape, value, np.float32))})


def training_app(spoil=None, asked=None):
    """Client i moves every weight up by i + 1, and has i + 1 samples."""
    app = ClientApp()
    app.query("introduction")(introduce)

    def training(client, content, context):
        weight = content.array_records["arrays"]["head.weight"].numpy()
        if asked is not None:
            number = content.config_records["config"]["server-round"]
            asked.append((number, client, weight.dtype))
        new = weight + np.float32(client + 1)
        examples = client + 1
        if spoil:
            new, examples = spoil(client, new, examples)
        metrics = MetricRecord({"loss": float(client), "num-examples": examples})
        return RecordDict({"arrays": ArrayRecord({"head.weight": Array(new)}), "metrics": metrics})

    def evaluating(client, content, context):
        examples = 0 if client == 9 else 5
        return RecordDict({"metrics": MetricRecord({"accuracy": client / 10, "num-examples": examples})})

    @app.train()
    def train(message, context):
        return answer(training, message, context)

    @app.evaluate()
    def evaluate(message, context):
        return answer(evaluating, message, context)

    return app


def federation(app, nodes=CLIENTS, seed=0):
    return Federation(InMemoryGrid(app, nodes, seed=seed), CLIENTS)


def config(strategy="fedavg", **values):
    own = {"fedprox": {"proximal_mu": 0.1}, "q-fedavg": {"learning_rate": 0.1}}.get(strategy, {})
    return RunConfig(num_clients=CLIENTS, continue_="linear-probe", continue_strategy=strategy, **{**own, **values})


def start(strategy, app=None, rounds=3, nodes=CLIENTS, seed=0, **settings):
    continuation = Continuation(strategy, **settings)
    result = continuation.start(federation(app or training_app(), nodes, seed), arrays_of(0.0), rounds)
    return continuation, result


def test_averaging_is_weighted_by_samples():
    _, result = start(training_strategy(config()), rounds=1)
    expected = sum((i + 1) ** 2 for i in range(CLIENTS)) / sum(range(1, CLIENTS + 1))
    np.testing.assert_allclose(result.arrays["head.weight"].numpy(), expected, rtol=1e-6)
    assert result.train_metrics_clientapp[1]["loss"] == pytest.approx(
        sum(i * (i + 1) for i in range(CLIENTS)) / sum(range(1, CLIENTS + 1))
    )


@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize(("nodes", "seed"), [(CLIENTS, 1), (3, 2)])
def test_a_run_is_the_same_each_time_wherever_its_clients_live(name, nodes, seed):
    settings = config(name, continue_fraction=0.3)
    asked, again = [], []
    _, one = start(training_strategy(settings), training_app(asked=asked), seed=0)
    _, two = start(training_strategy(settings), training_app(asked=again), nodes=nodes, seed=seed)
    assert sorted(asked, key=str) == sorted(again, key=str)
    assert len(asked) == 9
    assert np.array_equal(one.arrays["head.weight"].numpy(), two.arrays["head.weight"].numpy())
    drawn = [{client for number, client, _ in asked if number == r} for r in (1, 2, 3)]
    assert all(len(clients) == 3 for clients in drawn)
    assert len(set(map(frozenset, drawn))) > 1


@pytest.mark.parametrize("name", STRATEGIES)
def test_what_is_sent_stays_in_float32(name):
    asked = []
    _, result = start(training_strategy(config(name)), training_app(asked=asked))
    assert {dtype for _, _, dtype in asked} == {np.dtype(np.float32)}
    assert result.arrays["head.weight"].numpy().dtype == np.float32
    assert np.abs(result.arrays["head.weight"].numpy()).max() > 0


def test_flowers_own_robust_rules_are_asked_for_by_their_keys():
    """Client i moves the weight to i + 1, and has i + 1 samples; client 9 lies."""

    def spoil(client, new, examples):
        return (new + 1000, examples) if client == 9 else (new, examples)

    def weight(name, **values):
        _, result = start(training_strategy(config(name, **values)), training_app(spoil), rounds=1)
        return result.arrays["head.weight"].numpy()[0, 0]

    assert weight("median") == 5.5
    assert weight("trimmed-mean", trimmed_share=0.1) == pytest.approx(np.mean(range(2, 10)))
    assert weight("trimmed-mean", trimmed_share=0.0) > 100
    # Krum's is the one whose nearest n - f - 2 are nearest, and it is no liar.
    assert weight("krum", malicious_clients=1) in range(3, 8)
    assert 3 <= weight("bulyan", malicious_clients=1) <= 8
    # q-FedAvg with q = 0 is the mean of the clients, each counting the same.
    assert weight("q-fedavg", fairness=0.0) == pytest.approx(np.mean([*range(1, 10), 1010]))


def test_a_strategy_that_makes_no_network_of_so_few_says_so():
    def spoil(client, new, examples):
        return (np.full_like(new, np.nan) if client < 4 else new), examples

    strategy = training_strategy(config("bulyan", malicious_clients=1))
    with pytest.raises(UserError, match="makes no network of what 6 clients trained in round 1"):
        start(strategy, training_app(spoil), rounds=1, quorum=0.5)


def test_adam_is_the_papers():
    """FedAdam (arXiv 2003.00295, algorithm 2) in float64, with the bias correction that Flower has."""
    _, result = start(training_strategy(config("fedadam", server_learning_rate=0.5)), rounds=3)
    weight, moment, second = 0.0, 0.0, 0.0
    delta = sum((i + 1) ** 2 for i in range(CLIENTS)) / sum(range(1, CLIENTS + 1))
    for number in (1, 2, 3):
        moment = 0.9 * moment + 0.1 * delta
        second = 0.99 * second + 0.01 * delta**2
        rate = 0.5 * np.sqrt(1 - 0.99 ** (number + 1)) / (1 - 0.9 ** (number + 1))
        weight += rate * moment / (np.sqrt(second) + 1e-3)
    np.testing.assert_allclose(result.arrays["head.weight"].numpy(), weight, rtol=1e-5)


def test_bad_uploads_are_left_out():
    def spoil(client, new, examples):
        spoiled = {
            1: (np.full_like(new, np.nan), examples),
            3: (new[:2], examples),
            5: (new, 0),
            7: (new.astype(np.int32), examples),
        }
        return spoiled.get(client, (new, examples))

    continuation, result = start(training_strategy(config()), training_app(spoil), rounds=1, quorum=0.6)
    assert continuation.num_accepted == 6
    good = [0, 2, 4, 6, 8, 9]
    expected = sum((i + 1) ** 2 for i in good) / sum(i + 1 for i in good)
    np.testing.assert_allclose(result.arrays["head.weight"].numpy(), expected, rtol=1e-6)
    with pytest.raises(
        UserError, match=r"Only 6 of 10 clients trained in round 1.*client 1: its network is not finite"
    ):
        start(training_strategy(config()), training_app(spoil), rounds=1)


def test_clients_without_samples_have_not_failed():
    def nothing(client, new, examples):
        if client % 2:
            raise UserError(NO_SAMPLE)
        return new, examples

    continuation, result = start(training_strategy(config()), training_app(nothing), rounds=1, quorum=1.0)
    assert continuation.num_accepted == 5
    expected = sum((i + 1) ** 2 for i in range(0, 10, 2)) / sum(i + 1 for i in range(0, 10, 2))
    np.testing.assert_allclose(result.arrays["head.weight"].numpy(), expected, rtol=1e-6)

    def worse(client, new, examples):
        if client == 4:
            raise UserError("the disk is full")
        return nothing(client, new, examples)

    with pytest.raises(UserError, match="Only 4 of 5 clients trained in round 1.*client 4: the disk is full"):
        start(training_strategy(config()), training_app(worse), rounds=1, quorum=1.0)


def test_where_nobody_has_a_sample_that_is_said():
    def nothing(*_):
        raise UserError(NO_SAMPLE)

    with pytest.raises(UserError, match="None of the 10 clients asked in round 1 has a sample"):
        start(training_strategy(config()), training_app(nothing), rounds=1)


def test_a_server_that_diverges_says_so():
    strategy = training_strategy(config("fedavgm", server_learning_rate=1e38))
    with pytest.raises(UserError, match="not finite after round"):
        start(strategy, rounds=5)


def test_rounds_go_on_from_where_they_were():
    whole_asked, later_asked = [], []
    settings = config("fedavg", continue_fraction=0.5)
    start(training_strategy(settings), training_app(asked=whole_asked), rounds=4)
    start(training_strategy(settings), training_app(asked=later_asked), rounds=2, rounds_done=2)
    assert sorted(later_asked, key=str) == sorted((a for a in whole_asked if a[0] > 2), key=str)


@pytest.mark.parametrize(
    ("settings", "rounds"), [({}, []), ({"evaluate_finally": True}, [3]), ({"evaluate_always": True}, [1, 2, 3])]
)
def test_clients_evaluate_when_they_are_to(settings, rounds):
    _, result = start(training_strategy(config()), **settings)
    assert list(result.evaluate_metrics_clientapp) == rounds
    for metrics in result.evaluate_metrics_clientapp.values():
        # Client 9 has no sample, so nine count, of which one is the worst tenth.
        assert metrics["accuracy"] == pytest.approx(0.4)
        assert metrics["worst-tenth-accuracy"] == 0.0


def test_the_worst_tenth_is_rounded_up():
    contents = [RecordDict({"metrics": MetricRecord({"accuracy": a / 20, "num-examples": 1})}) for a in range(15)]
    metrics = client_accuracies(contents, "num-examples")
    assert metrics["accuracy"] == pytest.approx(7 / 20)
    assert metrics["worst-tenth-accuracy"] == pytest.approx(0.5 / 20)


class Half(FedAvg):
    """A strategy of one's own: half of the average."""

    def aggregate_train(self, server_round, replies):
        arrays, metrics = super().aggregate_train(server_round, replies)
        return ArrayRecord({name: Array(array.numpy() / 2) for name, array in arrays.items()}), metrics


def whole_app():
    """Statistics first, then training that adds one to every array."""
    from tests.server.test_strategy import statistics_app

    app = statistics_app()

    def training(client, content, context):
        arrays = {name: Array(array.numpy() + 1) for name, array in content.array_records["arrays"].items()}
        metrics = MetricRecord({"num-examples": 1, "loss": 0.5})
        return RecordDict({"arrays": ArrayRecord(arrays), "metrics": metrics})

    @app.train()
    def train(message, context):
        return answer(training, message, context)

    return app


@pytest.mark.parametrize("strategy", [FedAdam, Half])
def test_any_strategy_follows_the_closed_form(strategy):
    then: Strategy = strategy(fraction_evaluate=0.0)
    closed_form = FedCOF(CLASSES, DIM, shrinkage=0.1, then=then)
    seen = []

    def evaluate(server_round, arrays):
        seen.append((server_round, {name: array.numpy().copy() for name, array in arrays.items()}))
        return MetricRecord({"round": server_round})

    result = closed_form.start(federation(whole_app()), num_rounds=3, evaluate_fn=evaluate)
    assert [number for number, _ in seen] == [0, 1, 1, 2, 3]
    solved, handed_over = seen[1][1], seen[2][1]
    assert np.array_equal(solved["weight"], closed_form.solved().weight.numpy())
    expected = softmax_start(closed_form.solved(), closed_form.aggregator.class_means())
    assert np.array_equal(handed_over["head.weight"], expected.weight.numpy())
    features = torch.randn(200, DIM)
    start_predicts = (features @ torch.from_numpy(handed_over["head.weight"]).T).argmax(dim=1)
    assert torch.equal(start_predicts, closed_form.solved().predict(features))
    if strategy is Half:
        once = (handed_over["head.weight"] + 1) / 2
        np.testing.assert_allclose(seen[3][1]["head.weight"], once, rtol=1e-6)
        np.testing.assert_allclose(result.arrays["head.weight"].numpy(), (once + 1) / 2, rtol=1e-6)
    assert set(result.train_metrics_clientapp) == {1, 2, 3}
    assert set(result.evaluate_metrics_serverapp) == {0, 1, 2, 3}


def test_a_classifier_that_is_trained_on_is_not_broadcast_first():
    grid = InMemoryGrid(whole_app(), CLIENTS)
    strategy = FedCOF(CLASSES, DIM, shrinkage=0.1, broadcast=True, then=FedAvg(fraction_evaluate=0.0))
    strategy.start(Federation(grid, CLIENTS), num_rounds=2, train_config=ConfigRecord({}))
    assert grid.messages_by_type["evaluate"] == 0
