"""What a client answers: the same upload from the cache and from its images, training by seed, held-out samples."""

import random

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, RecordDict
from PIL import Image

from clients.app import evaluation_of_client, statistics_of_client, training_of_client
from fedcof import UserError
from fedcof.data.problem import backbone_of, problem_of
from fedcof.data.virtual_clients import client_samples, samples_of_client
from fedcof.heads.trainable import Network
from fedcof.run.config import RunConfig
from fedcof.wire.encoding import decode_class_means
from server.records import sent_in


@pytest.fixture
def dataset(tmp_path, monkeypatch):
    """Thirty training and three test images of three classes."""
    monkeypatch.setenv("FEDCOF_CACHE", str(tmp_path / "cache"))
    generator = np.random.default_rng(0)
    for split, count in (("train", 10), ("test", 1)):
        for number, name in enumerate("abc"):
            folder = tmp_path / "images" / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = generator.integers(60 * number, 60 * number + 100, (32, 32, 3))
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{i}.png")
    return f"folder:{tmp_path / 'images'}"


def config_of(dataset, **values):
    tiny = {"backbone": "test_efficientnet", "weights": "none", "image_size": 32, "num_clients": 3}
    return RunConfig(dataset=dataset, partition="iid", **{**tiny, **values})


def context(config):
    return Context(run_id=1, node_id=1, node_config={}, state=RecordDict(), run_config=config.to_mapping())


def upload_of(config, client=0):
    return sent_in(statistics_of_client(client, RecordDict(), context(config))).arrays


@pytest.mark.parametrize("encoding", ["float32", "int8"])
def test_from_the_cache_and_from_its_own_images_a_client_sends_the_same(dataset, encoding):
    """Embedded beside other images the features differ by rounding, of at most 3e-6 of the largest."""
    plain = {"upload": "paper", "feature_transform": "none", "encoding": encoding}
    cached, own = (upload_of(config_of(dataset, feature_cache=cache, **plain)) for cache in (True, False))
    assert cached.keys() == own.keys()
    for name, array in cached.items():
        assert array.shape == own[name].shape
        if array.dtype in (np.uint8, np.int8):
            assert (np.abs(array.astype(int) - own[name]) <= 1).all()
            assert (array != own[name]).mean() < 0.01
        else:
            np.testing.assert_allclose(array, own[name], rtol=0, atol=1e-5 * np.abs(array).max())


def train(config, client=0, training_round=1, network=None):
    problem = problem_of(config)
    network = network or Network(problem.num_classes, problem.feature_dim).draw_head(0)
    arrays = ArrayRecord({name: Array(array) for name, array in network.to_arrays().items()})
    content = RecordDict({"arrays": arrays, "config": ConfigRecord({"server-round": training_round})})
    reply = training_of_client(client, content, context(config))
    return {n: a.numpy() for n, a in reply.array_records["arrays"].items()}, reply.metric_records["metrics"]


def test_a_client_trains_on_its_samples_by_seed_round_and_number(dataset):
    config = config_of(dataset, continue_="linear-probe", batch_size=4)
    arrays, metrics = train(config)
    again, _ = train(config)
    assert all(np.array_equal(arrays[name], again[name]) for name in arrays)
    assert metrics["num-examples"] == 10
    assert metrics["loss"] > 0
    others = [train(config, training_round=2), train(config, client=1), train(config_of(**vars_of(config, seed=1)))]
    assert not any(np.array_equal(arrays["head.weight"], other["head.weight"]) for other, _ in others)


def vars_of(config, **changes):
    values = {
        known.argument: config.value(known) for known in RunConfig.declared().values() if known.name != "partition"
    }
    return {**values, **changes}


def test_fine_tuning_sends_the_whole_network(dataset):
    config = config_of(dataset, continue_="fine-tune", backbone_learning_rate=0.1)
    network = network_of(config)
    before = network.to_arrays()
    arrays, _ = train(config, network=network)
    assert arrays.keys() == before.keys()
    assert sum(not np.array_equal(arrays[name], before[name]) for name in arrays) > len(arrays) / 2


def network_of(config):
    problem = problem_of(config)
    backbone = backbone_of(config).module if config.training.trains_backbone else None
    adapters = config.training.adapters(config.data.seed)
    return Network(problem.num_classes, problem.feature_dim, backbone, adapters).draw_head(0)


