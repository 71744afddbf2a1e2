"""Nodes with features of their own, in memory with the real ClientApp: whoever has others is left out."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from flwr.app import Context

from clients.client_app import app as client_app
from fedcof import FedCOF, UserError, class_means
from fedcof.run.config import RunConfig
from fedcof.run.sample_groups import GroupAccuracy
from server.federated_run import FederatedRun
from server.federation import Federation
from server.resolving import solve_again
from server.run import execute
from tests.server.in_memory_grid import InMemoryGrid

NODES, CLASSES, DIM = 4, 3, 6
ENCODER = "acme-tables 1.4 sha256:5f"
# What is solved by hand here.
PLAIN = {"head": "ridge", "feature_transform": "none", "upload": "paper"}


def features_of(number, count=60):
    generator = np.random.default_rng(number)
    centres = np.random.default_rng(99).standard_normal((CLASSES, DIM)) * 2
    labels = np.arange(count) % CLASSES
    return (centres[labels] + generator.standard_normal((count, DIM))).astype(np.float32), labels


@pytest.fixture
def sites(tmp_path):
    """Features of four sites, two as arrays and two as tables, and the server's own."""
    for number in range(NODES + 1):
        features, labels = features_of(number)
        names = [f"class {label}" for label in labels]
        if number % 2:
            table = {"features": pa.array(list(features)), "label": names}
            pq.write_table(pa.table(table), tmp_path / f"site-{number}.parquet")
        else:
            (tmp_path / f"site-{number}").mkdir()
            np.save(tmp_path / f"site-{number}" / "features.npy", features)
            np.save(tmp_path / f"site-{number}" / "labels.npy", names)
    return tmp_path


def config_of(sites, **values):
    named = {"classes": "class 0,class 1,class 2", "encoder": ENCODER, "feature_dim": DIM, "num_clients": NODES}
    return RunConfig(dataset="nodes", quorum=0.5, shrinkage=0.1, **{**named, **values})


def federation_of(sites, config, changes=None):
    def node_config(number):
        place = f"site-{number}.parquet" if number % 2 else f"site-{number}"
        of_node = {"name": f"site-{number}", "data": str(sites / place), "state": str(sites / "state")}
        return {**of_node, "encoder": ENCODER, "allow-evaluation": True, **(changes or {}).get(number, {})}

    grid = InMemoryGrid(client_app, NODES, run_config=config.to_mapping(), node_config=node_config)
    return Federation(grid, NODES, 1.0)


def classifier_of(numbers):
    by_hand = FedCOF(CLASSES, DIM, shrinkage=0.1)
    for source, number in enumerate(numbers):
        features, labels = features_of(number)
        by_hand.add(class_means(torch.tensor(features), torch.tensor(labels)), source)
    return by_hand.solve()


def accuracy_of(classifier, number):
    features, labels = features_of(number)
    return float((classifier.predict(torch.tensor(features)) == torch.tensor(labels)).double().mean())


def test_the_classifier_is_that_of_all_features_and_tested_on_the_servers_own(sites, tmp_path):
    config = config_of(sites, test_data=str(sites / f"site-{NODES}"), **PLAIN)
    result = execute(federation_of(sites, config), config, tmp_path, "run")
    assert [node.outcome for node in result.nodes] == ["accepted"] * NODES
    assert result.accuracy == accuracy_of(classifier_of(range(NODES)), NODES)
    assert result.accuracy > 0.8
    again = solve_again(tmp_path / "run", {"head": "lda"}, "again")
    assert (again.clients, again.config["encoder"]) == (NODES, ENCODER)
    for run in (result, again):
        assert run.accuracy_by_samples.many == GroupAccuracy(CLASSES, run.accuracy)


def test_what_nodes_send_says_of_which_classes_there_are_few_samples(sites, tmp_path):
    kept = np.concatenate([np.arange(60)[0::3], np.arange(60)[1::3][:5]])
    features, labels = features_of(0)
    few = sites / "few"
    few.mkdir()
    np.save(few / "features.npy", features[kept])
    np.save(few / "labels.npy", [f"class {label}" for label in labels[kept]])
    config = config_of(sites, num_clients=1, test_data=str(sites / f"site-{NODES}"), **PLAIN)
    absent = {number: {"data": str(sites / "nowhere")} for number in range(1, NODES)}
    federation = federation_of(sites, config, {0: {"data": str(few)}, **absent})
    found = execute(federation, config.replaced(quorum=0.1), tmp_path, "run").accuracy_by_samples
    assert (found.none.classes, found.few.classes, found.many.classes) == (1, 2, 0)
    assert found.none.accuracy == 0


