"""One more upload after fine-tuning: of whose features, solved to what, at what price, and who fails in it."""

import copy
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from flwr.app import Error, Message
from flwr.supercore.task_identity import TaskIdentity
from PIL import Image

from clients.app import app as client_app
from clients.upload import upload_of
from fedcof import ClassMeans, UserError
from fedcof.data.problem import backbone_of, problem_of
from fedcof.data.virtual_clients import client_images
from fedcof.embedding.features import extract_features
from fedcof.heads.classifiers import load_classifier
from fedcof.heads.trainable import Network
from fedcof.methods.method import Samples
from fedcof.run.config import RunConfig
from fedcof.run.protocol import NETWORK
from fedcof.run.replies import expected_replies
from fedcof.run.results import ANEW, START, TRAIN, append_result
from fedcof.wire.codec import Sent
from server.federated_run import FederatedRun
from server.federation import Federation
from server.run import execute
from server.run_files import BEST_FOLDER_NAME
from server.run_strategy import strategy_of
from simulations.prediction import best_run, predict
from tests.server.breaking_off import BreakOff, BrokenOffError
from tests.server.in_memory_grid import InMemoryGrid

CLIENTS, TEST_IMAGES = 3, 4
TINY = {"groups": 8, "backbone": "test_efficientnet", "weights": "none", "image_size": 32, "continue_": "fine-tune"}
TINY |= {"continue_rounds": 1, "batch_size": 16, "backbone_learning_rate": 0.05}
TINY |= {"broadcast": False, "continue_resolve": True}


