"""Merging as the server's step: Flower's rounds with every rule, the scale, and updates that cannot be used."""

import weakref

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg

from clients.hosting import answer, introduce
from fedcof import UserError
from fedcof.merging.merge import MergeOptions, Update
from fedcof.merging.registry import MERGES
from fedcof.merging.section import FISHER, MergingSection
from fedcof.run.config import RunConfig
from server import merging
from server.continuation import Continuation
from server.federation import Federation
from server.merging import FACTORS, Merging
from server.training_strategy import training_strategy
from tests.server.in_memory_grid import InMemoryGrid

CLIENTS, SHAPE, RANK = 6, (5, 8), 2
SHAPES = {
    "backbone.layer.lora_a": (RANK, 8),
    "backbone.layer.lora_b": (5, RANK),
    "head.weight": SHAPE,
    "head.bias": (5,),
}
RULES = MERGES.names()


def start_arrays():
    generator = np.random.default_rng(100)
    return {name: generator.standard_normal(shape).astype(np.float32) for name, shape in SHAPES.items()}


def trained(client, arrays):
    generator = np.random.default_rng(client)
    return {name: (a + 0.1 * generator.standard_normal(a.shape)).astype(np.float32) for name, a in arrays.items()}


def fisher_of(client, arrays):
    generator = np.random.default_rng(50 + client)
    return {name: generator.random(a.shape).astype(np.float32) for name, a in arrays.items()}


def record(arrays):
    return ArrayRecord({name: Array(array) for name, array in arrays.items()})


def app(fisher=False, spoil=None, evaluated=None):
    app = ClientApp()
    app.query("introduction")(introduce)

    def training(client, content, context):
        arrays = {name: array.numpy() for name, array in content.array_records["arrays"].items()}
        new = trained(client, arrays)
        if spoil:
            new = spoil(client, new)
        reply = {"arrays": record(new), "metrics": MetricRecord({"loss": 1.0, "num-examples": client + 1})}
        if fisher:
            reply["fisher"] = record(fisher_of(client, arrays))
        return RecordDict(reply)

    def evaluating(client, content, context):
        bias = content.array_records["arrays"]["head.weight"].numpy()
        # Half as long an update is the best.
        length = float(np.linalg.norm(bias - start_arrays()["head.weight"]))
        evaluated.append((client, length))
        return RecordDict({"metrics": MetricRecord({"accuracy": 1 / (1 + length), "num-examples": 10})})

    @app.train()
    def train(message, context):
        return answer(training, message, context)

    @app.evaluate()
    def evaluate(message, context):
        return answer(evaluating, message, context)

    return app


def run(
    section, client_app, rounds=1, seed=0, quorum=0.5, searches=False, nodes=CLIENTS, strategy=None, **settings
):
    merging = Merging(strategy or FedAvg(fraction_evaluate=0.0), section, searches=searches)
    continuation = Continuation(merging, quorum=quorum, needs_fisher=section.needs_fisher, **settings)
    federation = Federation(InMemoryGrid(client_app, nodes, seed=seed), CLIENTS)
    result = continuation.start(federation, record(start_arrays()), rounds)
    return merging, continuation, {name: array.numpy() for name, array in result.arrays.items()}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(("nodes", "seed"), [(CLIENTS, 1), (2, 2)])
def test_a_round_gives_what_the_rule_gives_in_whatever_order_clients_answer(rule, nodes, seed):
    section = MergingSection(rule=rule)
    merge = MERGES.get(rule)(start_arrays(), MergeOptions())
    for client in range(CLIENTS):
        arrays = start_arrays()
        fisher = fisher_of(client, arrays) if rule == FISHER else None
        merge.add(Update(trained(client, arrays), client + 1, fisher))
    expected = merge.merged().arrays
    _, continuation, found = run(section, app(fisher=rule == FISHER), nodes=nodes, seed=seed)
    assert continuation.num_accepted == CLIENTS
    for name, array in expected.items():
        assert np.array_equal(found[name], array), name
        assert found[name].dtype == np.float32
    assert not np.allclose(found["head.weight"], start_arrays()["head.weight"])


