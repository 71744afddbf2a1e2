"""The command: wrong input is one sentence, and real runs on Flower and Ray."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from fedcof import LinearClassifier
from fedcof.run.config import RunConfig
from fedcof.run.failures import load_failures
from fedcof.run.results import load_results
from tests.fedcof.data.zoo import damaged_within

TINY = ("-c", "backbone=test_efficientnet", "-c", "weights=none", "-c", "image-size=32")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["simulate", "mnist"], "Unknown scenario 'mnist': choose one of cifar100, digits"),
        (["simulate", "-c", "dataset=mnist"], "Unknown dataset 'mnist': choose one of digits, parquet:DIR"),
        (["simulate", "-c", "partition=random"], "Unknown partition 'random': choose one of inner-dirichlet"),
        (["simulate", "-c", "method=fedsgd"], "Unknown method 'fedsgd': choose one of fedncm, fedcof"),
        (["compare", "--methods", "fedncm,fedsgd"], "Unknown method 'fedsgd': choose one of fedncm, fedcof"),
        (["compare", "--seeds", "0,one"], "The key seed is 'one', but it takes a whole number"),
        (["compare", "--seeds", ""], "The option --seeds names no seed"),
        (["compare", "--seeds", " , "], "The option --seeds names no seed"),
        (["compare", "--methods", ","], "The option --methods names no method"),
        (["simulate", "-c", "backbone=resnet5"], "Unknown backbone 'resnet5'"),
        (["simulate", "-c", "colour=red"], "Unknown key 'colour'"),
        (["simulate", "-c", "alpha"], "The setting 'alpha' has no value: write it as key=value"),
        (["simulate", "-c", "num-clients=1438"], "1438 clients but only 1437 training samples"),
        (["simulate", "-c", "dataset=folder:nowhere"], "nowhere"),
        (["simulate", "-c", "dataset=hub:uoft-cs/cifar100"], "could not be reached"),
        (["predict", "nowhere", "image.png"], "nowhere holds no finished run"),
    ],
)
def test_wrong_input_is_one_sentence_and_a_status(fedcof, arguments, sentence, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, message = fedcof(*arguments)
    assert status == 2
    assert sentence in message
    assert message.strip().count("\n") == 0
    assert "Traceback" not in message


def test_a_tilde_behind_an_equal_sign_is_ones_home(fedcof, tmp_path, monkeypatch):
    """Shells leave it to the command."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "results.json").write_text(json.dumps([{"format": 99}]))
    status, message = fedcof("compare", "--output=~")
    assert status == 2
    assert f"{tmp_path / 'results.json'} was written by another version" in message


def test_what_a_sentence_quotes_is_not_obeyed_by_the_terminal(fedcof):
    status, message = fedcof("predict", "\x1b[2J[red]\rnowhere", "image.png")
    assert status == 2
    assert "\N{REPLACEMENT CHARACTER}[2J[red] nowhere holds no finished run" in message
    assert "\x1b" not in message


def test_a_scenario_that_is_not_toml_is_named(fedcof, tmp_path):
    (tmp_path / "mine.toml").write_text("alpha = = 1")
    status, message = fedcof("simulate", tmp_path / "mine.toml")
    assert status == 2
    assert "mine.toml is not a TOML file" in message


def test_results_of_another_version_are_refused(fedcof, tmp_path):
    (tmp_path / "results.json").write_text(json.dumps([{"format": 99}]))
    status, message = fedcof("predict", tmp_path, "image.png")
    assert status == 2
    assert "another version" in message


@pytest.mark.flower
def test_the_main_job(fedcof, tmp_path):
    """Digits on 20 clients: FedCOF beats class means on the same bytes, and its classifier reads a digit."""
    status, message = fedcof("compare", "digits", "--output", tmp_path / "run")
    assert (status, message) == (0, "")
    means, covariances, default = load_results(tmp_path / "run")
    assert (means.method, covariances.method, default.method) == ("fedncm", "fedcof", "fedcof")
    assert means.accuracy > 0.7
    assert covariances.accuracy > means.accuracy + 0.05
    assert default.accuracy > max(covariances.accuracy, 0.92)
    assert means.clients == covariances.clients == default.clients == 20
    assert means.clients_rejected == covariances.clients_rejected == 0
    assert means.uplink_bytes == covariances.uplink_bytes >= default.uplink_bytes
    head = LinearClassifier.load(tmp_path / "run" / covariances.head)
    assert head.weight.shape == (10, 1280)
    assert head.class_names == tuple("0123456789")
    picture = (load_digits().images[0] * 15.9).astype(np.uint8)
    Image.fromarray(picture).save(tmp_path / "zero.png")
    status, _ = fedcof("predict", tmp_path / "run", tmp_path / "zero.png")
    assert status == 0

    status, message = fedcof("simulate", "digits", "--output", tmp_path / "run")
    assert status == 2
    assert "holds results already" in message


@pytest.mark.flower
def test_a_client_that_fails_is_named_and_below_the_quorum_the_run_fails(fedcof, in_memory, image_folder, tmp_path):
    """One training image that only decoding shows to be damaged: the client that holds it fails, in a real run.

    Two clients live on each node, and the classifier is that of a node each, in memory.
    """
    broken = image_folder / "train" / "dark" / "3.png"
    broken.write_bytes(damaged_within(broken.read_bytes()))
    settings = ("-c", f"dataset=folder:{image_folder}", "-c", "num-clients=6", "-c", "partition=iid", *TINY)
    # The last bits of a class's own directions follow the number of threads.
    hosted = ("-c", "head=ridge", "-c", "feature-cache=false", "-c", "clients-per-node=2", "-c", "quorum=[0.8,1.0]")
    assert fedcof("compare", *settings, *hosted, "--methods", "fedcof", "--output", tmp_path / "run") == (1, "")
    (result,) = load_results(tmp_path / "run")
    assert (result.config["quorum"], result.clients, result.clients_rejected) == (0.8, 5, 1)
    (reason,) = result.rejected.values()
    assert "3.png" in reason
    (failure,) = load_failures(tmp_path / "run")
    assert failure.config["quorum"] == 1.0
    assert "Only 5 of 6 clients" in failure.reason

    alone = in_memory(RunConfig.from_mapping(result.config), tmp_path / "memory")
    heads = [LinearClassifier.load(tmp_path / place) for place in (f"run/{result.head}", f"memory/{alone.head}")]
    assert torch.equal(heads[0].weight, heads[1].weight)
    assert (result.uplink_bytes, result.accuracy) == (alone.uplink_bytes, alone.accuracy)

    status, message = fedcof("simulate", *settings, "--output", tmp_path / "whole")
    assert status == 2
    assert "3.png" in message
    assert "left_out.csv" in message