def draw(folder, generator, counts):
    for number, name in enumerate("abc"):
        (folder / name).mkdir(parents=True)
        for i in range(counts):
            pixels = generator.integers(50 * number, 50 * number + 150, (32, 32, 3))
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{i}.png")


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """A feature cache of this file's."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("FEDCOF_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def dataset(cache, tmp_path_factory):
    """Images of three classes that overlap: 48 to train, 12 to test."""
    folder, generator = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for split, count in (("train", 16), ("test", TEST_IMAGES)):
        draw(folder / split, generator, count)
    return f"folder:{folder}"


@pytest.fixture(scope="module")
def whole(dataset, tmp_path_factory):
    """An unbroken run, in which clients keep samples for evaluation: its folder, itself and its classifier."""
    with pytest.MonkeyPatch.context() as patched:
        for name in ("_run_id", "_task_id", "_node_id"):
            patched.setattr(TaskIdentity, name, 1)
        folder = tmp_path_factory.mktemp("whole")
        return folder, *run(shared(dataset), folder)


def shared(dataset):
    return config_of(dataset, client_test_share=0.25)


def config_of(dataset, **values):
    return RunConfig(dataset=dataset, **{**TINY, "partition": "iid", "num_clients": CLIENTS, **values})


def run(config, folder, break_at=None, app=client_app, **settings):
    grid = InMemoryGrid(app, config.data.num_clients, run_config=config.to_mapping(), **settings)
    federated = FederatedRun(Federation(grid, config.data.num_clients, 1.0), config, folder, [BreakOff(break_at)])
    return federated, federated.execute()


def features_of(config, network, client, held_out=False):
    backbone = replace(backbone_of(config), module=copy.deepcopy(network.backbone).eval().requires_grad_(False))
    images, labels = client_images(config, client, held_out)
    return extract_features(backbone, images, config.embedding.batch_size), labels


def solved_of(config, network, clients=range(CLIENTS)):
    """What the run's own method makes of what clients send of a network's features."""
    strategy = strategy_of(config)
    for client in clients:
        seed = config.data.seed * 1_000_003 + client
        samples = Samples(*features_of(config, network, client), problem_of(config).num_classes, seed)
        upload = upload_of(config, client, samples)
        strategy.aggregator.add(strategy.read_upload(Sent(upload.arrays, upload.tag)), client)
    return strategy.aggregator.solve()


def assert_same(one, other):
    assert one.KIND == other.KIND
    assert one.tensors().keys() == other.tensors().keys()
    assert all(torch.equal(tensor, other.tensors()[name]) for name, tensor in one.tensors().items())


def test_the_last_classifier_is_the_runs_own_head_on_the_trained_features(dataset, whole):
    _, federated, classifier = whole
    config = federated.config
    assert [entry.phase for entry in federated.rounds] == [START, TRAIN, ANEW]
    assert [entry.round for entry in federated.rounds] == [1, 2, 3]
    assert_same(classifier, solved_of(config, federated.network))
    frozen = solved_of(config, Network(3, problem_of(config).feature_dim, backbone_of(config).module))
    features, _ = features_of(config, federated.network, 0)
    assert not torch.allclose(frozen.scores(features), classifier.scores(features))
    # Although training started from a linear one.
    assert (federated.strategy.solved().KIND, classifier.KIND) == ("linear", "quadratic")
    assert classifier.names == problem_of(config).class_names


@pytest.mark.parametrize("values", [{"method": "fed3r", "groups": 1}, {"continue_": "adapters"}], ids=str)
def test_of_other_statistics_and_of_adapters_too(dataset, tmp_path, values):
    federated, classifier = run(config_of(dataset, **values), tmp_path)
    assert_same(classifier, solved_of(federated.config, federated.network))


def test_it_costs_the_network_down_and_an_upload_up(whole):
    _, federated, _ = whole
    network = sum(array.nbytes for array in federated.network.to_arrays().values())
    asked = [pair for pair in federated.ledger.entries() if pair[0].message == "query.statistics"]
    first, anew = asked[:CLIENTS], asked[CLIENTS:]
    evaluated = [pair for pair in federated.ledger.entries() if pair[0].message == "evaluate"][CLIENTS:]
    assert [occasion.round for occasion, _ in anew + evaluated] == [3] * 2 * CLIENTS
    for (_, before), (_, after) in zip(first, anew, strict=True):
        assert after.uplink < 1.5 * before.uplink
        assert network < after.downlink - before.downlink < 1.5 * network
    last, before = federated.rounds[-1], federated.rounds[-2]
    assert last.uplink_bytes - before.uplink_bytes == sum(traffic.uplink for _, traffic in anew + evaluated)
    assert last.downlink_bytes == federated.ledger.downlink_bytes
    assert expected_replies(federated.config) == 3 * CLIENTS


@pytest.mark.parametrize("broadcast", [True, False])
def test_a_broadcast_is_of_the_last_classifier_alone(dataset, tmp_path, broadcast):
    federated, _ = run(config_of(dataset, broadcast=broadcast), tmp_path)
    evaluated = [occasion.round for occasion, _ in federated.ledger.entries() if occasion.message == "evaluate"]
    assert evaluated == ([3] * CLIENTS if broadcast else [])


@pytest.mark.parametrize("break_at", [2 * CLIENTS + 1, 2 * CLIENTS + 2])
def test_broken_off_in_it_and_gone_on_with_it_ends_the_same(whole, tmp_path, break_at):
    folder, expected, last = whole
    with pytest.raises(BrokenOffError):
        run(expected.config, tmp_path, break_at, seed=1)
    resumed, classifier = run(expected.config, tmp_path, seed=2)
    assert_same(classifier, last)
    assert resumed.rounds == expected.rounds
    assert resumed.ledger.to_rows() == expected.ledger.to_rows()
    assert (resumed.rejected, resumed.clients) == (expected.rejected, expected.clients)
    assert resumed.expected_uplink_bytes == expected.expected_uplink_bytes
    assert torch.equal(resumed.class_means(), expected.class_means())
    heads = [load_classifier(place / BEST_FOLDER_NAME / "head.safetensors") for place in (folder, tmp_path)]
    assert_same(*heads)


def failing_when_asked_anew(partition):
    def app(message, context):
        if NETWORK in message.content.array_records and context.node_config["partition-id"] == partition:
            return Message(Error(2, "the disk is full"), reply_to=message)
        return client_app(message, context)

    return app


def kept_files(folder):
    return list((folder / "uploads").rglob("*.safetensors"))


def solved_with_moved(config, network, gone):
    """The same with first uploads of some clients, moved as their classes' samples have moved on average."""
    before, after, labels = {}, {}, {}
    for client in range(CLIENTS):
        before[client], labels[client] = (
            extract_features(
                backbone_of(config),
                (images := client_images(config, client, False))[0],
                config.embedding.batch_size,
            ),
            np.asarray(images[1]),
        )
        after[client] = features_of(config, network, client)[0]
    present = [client for client in range(CLIENTS) if client not in gone]
    moves = np.zeros((problem_of(config).num_classes, after[0].shape[1]))
    for label in range(len(moves)):
        moved = [np.asarray(after[k] - before[k], float)[labels[k] == label] for k in present]
        moves[label] = np.concatenate(moved).mean(axis=0)
    strategy = strategy_of(config)
    for client in range(CLIENTS):
        seed = config.data.seed * 1_000_003 + client
        features = before[client] if client in gone else after[client]
        upload = upload_of(config, client, Samples(features, labels[client], len(moves), seed))
        rows = strategy.read_upload(Sent(upload.arrays, upload.tag))
        if client in gone:
            means = rows.means.double() + torch.tensor(moves)[rows.class_ids]
            rows = ClassMeans(rows.class_ids, rows.counts, means.float(), rows.noise)
        strategy.aggregator.add(rows, client)
    return strategy.aggregator.solve()


