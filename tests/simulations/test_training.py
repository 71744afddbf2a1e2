"""Training through the command, on Flower and Ray: a run that is killed, fine-tuning on real images, its export."""

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file
from sklearn.datasets import load_digits

from fedcof import LinearClassifier
from fedcof.embedding.images import decode_image
from fedcof.run.config import RunConfig
from fedcof.run.ledger import Ledger
from fedcof.run.results import load_results
from simulations import cli
from simulations.prediction import best_run, predict
from tests.running import marked
from tests.shared import made_once
from tests.waiting import until

CHECKPOINT = "checkpoint.safetensors"


@pytest.fixture
def features(tmp_path):
    """Features of forty classes, so that a message takes a while."""
    folder = tmp_path / "features"
    folder.mkdir()
    generator = np.random.default_rng(0)
    centres = generator.standard_normal((40, 64))
    for split, count in (("train", 2000), ("test", 400)):
        labels = np.arange(count) % 40
        samples = centres[labels] + 2 * generator.standard_normal((count, 64))
        np.save(folder / f"{split}_features.npy", samples.astype(np.float32))
        np.save(folder / f"{split}_labels.npy", labels)
    return f"features:{folder}"


def rounds_done(folder):
    try:
        content = (folder / CHECKPOINT).read_bytes()
    except FileNotFoundError:
        return 0
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    return json.loads(header["__metadata__"]["description"])["rounds_done"]


