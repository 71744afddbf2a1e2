"""Whole runs on images in memory, of adapters and of fine-tuning: what travels, what is kept, runs broken off."""

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from clients.app import app as client_app
from fedcof import LinearClassifier, UserError
from fedcof.data.problem import backbone_of
from fedcof.run.config import RunConfig
from fedcof.run.results import BACKBONE_FILE_NAME, HEAD_FILE_NAME
from server.evaluation import rightly_classified
from server.federated_run import FederatedRun
from server.federation import Federation
from server.run_files import BEST_FOLDER_NAME
from tests.server.breaking_off import BreakOff, BrokenOffError
from tests.server.in_memory_grid import InMemoryGrid

CLIENTS, CLASSES, DIM = 3, 3, 256
# The six layers of test_efficientnet that are adapted, as outputs and inputs.
LAYERS = [(24, 64), (32, 96), (128, 32), (48, 128), (192, 48), (64, 192)]
ADAPTERS, EVERYTHING = "adapters", "fine-tune"


@pytest.fixture
def dataset(tmp_path, monkeypatch):
    """Thirty training and twelve test images of three classes."""
    monkeypatch.setenv("FEDCOF_CACHE", str(tmp_path / "cache"))
    generator = np.random.default_rng(0)
    for split, count in (("train", 10), ("test", 4)):
        for number, name in enumerate("abc"):
            folder = tmp_path / "images" / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = generator.integers(30 * number, 30 * number + 160, (32, 32, 3))
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{i}.png")
    return f"folder:{tmp_path / 'images'}"


def config_of(dataset, continuation=ADAPTERS, **values):
    tiny = {"backbone": "test_efficientnet", "weights": "none", "image_size": 32, "num_clients": CLIENTS}
    settings = {"continue_": continuation, "continue_rounds": 2, "batch_size": 4, "partition": "iid"}
    settings |= {"adapter_learning_rate": 0.1, "backbone_learning_rate": 0.01}
    return RunConfig(dataset=dataset, **{**tiny, **settings, **values})


def run(config, folder, break_at=None, seed=0):
    grid = InMemoryGrid(client_app, CLIENTS, run_config=config.to_mapping(), seed=seed)
    federated = FederatedRun(Federation(grid, CLIENTS), config, folder, [BreakOff(break_at)])
    return federated, federated.execute()


@pytest.mark.parametrize(("continuation", "method"), [(ADAPTERS, "fedcof"), (EVERYTHING, "random")])
def test_broken_off_and_gone_on_with_it_ends_the_same(dataset, tmp_path, continuation, method):
    config = config_of(dataset, continuation, method=method, client_test_share=0.2)
    whole, expected = run(config, tmp_path / "whole")
    collecting = 0 if method == "random" else CLIENTS
    # In the middle of the second round.
    with pytest.raises(BrokenOffError):
        run(config, tmp_path / "broken", collecting + CLIENTS + 2, seed=1)
    resumed, classifier = run(config, tmp_path / "broken", seed=2)
    assert torch.equal(classifier.weight, expected.weight)
    assert resumed.rounds == whole.rounds
    assert resumed.ledger.to_rows() == whole.ledger.to_rows()
    for kept in ("whole", "broken"):
        (whole if kept == "whole" else resumed).save_networks(tmp_path / kept)
    for name in (BACKBONE_FILE_NAME, f"{BEST_FOLDER_NAME}/{BACKBONE_FILE_NAME}"):
        one, other = (load_file(tmp_path / kept / name) for kept in ("whole", "broken"))
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one)


def test_a_round_costs_head_and_adapters_both_ways(dataset, tmp_path):
    adapted, _ = run(config_of(dataset, method="random", adapter_rank=2, broadcast=False), tmp_path)
    numbers = CLASSES * DIM + CLASSES + sum(2 * (outputs + inputs) for outputs, inputs in LAYERS)
    training = [traffic for occasion, traffic in adapted.ledger.entries() if occasion.message == "train"]
    assert len(training) == 2 * CLIENTS
    for traffic in training:
        # What Flower adds to each of fourteen arrays, with the run-config on the way down.
        assert 4 * numbers < traffic.uplink < 4 * numbers + 8000
        assert 4 * numbers < traffic.downlink < 4 * numbers + 10000
    assert adapted.expected_uplink_bytes == 2 * CLIENTS * 4 * numbers


def test_what_is_kept_is_a_plain_backbone_that_another_run_takes_as_its_weights(dataset, tmp_path):
    config = config_of(dataset)
    adapted, classifier = run(config, tmp_path)
    adapted.save_networks(tmp_path)
    frozen, kept = backbone_of(config).module.state_dict(), load_file(tmp_path / BACKBONE_FILE_NAME)
    assert kept.keys() == frozen.keys()
    changed = {name for name in kept if not torch.equal(kept[name], frozen[name])}
    assert {name.removesuffix(".weight").rpartition(".")[2] for name in changed} == {"conv_pw", "conv_pwl"}
    assert len(changed) == len(LAYERS)
    other = config_of(dataset, "none", weights=str(tmp_path / BACKBONE_FILE_NAME), feature_transform="none")
    head = LinearClassifier.load(tmp_path / HEAD_FILE_NAME)
    right = rightly_classified(head, other)
    assert torch.equal(right, rightly_classified(classifier, config, adapted.network))
    assert float(right.double().mean()) == adapted.rounds[-1].accuracy


def test_training_starts_at_the_accuracy_of_the_frozen_backbone(dataset, tmp_path):
    starts = [
        run(config_of(dataset, kind, continue_rounds=1), tmp_path / kind)[0].rounds[0]
        for kind in (ADAPTERS, EVERYTHING)
    ]
    assert starts[0].accuracy == starts[1].accuracy > 1 / CLASSES


def test_layers_are_the_servers_to_say_and_the_clients_follow_its_network(dataset, tmp_path):
    config = config_of(dataset, adapter_layers=r"blocks\.4\.0\.conv_pwl?", continue_rounds=1)
    adapted, _ = run(config, tmp_path)
    layers = {name.rpartition(".")[0] for name in adapted.network.to_arrays()} - {"head"}
    assert layers == {"backbone.blocks.4.0.conv_pw", "backbone.blocks.4.0.conv_pwl"}
    assert adapted.rounds[-1].clients == CLIENTS
    with pytest.raises(UserError, match="adapter-layers, 'nothing': .* has blocks.1.0.conv_pwl"):
        run(config_of(dataset, adapter_layers="nothing"), tmp_path / "none")