@pytest.mark.parametrize("head", ["lda", "ridge"])
def test_a_client_that_fails_counts_by_its_first_upload_moved_as_its_classes(dataset, tmp_path, head):
    config = config_of(dataset, quorum=0.6, upload="given", head=head)
    federated, classifier = run(config, tmp_path / "run", app=failing_when_asked_anew(1))
    assert federated.clients == 2
    assert "the disk is full" in federated.rejected[1]
    assert federated.anew.moved == [1]
    expected = solved_with_moved(config, federated.network, [1])
    features = torch.cat([features_of(config, federated.network, client)[0] for client in range(CLIENTS)])
    assert torch.equal(classifier.predict(features), expected.predict(features))
    ours, naive = classifier.tensors(), expected.tensors()
    assert all(torch.allclose(ours[name].double(), naive[name].double(), rtol=1e-3, atol=1e-4) for name in naive)
    # Towards the quorum it does not count.
    with pytest.raises(UserError, match="Only 2 of 3 clients sent an upload"):
        run(config_of(dataset, quorum=1.0), tmp_path / "all", app=failing_when_asked_anew(1))


def test_who_is_gone_counts_the_same_in_a_run_that_is_broken_off(dataset, tmp_path):
    config = config_of(dataset, quorum=0.6)
    _, whole = run(config, tmp_path / "whole", app=failing_when_asked_anew(1))
    with pytest.raises(BrokenOffError):
        run(config, tmp_path / "broken", 2 * CLIENTS + 1, app=failing_when_asked_anew(1))
    assert kept_files(tmp_path / "broken")
    federated, resumed = run(config, tmp_path / "broken", app=failing_when_asked_anew(1))
    assert federated.anew.moved == [1]
    assert_same(resumed, whole)
    # Nobody asked for them to be kept any longer.
    assert not (tmp_path / "broken" / "uploads").exists()


def test_first_uploads_that_are_damaged_cost_who_is_gone_and_nothing_else(dataset, tmp_path):
    config = config_of(dataset, quorum=0.6, keep_uploads=True)
    with pytest.raises(BrokenOffError):
        run(config, tmp_path, 2 * CLIENTS + 1, app=failing_when_asked_anew(1))
    for kept in kept_files(tmp_path):
        kept.write_bytes(kept.read_bytes()[:-9])
    federated, classifier = run(config, tmp_path, app=failing_when_asked_anew(1))
    assert federated.anew.moved == []
    assert_same(classifier, solved_of(config, federated.network, [0, 2]))