@pytest.mark.parametrize("rule", RULES)
def test_a_client_of_another_shape_or_without_a_number_is_left_out(rule, caplog):
    def spoil(client, arrays):
        name = "backbone.layer.lora_b"
        spoiled = {
            1: {**arrays, name: arrays[name][:2]},
            3: {**arrays, name: np.full_like(arrays[name], np.nan)},
            4: {key: array for key, array in arrays.items() if key != name},
        }
        return spoiled.get(client, arrays)

    section = MergingSection(rule=rule)
    with caplog.at_level("WARNING", logger="flwr"):
        _, continuation, found = run(section, app(rule == FISHER, spoil), names={1: "north", 3: "east"})
    assert continuation.num_accepted == 3
    assert all(np.isfinite(array).all() for array in found.values())
    said = caplog.text
    assert "Client north is left out of this round: The array backbone.layer.lora_b is (2, 2)" in said
    assert "Client east is left out of this round: its network is not finite" in said
    assert "Client 4 is left out of this round: The array backbone.layer.lora_b is missing" in said


def test_fisher_information_is_checked_as_the_network_is(caplog):
    with pytest.raises(UserError, match="it sent other records than it was asked for"):
        run(MergingSection(rule=FISHER), app(fisher=False))
    with pytest.raises(UserError, match="it sent other records than it was asked for"):
        run(MergingSection(), app(fisher=True))


def test_the_length_is_chosen_on_held_out_samples_and_kept():
    evaluated = []
    section = MergingSection(rule="task-arithmetic")
    merging, _, found = run(section, app(evaluated=evaluated), rounds=2, searches=True)
    # The shortest update is the one that these clients find best, and it is tried in the first round only.
    assert merging.factor == min(FACTORS)
    assert len(evaluated) == len(FACTORS) * CLIENTS
    _, _, whole = run(section, app(), rounds=2)
    moved, further = (np.linalg.norm(a["head.weight"] - start_arrays()["head.weight"]) for a in (found, whole))
    assert moved < further


@pytest.mark.parametrize("section", [MergingSection(rule="mean"), MergingSection(rule="iso-c", scale=0.5)])
def test_nothing_is_chosen_where_there_is_nothing_to_choose(section):
    evaluated = []
    merging, _, _ = run(section, app(evaluated=evaluated), searches=True)
    assert (merging.factor, evaluated) == (1.0, [])


@pytest.mark.parametrize("rule", [rule for rule in RULES if MERGES.get(rule).STREAMS])
def test_a_rule_of_sums_holds_one_update_at_a_time(rule, monkeypatch):
    references, most = [], 0

    def watched(arrays, *rest):
        nonlocal most
        most = max(most, sum(reference() is not None for reference in references))
        references.extend(weakref.ref(array) for array in arrays.values())
        return Update(arrays, *rest)

    monkeypatch.setattr(merging, "Update", watched)
    run(MergingSection(rule=rule), app())
    assert len(references) == CLIENTS * len(SHAPES)
    # The one that was folded in is let go as the next takes its name.
    assert most <= len(SHAPES)


def config(**values):
    return RunConfig(num_clients=10, continue_="linear-probe", **values)


def test_the_run_config_names_the_merge():
    strategy = training_strategy(config(continue_merge="iso-c", merge_scale=2.0))
    assert isinstance(strategy, Merging)
    assert strategy._section == MergingSection(rule="iso-c", scale=2.0)
    assert isinstance(training_strategy(config(continue_strategy="fedprox", proximal_mu=0.1)), Merging)
    assert not isinstance(training_strategy(config(continue_strategy="fedadam")), Merging)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"continue_merge": "isoc"}, "Unknown continue-merge 'isoc': choose one of mean, task-arithmetic"),
        ({"continue_merge": "iso-c", "continue_strategy": "fedadam"}, "takes the place of an average"),
        ({"continue_strategy": "krum", "malicious_clients": 4}, "withstands 3 malicious clients of 10 in a round"),
        ({"continue_strategy": "bulyan", "malicious_clients": 2}, "withstands 1 malicious clients of 10"),
        ({"continue_strategy": "trimmed-mean", "trimmed_share": 0.5}, "from 0 to below 1/2"),
        ({"continue_strategy": "q-fedavg"}, "set learning-rate, for example to 0.01"),
        ({"malicious_clients": 1}, "malicious-clients is 1, but it must be 0"),
        ({"merge_density": 0.5}, "merge-density is 0.5, but it must be 0.2"),
    ],
)
def test_what_does_not_go_together_is_refused(values, sentence):
    with pytest.raises(UserError, match=sentence):
        config(**values)