def test_without_features_of_the_server_the_nodes_evaluate(sites, tmp_path):
    config = config_of(sites, **PLAIN)
    result = execute(federation_of(sites, config), config, tmp_path, "run")
    expected = np.mean([accuracy_of(classifier_of(range(NODES)), number) for number in range(NODES)])
    assert result.accuracy == pytest.approx(expected)


def test_nodes_probe_on_their_features(sites, tmp_path):
    config = config_of(sites, continue_="linear-probe", continue_rounds=2)
    federation = federation_of(sites, config, {number: {"allow-training": True} for number in range(NODES)})
    result = execute(federation, config, tmp_path, "run")
    assert [one.phase for one in result.rounds][-2:] == ["train", "train"]
    assert result.accuracy > 0.8


def test_whoever_has_other_features_is_left_out_by_name(sites, tmp_path):
    (sites / "images" / "class 0").mkdir(parents=True)
    changes = {1: {"encoder": "acme-tables 1.3"}, 2: {"encoder": "", "data": str(sites / "images")}}
    config = config_of(sites, **PLAIN)
    run = FederatedRun(federation_of(sites, config, changes), config, tmp_path / "run")
    weight = run.execute().weight
    outcomes = {node.name: node.outcome for node in run.nodes}
    assert (outcomes["site-0"], outcomes["site-3"]) == ("accepted", "accepted")
    assert outcomes["site-1"] == (
        f"left out: its features are of the encoder 'acme-tables 1.3', but those of '{ENCODER}' were asked for"
    )
    assert "its node-config declares no encoder" in outcomes["site-2"]
    assert torch.equal(weight, classifier_of([0, 3]).weight)


def saying(fingerprint):
    """An app that says of its upload's encoder whatever it likes."""

    def answer(message, context: Context):
        reply = client_app(message, context)
        if context.node_config["name"] == "site-1" and reply.has_content():
            for key, record in reply.content.config_records.items():
                if key.endswith("node") and "backbone" in record:
                    record["backbone"] = fingerprint
        return reply

    return answer


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("acme-tables 1.3", "encoder of its features ('acme-tables 1.3') is not the run's"),
        ("", "encoder of its features (unsaid) is not"),
        ("\x1b[2J" + "x" * 10**6, "is not the run's"),
    ],
)
def test_an_upload_that_says_another_encoder_does_not_count(sites, tmp_path, said, reason):
    config = config_of(sites)
    federation = federation_of(sites, config)
    federation._grid.client_app = saying(said)
    run = FederatedRun(federation, config, tmp_path / "run")
    run.execute()
    outcome = run.nodes[1].outcome
    assert reason in outcome
    assert outcome.isprintable()
    assert len(outcome) < 400
    assert [node.outcome for node in run.nodes][::2] == ["accepted"] * 2


def test_wrong_test_features_are_one_sentence_before_a_node_is_asked(sites, tmp_path):
    config = config_of(sites, test_data=str(sites / f"site-{NODES}"), feature_dim=DIM + 1)
    with pytest.raises(UserError, match=f"have {DIM} dimensions, but the run's have {DIM + 1}"):
        FederatedRun(federation_of(sites, config), config, tmp_path)


def test_a_wrong_answer_of_a_kept_upload_is_not_taken_for_other_features(sites, tmp_path):
    """Uploads of another encoder are asked for anew, in a folder of their own."""
    first = config_of(sites)
    FederatedRun(federation_of(sites, first), first, tmp_path / "run").execute()
    other = config_of(sites, encoder="acme-tables 2")
    changes = {number: {"encoder": "acme-tables 2"} for number in range(NODES)}
    run = FederatedRun(federation_of(sites, other, changes), other, tmp_path / "run")
    run.execute()
    assert [node.outcome for node in run.nodes] == ["accepted"] * NODES