def test_a_client_without_a_sample_has_not_failed(dataset, tmp_path):
    dealt = {"partition": "dirichlet", "alpha": 0.01, "num_clients": 6, "quorum": 1.0}
    federated, _ = run(config_of(dataset, **dealt), tmp_path)
    assert federated.rounds[-1].clients == 6 > federated.rounds[-2].clients
    assert not federated.rejected


def test_clients_evaluate_the_new_classifier_on_trained_features_that_they_hold_out(whole):
    _, federated, classifier = whole
    found = []
    for client in range(CLIENTS):
        features, labels = features_of(federated.config, federated.network, client, held_out=True)
        found.append(float((classifier.predict(features) == labels).double().mean()))
    assert federated.rounds[-1].client_accuracy == pytest.approx(np.mean(found))
    assert federated.rounds[-1].worst_tenth_accuracy == min(found)


def test_what_is_saved_predicts_with_the_trained_backbone(dataset, tmp_path):
    config = config_of(dataset)
    grid = InMemoryGrid(client_app, CLIENTS, run_config=config.to_mapping())
    result = execute(Federation(grid, CLIENTS), config, tmp_path, "")
    append_result(tmp_path, result)
    assert result.accuracy == result.rounds[-1].accuracy
    assert result.best_accuracy == max(entry.accuracy for entry in result.rounds[1:])
    pictures = sorted(Path(dataset.partition(":")[2], "test").glob("*/*.png"))
    predictions = predict(tmp_path, best_run(tmp_path), pictures)
    right = [one.classes[0][0] == path.parent.name for one, path in zip(predictions, pictures, strict=True)]
    assert np.mean(right) == pytest.approx(result.accuracy)
    assert result.nats_per_score != 1.0


@pytest.mark.parametrize(
    "values", [{"continue_": "linear-probe"}, {"continue_": "none"}, {"method": "random"}], ids=str
)
def test_there_has_to_be_something_to_solve_anew(dataset, values):
    with pytest.raises(UserError, match="continue-resolve is True, but it must be false where no backbone trains"):
        config_of(dataset, **values)


@pytest.fixture
def nodes(cache, tmp_path):
    """Three nodes with images of their own, and test images of the server's."""
    generator = np.random.default_rng(0)
    draw(tmp_path / "test", generator, TEST_IMAGES)
    for node in range(CLIENTS):
        draw(tmp_path / f"data-{node}", generator, 6)

    def node_config(partition):
        settings = {"name": f"site-{partition}", "data": str(tmp_path / f"data-{partition}")}
        settings |= {"state": str(tmp_path / f"state-{partition}"), "allow-training": True}
        return settings | {"smallest-count": 2, "largest-image-size": 64}

    config = RunConfig(
        dataset="nodes", classes="a,b,c", test_data=str(tmp_path / "test"), num_clients=CLIENTS, **TINY
    )
    return config, node_config


def test_nodes_answer_anew_once_and_what_they_sent_is_kept(nodes, tmp_path):
    config, node_config = nodes
    asked = []

    def app(message, context):
        if NETWORK in message.content.array_records:
            asked.append(context.node_config["name"])
        return client_app(message, context)

    with pytest.raises(BrokenOffError):
        run(config, tmp_path / "out", 2 * CLIENTS + 2, app=app, node_config=node_config)
    first = len(asked)
    federated, _ = run(config, tmp_path / "out", app=app, node_config=node_config)
    # What had come before it was broken off is not asked for again, and of the same backbone.
    assert len(asked) == first + 1
    assert federated.rounds[-1].clients == CLIENTS
    assert sorted(node.outcome for node in federated.nodes) == ["accepted"] + 2 * ["accepted, from an earlier run"]
    states = [next((tmp_path / f"state-{node}").rglob("answers.json")) for node in range(CLIENTS)]
    given = [json.loads(state.read_text()) for state in states]
    assert all(len({one["digest"] for one in answers if one["digest"]}) == 2 for answers in given)
