"""Real SuperLinks and SuperNodes on loopback, over TLS, with node keys: one classifier, strangers, faults."""

import csv
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from fedcof import FedCOF, LinearClassifier
from fedcof.data.problem import dataset_of
from fedcof.data.virtual_clients import client_indices
from fedcof.embedding.backbones import load_backbone
from fedcof.errors import UserError
from fedcof.run.config import RunConfig
from fedcof.run.results import load_results
from fedcof.wire.encoding import decode_class_means
from server.resolving import solve_again
from server.upload_store import UploadStore
from simulations.bundle import stage_app
from simulations.deployment import local_federation
from simulations.submission import run_app
from tests.simulations import hostile_client
from tests.waiting import until

TINY = {"backbone": "test_efficientnet", "weights": "none", "image-size": 32}
HOSTILE = Path(__file__).with_name("hostile_client.py")


def run(federation, app, values):
    lines = []
    run_app(federation.connection, app, values, None, lines.append)
    return lines


def secrets_of(federation):
    """The lines of the private keys that stand for nothing else."""
    keys = list(federation.secrets.glob("*.key"))
    assert keys
    for key in keys:
        assert key.stat().st_mode & 0o077 == 0
        yield from (line for line in key.read_text().splitlines() if "KEY" not in line and len(line) > 30)


def texts_below(*folders):
    for folder in folders:
        for path in folder.rglob("*"):
            if path.is_file() and "secrets" not in path.parts:
                yield path, path.read_bytes()


@pytest.fixture
def federation(tmp_path_factory):
    with local_federation(tmp_path_factory.mktemp("federation")) as federation:
        yield federation


@pytest.fixture
def dataset(tmp_path):
    """Sixty training images of three classes, dealt to five folders in the order of the simulation's partition."""
    generator = np.random.default_rng(0)
    for split, count in (("train", 20), ("test", 8)):
        for number, name in enumerate("abc"):
            folder = tmp_path / "images" / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = generator.integers(50 * number, 50 * number + 150, (32, 32, 3))
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{i:02d}.png")
    return tmp_path / "images"