def test_a_client_changes_adapters_and_head_and_sends_nothing_else(dataset):
    config = config_of(dataset, continue_="adapters", adapter_rank=3, adapter_learning_rate=0.1, local_epochs=2)
    network = network_of(config)
    before = network.to_arrays()
    arrays, _ = train(config, network=network)
    assert arrays.keys() == before.keys()
    assert len(arrays) == 2 + 2 * 6
    assert not any(np.array_equal(arrays[name], before[name]) for name in arrays)
    frozen = backbone_of(config).module.state_dict()
    trained = network.load_arrays(arrays).plain_backbone().state_dict()
    changed = {name for name in trained if not torch.equal(trained[name], frozen[name])}
    assert {name.split(".")[-2] for name in changed} == {"conv_pw", "conv_pwl"}


def test_clients_drop_out_of_some_rounds_and_not_of_others(dataset):
    config = config_of(dataset, continue_="linear-probe", dropout=0.5)
    there = {}
    for client in range(3):
        for number in range(1, 7):
            try:
                train(config, client, number)
                there[client, number] = True
            except UserError as error:
                assert "dropped out" in str(error)
                there[client, number] = False
    assert len({tuple(there[client, number] for client in range(3)) for number in range(1, 7)}) > 2


def test_what_a_client_holds_out_it_does_not_learn_from(dataset):
    config = config_of(dataset, client_test_share=0.3)
    for client in range(3):
        learned, held_out = (samples_of_client(config, client, part) for part in (False, True))
        assert (len(learned), len(held_out)) == (7, 3)
        everything = samples_of_client(config_of(dataset), client, False)
        assert sorted([*learned, *held_out]) == list(everything)
        assert decode_class_means(upload_of(config, client)).counts.sum() == 7
        assert len(client_samples(config, client, held_out=True)[1]) == 3
    assert train(config_of(dataset, client_test_share=0.3, continue_="linear-probe"))[1]["num-examples"] == 7


@pytest.mark.parametrize("continuation", ["linear-probe", "adapters", "fine-tune"])
def test_a_network_is_evaluated_on_what_is_held_out(dataset, continuation):
    config = config_of(dataset, client_test_share=0.3, continue_=continuation)
    network = network_of(config)
    arrays = ArrayRecord({name: Array(array) for name, array in network.to_arrays().items()})
    content = RecordDict({"arrays": arrays, "config": ConfigRecord({"server-round": 1})})
    metrics = evaluation_of_client(1, content, context(config)).metric_records["metrics"]
    features, labels = client_samples(config, 1, held_out=True)
    classifier = network.classifier(torch.ones(problem_of(config).num_classes, dtype=torch.bool))
    expected = float((classifier.predict(features) == labels).double().mean())
    assert (metrics["accuracy"], metrics["num-examples"]) == (pytest.approx(expected), 3)


def test_training_leaves_the_random_numbers_of_others_alone(dataset):
    config = config_of(dataset, continue_="linear-probe")
    train(config)
    random.seed(5)
    torch.manual_seed(5)
    before = random.getstate(), torch.get_rng_state()
    train(config)
    assert random.getstate() == before[0]
    assert torch.equal(torch.get_rng_state(), before[1])


@pytest.mark.parametrize("method", ["fedcof", "fed3r"])
def test_a_simulated_clients_noise_follows_the_seed_and_the_client(dataset, method):
    config = config_of(dataset, method=method, epsilon=80.0, clip_norm=20.0)
    name = "gram" if method == "fed3r" else "means"
    first, again = upload_of(config), upload_of(config)
    np.testing.assert_array_equal(first[name], again[name])
    others = [
        upload_of(config, client=1),
        upload_of(config_of(dataset, method=method, epsilon=80.0, clip_norm=20.0, seed=1)),
    ]
    plain = upload_of(config_of(dataset, method=method, upload="paper"))
    for other in (*others, plain):
        assert first[name].shape != other[name].shape or not np.allclose(first[name], other[name])


def test_with_privacy_a_client_says_nothing_of_the_classifier(dataset):
    config = config_of(dataset, epsilon=1.0, clip_norm=5.0)
    metrics = evaluation_of_client(0, RecordDict(), context(config)).metric_records["metrics"]
    assert dict(metrics) == {"accuracy": 0.0, "num-examples": 0}
