"""Real SuperLinks and SuperNodes on loopback, over TLS, with node keys: one classifier, strangers, faults."""

import csv
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import tomllib
from contextlib import closing
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from fedcof import FedCOF, LinearClassifier
from fedcof.data.problem import dataset_of
from fedcof.data.virtual_clients import client_indices
from fedcof.embedding.backbones import load_backbone
from fedcof.errors import UserError
from fedcof.heads.classifiers import load_classifier
from fedcof.run.config import RunConfig
from fedcof.run.results import load_results
from fedcof.wire.encoding import decode_class_means
from server.resolving import solve_again
from server.upload_store import UploadStore
from simulations.bundle import stage_app
from simulations.deployment import local_federation
from simulations.door import nginx_command
from simulations.nursery import Nursery
from simulations.submission import run_app
from tests.running import is_running, marked, members_of_groups
from tests.simulations import hostile_client
from tests.waiting import until

HOUR = 3600.0
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
def test_real_nodes_end_with_the_simulations_classifier(federation, in_memory, dataset, tmp_path):
    """Two nodes with images, one with none, a stranger, and a node that does not know the authority."""
    # A node of its own draws groups and rounding in secret, so both are asked for what needs neither.
    settings = {**TINY, "dataset": f"folder:{dataset}", "num-clients": 2, "partition": "iid", "upload": "paper"}
    config = RunConfig.from_mapping({**settings, "feature-cache": False})
    simulated = in_memory(config, tmp_path / "simulated")
    images, parts = dataset_of(config), client_indices(config)
    *keys, key_of_nothing = federation.new_keys(["site-0", "site-1", "site-9"])
    nodes = {}
    for number, (indices, key) in enumerate(zip(parts, keys, strict=True)):
        write_table(tmp_path / f"site-{number}.csv", images, indices)
        name = f"site-{number}"
        own = {"data": str(tmp_path / f"{name}.csv"), "state": str(tmp_path / "state"), "smallest-count": 1}
        nodes[name] = key, own
    # These share what they import, as all nodes of deploy-local do; the others have processes of their own.
    with closing(Nursery(federation.connection, len(nodes))) as nursery:
        federation.start_nodes(nursery, nodes)
    (tmp_path / "empty").mkdir()
    federation.start_node("site-9", key_of_nothing, {"data": str(tmp_path / "empty")})
    # A node that nobody knows is turned away, and so is one that does not know the authority.
    stranger = federation.start_node("stranger", federation.new_key("stranger", register=False), {"data": "/tmp"})
    deceived = subprocess.Popen(
        [Path(sys.executable).parent / "flower-supernode", "--superlink", federation.connection.address],
        env={**federation.connection.environment, "FLWR_HOME": str(tmp_path / "home")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    values = {**TINY, "dataset": "nodes", "classes": "a,b,c", "test-data": str(dataset / "test")}
    values |= {"num-clients": 3, "output": str(tmp_path / "deployed"), "feature-cache": False}
    values |= {"node-timeout": HOUR, "upload": "paper"}
    lines = run(federation, stage_app(tmp_path / "app"), values)
    (deployed,) = load_results(tmp_path / "deployed")
    heads = [load_file(tmp_path / name / "head.safetensors") for name in ("simulated", "deployed")]
    assert heads[0].keys() == heads[1].keys()
    # The last bits of a class's own directions are those of the number of threads.
    for name, array in heads[0].items():
        torch.testing.assert_close(array, heads[1][name], rtol=1e-5, atol=1e-6)
    assert load_classifier(tmp_path / "deployed" / "head.safetensors").class_names == ("a", "b", "c")
    assert deployed.accuracy == simulated.accuracy
    assert [(node.name, node.outcome, node.samples, node.rows) for node in deployed.nodes] == [
        *((f"site-{number}", "accepted", len(parts[number]), 3) for number in range(2)),
        ("site-9", "has nothing to send", 0, 0),
    ]

    assert stranger.wait() != 0
    assert "Failed to activate SuperNode" in federation.log_of("stranger").read_text()
    deceived.terminate()
    said = deceived.communicate()[0]
    assert "certificate" in said.lower() or "ssl" in said.lower() or "tls" in said.lower()
    everything = "\n".join(lines).encode()
    secrets = [secret.encode() for secret in secrets_of(federation)]
    for path, content in texts_below(tmp_path, federation.connection.working_directory):
        assert not any(secret in content for secret in secrets), path
    assert not any(secret in everything for secret in secrets)


GOOD = 3
# The other faults of an upload are tried in memory, as Flower carries all alike.
BAD = {
    "nan": "finite numbers",
    "bulk": "MB, where",
    "slow": "no answer within 3600 seconds",
    "dies": "",
}


# The server's clock runs two hundred times as fast once a file is there, so that a test says when an hour is over.
TURNED_CLOCK = """

class _TurnedClock:
    sleep = staticmethod(time.sleep)

    @staticmethod
    def monotonic(time=time):
        try:
            since = time.time() - os.stat({file!r}).st_mtime
        except FileNotFoundError:
            since = 0
        return time.monotonic() + 200 * since


time = _TurnedClock
"""


def hostile_app(folder, give_up=None):
    """Stage the app with the light clients; its server waits for no reply any more once ``give_up`` is there."""
    app = stage_app(folder)
    description = tomllib.loads((app / "pyproject.toml").read_text())
    module = description["tool"]["flwr"]["app"]["components"]["clientapp"].partition(":")[0]
    shutil.copyfile(HOSTILE, app / f"{module.replace('.', '/')}.py")
    if give_up:
        exchange = app / "server" / "exchange.py"
        text = exchange.read_text().replace("import time\n", "import os\nimport time\n", 1)
        exchange.write_text(text + TURNED_CLOCK.format(file=str(give_up)))
    return app


def config_of(values):
    return RunConfig.from_mapping(values)


def name_of(site, how=""):
    return f"site-{site:02d}-{how}" if how else f"site-{site:02d}"


def start_site(federation, tmp_path, site, how="", name="", claims=""):
    """Start a node of the light app, whose key there is."""
    name = name or name_of(site, how)
    folder = tmp_path / "nodes" / name
    folder.mkdir(parents=True, exist_ok=True)
    key = federation.secrets / f"{name}.key"
    fingerprint = load_backbone("test_efficientnet", 32, "none").fingerprint
    settings = {"name": claims or name, "data": str(folder), "site": site, "fingerprint": fingerprint}
    node = federation.start_node(name, key, settings | ({"misbehave": how} if how else {}), own_app=False)
    (folder / "supernode.pid").write_text(str(node.pid))
    return name


def age_heartbeats(federation, name):
    """Let the minute pass in which a SuperLink, which is down, takes a node that was killed for a living one."""
    said = re.search(r"SuperNode ID: (\d+)", federation.log_of(name).read_text()).group(1)
    with closing(sqlite3.connect(federation.connection.working_directory / "state.db")) as database, database:
        # Where it is kept the number has a sign.
        changed = database.execute(
            "update node set online_until = 1 where node_id = ?", [int(said) - (int(said) >> 63 << 64)]
        )
        assert changed.rowcount == 1


def times_asked(tmp_path, name):
    path = tmp_path / "nodes" / name / "asked.txt"
    return len(path.read_text().splitlines()) if path.exists() else 0


def expected_weight(sites):
    aggregator = FedCOF(hostile_client.CLASSES, hostile_client.DIM, shrinkage=0.1)
    for source, site in enumerate(sites):
        aggregator.add(decode_class_means(hostile_client.upload(site)), source)
    return aggregator.solve().weight


VALUES = {**TINY, "dataset": "nodes", "classes": "a,b,c", "shrinkage": 0.1, "quorum": 0.2}
VALUES |= {"reply-timeout": HOUR, "node-timeout": HOUR}
# The light clients know this form alone.
VALUES |= {"upload": "paper", "head": "ridge", "feature-transform": "none"}


@pytest.mark.flower
def test_every_fault_is_left_out_by_name_and_the_others_count(federation, tmp_path):
    """Four nodes that misbehave, two with one name, one that joins late, two that do what they should."""
    federation.new_keys(
        [*(name_of(site) for site in range(GOOD)), *(name_of(10 + i, how) for i, how in enumerate(BAD)), "twin"]
    )
    good = [start_site(federation, tmp_path, site) for site in range(GOOD - 1)]
    bad = {start_site(federation, tmp_path, 10 + i, how): reason for i, (how, reason) in enumerate(BAD.items())}
    start_site(federation, tmp_path, 0, name="twin", claims="site-00")
    late = f"site-{GOOD - 1:02d}"
    give_up = tmp_path / "give-up"

    def join_late():
        introduced = [tmp_path / "nodes" / name / "introduced.txt" for name in [*good, *bad, "twin"]]
        if until(lambda: all(path.exists() for path in introduced)):
            start_site(federation, tmp_path, GOOD - 1)

    def note(line):
        # The last two are those that never answer.
        if f"reply {GOOD + len(bad) - 2} of {GOOD + len(bad)}" in line:
            give_up.touch()

    values = VALUES | {"num-clients": GOOD + len(bad), "output": str(tmp_path / "out")}
    threading.Thread(target=join_late, daemon=True).start()
    run_app(federation.connection, hostile_app(tmp_path / "app", give_up), values, None, note)
    (result,) = load_results(tmp_path / "out")
    outcomes = {(node.name, node.outcome) for node in result.nodes}
    assert {(name, "accepted") for name in [*good, late]} <= outcomes
    by_name = dict(outcomes)
    ((_, twin),) = [(name, outcome) for name, outcome in outcomes if name.startswith("node ")]
    assert twin == "left out: it goes by the name of site-00, which is another node's"
    for name, reason in bad.items():
        assert by_name[name].startswith("left out: "), (name, by_name[name])
        assert reason in by_name[name], (name, by_name[name])
    assert (result.clients, result.clients_rejected) == (GOOD, len(bad))
    head = LinearClassifier.load(tmp_path / "out" / "head.safetensors")
    assert torch.equal(head.weight, expected_weight(range(GOOD)))
    assert sorted(UploadStore(tmp_path / "out", config_of(values)).names()) == [*good, late]


@pytest.mark.flower
def test_a_superlink_that_is_killed_loses_no_upload_and_counts_none_twice(federation, tmp_path):
    federation.new_keys([*(name_of(site) for site in range(2)), name_of(2, "slow")])
    names = [start_site(federation, tmp_path, site) for site in range(2)]
    slow = start_site(federation, tmp_path, 2, "slow")
    values = VALUES | {"num-clients": 3, "output": str(tmp_path / "out"), "quorum": 1.0}
    store = UploadStore(tmp_path / "out", config_of(values))
    app = hostile_app(tmp_path / "app")
    failures = []

    def first():
        try:
            run_app(federation.connection, app, values, None, lambda line: None)
        except UserError as error:
            failures.append(str(error))

    thread = threading.Thread(target=first, daemon=True)
    thread.start()
    assert until(lambda: store.names() == names)
    superlink = federation.superlink
    superlink.kill()
    superlink.wait()
    thread.join()
    assert failures
    assert load_results(tmp_path / "out") == []

    federation.nodes.pop(slow).kill()
    age_heartbeats(federation, slow)
    federation.start_superlink()
    start_site(federation, tmp_path, 2, name=slow)
    run_app(federation.connection, app, values, None, lambda line: None)
    (result,) = load_results(tmp_path / "out")
    assert [(node.name, node.outcome) for node in result.nodes] == [
        *((name, "accepted, from an earlier run") for name in names),
        (slow, "accepted"),
    ]
    assert [times_asked(tmp_path, name) for name in names] == [1, 1]
    head = LinearClassifier.load(tmp_path / "out" / "head.safetensors")
    assert torch.equal(head.weight, expected_weight(range(3)))

    again = solve_again(tmp_path / "out", {"head": "lda", "shrinkage": "ledoit-wolf"}, "again")
    assert again.clients == 3
    assert again.accuracy is None
    assert [times_asked(tmp_path, name) for name in names] == [1, 1]


@pytest.mark.flower
def test_an_interrupted_trial_stops_all_that_it_started(dataset, tmp_path):
    arguments = ["deploy-local", "digits", "--nodes", "2", "-o", str(tmp_path / "run"), "-c", "partition=iid"]
    arguments += ["-c", f"dataset=folder:{dataset}", "-c", "backbone=test_efficientnet", "-c", "weights=none"]
    start = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    command = [sys.executable, "-c", f"{start}; from simulations.cli import main; main()", *arguments]
    environment = {**os.environ, "MARK": str(tmp_path), "FEDCOF_CACHE": str(tmp_path / "cache")}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def found(word):
        return [number for number, line in marked("MARK", tmp_path).items() if word in line]

    # The two that fork, and of each node a SuperNode and its SuperExec.
    assert until(lambda: len(found("nursery_processes")) >= 6, process)
    door = members_of_groups(found("nginx"))
    assert len(door) > 2 or not nginx_command()
    process.send_signal(signal.SIGINT)
    assert process.wait() != 0
    assert until(lambda: not marked("MARK", tmp_path)), marked("MARK", tmp_path)
    # What has written over its environment bears no mark.
    assert until(lambda: not any(map(is_running, door)))