def write_table(path, dataset, indices):
    """Name a client's images in the order of the simulation, and with the simulation's labels."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label"])
        for index in indices:
            image = dataset.train.with_format(None).cast_column("image", datasets.Image(decode=False))[int(index)]
            writer.writerow([image["image"]["path"], dataset.class_names[image["label"]]])


@pytest.mark.flower
@pytest.mark.timeout(400)
def test_real_nodes_end_with_the_simulations_classifier(federation, fedcof, dataset, tmp_path):
    """Three nodes with images, one with none, a stranger, and a node that does not know the authority."""
    settings = {**TINY, "dataset": f"folder:{dataset}", "num-clients": 3, "partition": "iid", "groups": 2}
    config = RunConfig.from_mapping({**settings, "feature-cache": False})
    words = [word for key, value in settings.items() for word in ("-c", f"{key}={value}")]
    assert fedcof("simulate", *words, "-c", "feature-cache=false", "-o", tmp_path / "simulated") == (0, "")
    images, parts = dataset_of(config), client_indices(config)
    for number, indices in enumerate(parts):
        write_table(tmp_path / f"site-{number}.csv", images, indices)
        name = f"site-{number}"
        key = federation.new_key(name)
        federation.start_node(name, key, {"data": str(tmp_path / f"{name}.csv"), "state": str(tmp_path / "state")})
    (tmp_path / "empty").mkdir()
    federation.start_node("site-9", federation.new_key("site-9"), {"data": str(tmp_path / "empty")})
    # A node that nobody knows is turned away, and so is one that does not know the authority.
    stranger = federation.start_node("stranger", federation.new_key("stranger", register=False), {"data": "/tmp"})
    deceived = subprocess.Popen(
        [Path(sys.executable).parent / "flower-supernode", "--superlink", federation.connection.address],
        env={**federation.connection.environment, "FLWR_HOME": str(tmp_path / "home")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    values = {**TINY, "dataset": "nodes", "classes": "a,b,c", "test-data": str(dataset / "test"), "groups": 2}
    values |= {"num-clients": 4, "output": str(tmp_path / "deployed"), "feature-cache": False}
    lines = run(federation, stage_app(tmp_path / "app"), values)
    (simulated,), (deployed,) = load_results(tmp_path / "simulated"), load_results(tmp_path / "deployed")
    heads = [LinearClassifier.load(tmp_path / name / "head.safetensors") for name in ("simulated", "deployed")]
    assert torch.equal(heads[0].weight, heads[1].weight)
    assert heads[1].class_names == ("a", "b", "c")
    assert deployed.accuracy == simulated.accuracy
    assert [(node.name, node.outcome, node.samples, node.rows) for node in deployed.nodes] == [
        *((f"site-{number}", "accepted", len(parts[number]), 6) for number in range(3)),
        ("site-9", "has nothing to send", 0, 0),
    ]

    assert stranger.wait(60) != 0
    assert "Failed to activate SuperNode" in federation.log_of("stranger").read_text()
    deceived.terminate()
    said = deceived.communicate(timeout=30)[0]
    assert "certificate" in said.lower() or "ssl" in said.lower() or "tls" in said.lower()
    everything = "\n".join(lines).encode()
    secrets = [secret.encode() for secret in secrets_of(federation)]
    for path, content in texts_below(tmp_path, federation.connection.working_directory):
        assert not any(secret in content for secret in secrets), path
    assert not any(secret in everything for secret in secrets)


GOOD = 4
BAD = {
    "nan": "finite numbers",
    "scale": "where the median client's are",
    "gigabyte": "rows, but may have 3",
    "corrupt": "cannot be read",
    "slow": "no answer within 60 seconds",
    "dies": "",
}


def hostile_app(folder):
    app = stage_app(folder)
    shutil.copyfile(HOSTILE, app / "clients" / "app.py")
    return app


def config_of(values):
    return RunConfig.from_mapping(values)


def start_site(federation, tmp_path, site, how="", name="", claims=""):
    """Start a node of the light app; a key is made once."""
    name = name or (f"site-{site:02d}-{how}" if how else f"site-{site:02d}")
    folder = tmp_path / "nodes" / name
    folder.mkdir(parents=True, exist_ok=True)
    key = federation.secrets / f"{name}.key"
    if not key.exists():
        key = federation.new_key(name)
    fingerprint = load_backbone("test_efficientnet", 32, "none").fingerprint
    settings = {"name": claims or name, "data": str(folder), "site": site, "fingerprint": fingerprint}
    node = federation.start_node(name, key, settings | ({"misbehave": how} if how else {}))
    (folder / "supernode.pid").write_text(str(node.pid))
    return name


def is_let_in(federation, tmp_path, site, name):
    """Start a node, and see whether the SuperLink takes it."""
    log = federation.log_of(name)
    before = len(log.read_text()) if log.exists() else 0
    start_site(federation, tmp_path, site, name=name)
    assert until(lambda: any(word in log.read_text()[before:] for word in ("SuperNode ID", "Exit Code")))
    if "SuperNode ID" in log.read_text()[before:]:
        return True
    federation.nodes.pop(name).kill()
    time.sleep(5)
    return False


def times_asked(tmp_path, name):
    path = tmp_path / "nodes" / name / "asked.txt"
    return len(path.read_text().splitlines()) if path.exists() else 0


def expected_weight(sites):
    aggregator = FedCOF(hostile_client.CLASSES, hostile_client.DIM, shrinkage=0.1)
    for source, site in enumerate(sites):
        aggregator.add(decode_class_means(hostile_client.upload(site)), source)
    return aggregator.solve().weight


VALUES = {**TINY, "dataset": "nodes", "classes": "a,b,c", "reply-timeout": 60.0, "quorum": 0.2}
VALUES["shrinkage"] = 0.1


@pytest.mark.flower
@pytest.mark.timeout(500)
def test_every_fault_is_left_out_by_name_and_the_others_count(federation, tmp_path):
    """Six nodes that misbehave, two with one name, one that joins late, three that do what they should."""
    good = [start_site(federation, tmp_path, site) for site in range(GOOD - 1)]
    bad = {start_site(federation, tmp_path, 10 + i, how): reason for i, (how, reason) in enumerate(BAD.items())}
    start_site(federation, tmp_path, 0, name="twin", claims="site-00")
    late = f"site-{GOOD - 1:02d}"

    values = VALUES | {"num-clients": GOOD + len(bad), "output": str(tmp_path / "out"), "node-timeout": 100.0}
    timer = threading.Timer(20, lambda: start_site(federation, tmp_path, GOOD - 1))
    timer.start()
    run_app(federation.connection, hostile_app(tmp_path / "app"), values, None, lambda line: None)
    (result,) = load_results(tmp_path / "out")
    outcomes = {(node.name, node.outcome) for node in result.nodes}
    assert {(name, "accepted") for name in [*good, late]} <= outcomes
    assert ("site-00", "left out: two nodes have this name, of which the first is asked") in outcomes
    by_name = dict(outcomes - {("site-00", "left out: two nodes have this name, of which the first is asked")})
    for name, reason in bad.items():
        assert by_name[name].startswith("left out: "), (name, by_name[name])
        assert reason in by_name[name], (name, by_name[name])
    assert (result.clients, result.clients_rejected) == (GOOD, len(bad))
    head = LinearClassifier.load(tmp_path / "out" / "head.safetensors")
    assert torch.equal(head.weight, expected_weight(range(GOOD)))
    assert sorted(UploadStore(tmp_path / "out", config_of(values)).names()) == [*good, late]


@pytest.mark.flower
@pytest.mark.timeout(500)
def test_a_superlink_that_is_killed_loses_no_upload_and_counts_none_twice(federation, tmp_path):
    names = [start_site(federation, tmp_path, site) for site in range(3)]
    slow = start_site(federation, tmp_path, 3, "slow")
    values = VALUES | {"num-clients": 4, "output": str(tmp_path / "out"), "quorum": 1.0}
    store = UploadStore(tmp_path / "out", config_of(values))
    app = hostile_app(tmp_path / "app")
    failures = []

    def first():
        try:
            run_app(federation.connection, app, values, None, lambda line: None)
        except UserError as error:
            failures.append(str(error))

    thread = threading.Thread(target=first)
    thread.start()
    assert until(lambda: store.names() == names)
    superlink = federation.superlink
    superlink.kill()
    superlink.wait(10)
    thread.join(120)
    assert failures
    assert load_results(tmp_path / "out") == []

    federation.start_superlink()
    federation.nodes.pop(slow).kill()
    # As the unit does: it is turned away until its old heartbeat has lapsed, a minute after the last.
    assert any(is_let_in(federation, tmp_path, 3, slow) for _ in range(20))
    run_app(federation.connection, app, values, None, lambda line: None)
    (result,) = load_results(tmp_path / "out")
    assert [(node.name, node.outcome) for node in result.nodes] == [
        *((name, "accepted, from an earlier run") for name in names),
        (slow, "accepted"),
    ]
    assert [times_asked(tmp_path, name) for name in names] == [1, 1, 1]
    head = LinearClassifier.load(tmp_path / "out" / "head.safetensors")
    assert torch.equal(head.weight, expected_weight(range(4)))

    again = solve_again(tmp_path / "out", {"head": "lda", "shrinkage": "ledoit-wolf"}, "again")
    assert again.clients == 4
    assert np.isnan(again.accuracy)
    assert [times_asked(tmp_path, name) for name in names] == [1, 1, 1]


def marked(marker):
    """Processes whose environment holds a marker, and that are not zombies."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
            if state not in "ZX" and marker.encode() in (folder / "environ").read_bytes():
                found.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode())
    return found


@pytest.mark.flower
@pytest.mark.timeout(200)
def test_an_interrupted_trial_stops_all_that_it_started(dataset, tmp_path):
    arguments = ["deploy-local", "digits", "--nodes", "2", "-o", str(tmp_path / "run"), "-c", "partition=iid"]
    arguments += ["-c", f"dataset=folder:{dataset}", "-c", "backbone=test_efficientnet", "-c", "weights=none"]
    start = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    command = [sys.executable, "-c", f"{start}; from simulations.cli import main; main()", *arguments]
    marker = f"MARK={tmp_path}"
    environment = {**os.environ, "MARK": str(tmp_path), "FEDCOF_CACHE": str(tmp_path / "cache")}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    assert until(lambda: sum("flower-supernode" in line for line in marked(marker)) == 2)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) != 0
    assert until(lambda: not marked(marker)), marked(marker)