def files_of(folder):
    """All files but the lock, which a command that was killed leaves behind."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file() and path.name != ".lock"}


def of_no_moment(result):
    """Leave out what may differ: time."""
    return {**vars(result), "seconds": 0}


@pytest.mark.flower
def test_a_killed_run_ends_as_an_unbroken_one(fedcof, in_memory, features, tmp_path):
    """The unbroken one in memory."""
    settings = ["-c", f"dataset={features}", "-c", "num-clients=10", "-c", "partition=iid"]
    settings += ["-c", "continue=linear-probe", "-c", "continue-strategy=fedadam", "-c", "continue-fraction=0.5"]
    settings += ["-c", "continue-rounds=6", "-c", "client-test-share=0.2", "-c", "local-epochs=20"]
    broken, whole = tmp_path / "broken", tmp_path / "whole"
    command = [
        sys.executable,
        "-c",
        "from simulations.cli import main; main()",
        "simulate",
        *settings,
        "-o",
        str(broken),
    ]
    environment = {**os.environ, "FEDCOF_CACHE": str(tmp_path / "cache")}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    assert until(lambda: rounds_done(broken) >= 2, process)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    # The server is another process: the guard stops it, and only then is it certain which round was its last.
    assert until(lambda: not marked("FEDCOF_CACHE", tmp_path / "cache"))
    done = rounds_done(broken)
    assert 2 <= done < 6
    assert load_results(broken) == []

    before = files_of(broken)
    for arguments in (["digits", "-c", "seed=3"], ["digits", *settings, "-c", "backbone=resnet18"]):
        status, message = fedcof("simulate", *arguments, "--resume", broken)
        assert (status, message.strip().count("\n")) == (2, 0)
    status, message = fedcof("simulate", *settings, "-o", broken)
    assert status == 2
    assert "--resume" in message
    assert files_of(broken) == before

    assert fedcof("simulate", "--resume", broken) == (0, "")
    (one,) = load_results(broken)
    other = in_memory(RunConfig.from_mapping(one.config), whole)
    assert of_no_moment(one) == of_no_moment(other)
    for name in ("head.safetensors", "best/head.safetensors"):
        first, second = (load_file(folder / name) for folder in (broken, whole))
        assert all(torch.equal(first[key], second[key]) for key in second)
    assert (broken / "ledger.csv").read_text() == (whole / "ledger.csv").read_text()
    status, message = fedcof("simulate", "--resume", broken)
    assert status == 2
    assert "has finished" in message


@pytest.mark.parametrize("content", [b"", b"\x07\x00", b"\x00" * 100])
def test_a_damaged_checkpoint_is_refused_and_nothing_is_changed(fedcof, features, tmp_path, content):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / CHECKPOINT).write_bytes(content)
    (folder / "run-config.toml").write_text(f'dataset = "{features}"\ncontinue = "linear-probe"\n')
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    status, message = fedcof("simulate", "--resume", folder)
    assert status == 2
    assert "is damaged" in message
    assert message.strip().count("\n") == 0
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--resume", "nowhere"], "holds no run to go on with"),
        (["--resume", "nowhere", "-o", "elsewhere"], "give --resume or --output"),
        (["-c", "method=random"], "set continue to linear-probe, adapters or fine-tune"),
        (["-c", "continue=probe"], "Unknown continue 'probe': choose one of none, linear-probe, adapters"),
        (["-c", "continue=linear-probe", "-c", "continue-strategy=fedprox"], "proximal-mu"),
        (["-c", "continue=linear-probe", "-c", "learning-rate=-1"], "learning-rate is -1"),
        (["-c", "continue=fine-tune", "-c", "dataset=features:nowhere"], "continue=fine-tune needs images"),
        (["-c", "continue=adapters", "-c", "dataset=features:nowhere"], "continue=adapters needs images"),
        (["-c", "continue=adapters", "-c", "adapter-layers=("], "adapter-layers is '(', which is no regular"),
        (["-c", "continue=adapters", "-c", "adapter-rank=0"], "adapter-rank is 0, but it must be at least 1"),
        (["-c", "method=oracle", "-c", "continue=linear-probe"], "continue is linear-probe, but it must be none"),
    ],
)
def test_wrong_input_is_one_sentence(fedcof, arguments, sentence, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, message = fedcof("simulate", *arguments)
    assert status == 2
    assert sentence in message
    assert message.strip().count("\n") == 0


@pytest.fixture(scope="module")
def fine_tuned(tmp_path_factory):
    """Digits on four clients, with the real weights of a real backbone; made once for all test processes."""
    return made_once(tmp_path_factory, "fine-tuned", fine_tune) / "run"


def fine_tune(folder):
    arguments = ["simulate", "digits", "-o", str(folder / "run"), "-c", "continue=fine-tune", "-c", "num-clients=4"]
    arguments += ["-c", "partition=iid", "-c", "image-size=32", "-c", "continue-rounds=2", "-c", "batch-size=32"]
    arguments += ["-c", "local-epochs=1", "-c", "client-test-share=0.1"]
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("FEDCOF_CACHE", str(folder / "cache"))
        patched.setattr(sys, "argv", ["fedcof", *arguments])
        with pytest.raises(SystemExit) as leave:
            cli.main()
        assert leave.value.code == 0


@pytest.fixture(scope="module")
def digit(tmp_path_factory):
    path = tmp_path_factory.mktemp("digit") / "zero.png"
    Image.fromarray((load_digits().images[0] * 15.9).astype(np.uint8)).save(path)
    return path


@pytest.mark.flower("fine-tuned")
def test_fine_tuning_learns_from_real_images(fine_tuned):
    (result,) = load_results(fine_tuned)
    start, first, second = result.rounds
    assert second.loss < first.loss
    assert result.accuracy > start.accuracy
    assert 0 < second.worst_tenth_accuracy <= second.client_accuracy <= 1


@pytest.mark.flower("fine-tuned")
def test_a_round_of_fine_tuning_costs_the_whole_network_both_ways(fine_tuned):
    model = timm.create_model("tf_efficientnet_lite0", num_classes=10)
    network = 4 * sum(parameter.numel() for parameter in model.parameters())
    ledger = Ledger()
    lines = (fine_tuned / "ledger.csv").read_text().splitlines()[1:]
    ledger.add_rows(line.split(",") for line in lines)
    training = [traffic for occasion, traffic in ledger.entries() if occasion.message == "train"]
    assert len(training) == 8
    for traffic in training:
        assert network < traffic.uplink < 1.02 * network
        assert network < traffic.downlink < 1.02 * network


@pytest.mark.flower("fine-tuned")
def test_a_fine_tuned_run_predicts_and_its_backbone_is_another_runs_weights(fine_tuned, digit):
    (result,) = load_results(fine_tuned)
    (prediction,) = predict(fine_tuned, best_run(fine_tuned), [digit])
    tuned = load_file(fine_tuned / "backbone.safetensors")
    model = timm.create_model("tf_efficientnet_lite0", num_classes=0)
    model.load_state_dict(tuned, strict=True)
    head = LinearClassifier.load(fine_tuned / result.head)
    scores = head.scores(model.eval()(transform_of(digit)).detach())
    assert prediction.classes[0][0] == head.class_names[int(scores.argmax())]
    assert prediction.classes[0][1] == pytest.approx(float(scores.max()), rel=1e-4)


def transform_of(path):
    config = {"input_size": (3, 32, 32), "mean": (0.5,) * 3, "std": (0.5,) * 3, "interpolation": "bicubic"}
    transform = timm.data.create_transform(**config, crop_pct=0.875, is_training=False)
    return transform(decode_image(path))[None]


@pytest.mark.flower("fine-tuned")
def test_plain_timm_loads_an_export_that_predicts_the_same(fedcof, fine_tuned, digit, tmp_path):
    assert fedcof("export", fine_tuned, "--format", "timm", "-o", tmp_path / "model") == (0, "")
    model = timm.create_model(f"local-dir:{tmp_path / 'model'}", pretrained=True).eval()
    config = timm.data.resolve_model_data_config(model)
    assert config["input_size"] == (3, 32, 32)
    images = timm.data.create_transform(**config, is_training=False)(decode_image(digit))[None]
    scores = dict(zip(model.pretrained_cfg["label_names"], model(images)[0].tolist(), strict=True))
    (expected,) = predict(fine_tuned, best_run(fine_tuned), [digit])
    for name, score in expected.classes:
        assert scores[name] == pytest.approx(score, rel=1e-3, abs=1e-3)


@pytest.mark.flower("fine-tuned")
def test_onnxruntime_loads_an_export_that_predicts_the_same(fedcof, fine_tuned, digit, tmp_path):
    import onnxruntime

    assert fedcof("export", fine_tuned, "--format", "onnx", "-o", tmp_path / "model.onnx")[0] == 0
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    properties = session.get_modelmeta().custom_metadata_map
    names = json.loads(properties["class_names"])
    assert json.loads(properties["input_size"]) == [3, 32, 32]
    images = transform_of(digit).numpy()
    (scores,) = session.run(["scores"], {"images": np.repeat(images, 3, axis=0)})
    assert scores.shape == (3, 10)
    (expected,) = predict(fine_tuned, best_run(fine_tuned), [digit])
    for name, score in expected.classes:
        assert scores[2, names.index(name)] == pytest.approx(score, rel=1e-3, abs=1e-3)


def test_an_unknown_format_is_named(fedcof, tmp_path):
    status, message = fedcof("export", tmp_path, "--format", "tflite")
    assert status == 2
    assert "Unknown format 'tflite': choose one of timm, onnx" in message
