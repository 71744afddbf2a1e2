"""docs/deploy.md, executed as it stands: by hosts in namespaces, by name, where Linux lets us make them."""

import csv
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import repeat
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from fedcof.data.problem import dataset_of
from fedcof.data.virtual_clients import client_indices
from fedcof.run.config import RunConfig
from fedcof.run.results import load_results
from simulations.bundle import stage_app
from simulations.door import nginx_command
from simulations.runtime import reserved_port
from tests.simulations.hosts import SEEN, Namespace, folders, namespaces, why_not
from tests.waiting import until

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")
NGINX = nginx_command()

# What somebody with ca.crt tries: an app of his own, a key of his own, and each way past the nodes' interface.
ATTACK = """
ADDRESS=${ADDRESS:-fl.hospital.example} PORT=${PORT:-9092}
fedcof node-key stranger.key
export FLWR_HOME=$PWD/attacker
mkdir "$FLWR_HOME"
cat > attacker/config.toml <<END
[superlink.door]
address = "$ADDRESS:$PORT"
root-certificates = "$PWD/ca.crt"
END
if flwr run "$APP" door || flwr supernode register stranger.key.pub door; then exit 1; fi
python - "$ADDRESS" "$PORT" > attacks <<END
import http.client, ssl, sys
calls = ("control/start-run", "runtime/acquire-task", "runtime/pull-task-input", "runtime/push-messages")
paths = ("/", "/docs", "/openapi.json", "/v1/", "/v1/fleet", "/v1/fleet/../control/start-run")
for method, path in [*(("POST", f"/v1/{call}") for call in calls), *(("GET", path) for path in paths)]:
    context = ssl.create_default_context(cafile="ca.crt")
    connection = http.client.HTTPSConnection(sys.argv[1], int(sys.argv[2]), context=context)
    connection.request(method, path)
    print(method, connection.getresponse().status, path)
END
"""

# A node with data of its own draws groups and rounding in secret: only without them is all the simulation's.
SAME_UPLOADS = {"upload": "paper"}


def blocks():
    """Who is to run it, and what, in the page's order."""
    return re.findall(r"<!-- (server|door|node|server, for each node) -->\n```bash\n(.*?)```", PAGE, re.DOTALL)


def free_port():
    with reserved_port() as port:
        return str(port.getsockname()[1])


def whole_environment():
    """What a shell starts with: nothing of the page's, and no proxy, since all is within reach."""
    kept = {
        key: value for key, value in os.environ.items() if key != "FLWR_HOME" and not key.lower().endswith("_proxy")
    }
    return kept | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}{os.pathsep}/usr/sbin"}


@pytest.fixture(params=["namespaces", "loopback"])
def federation(request, tmp_path):
    """The hosts, and what each one's shells know."""
    reason = why_not()
    if request.param == "namespaces" and reason:
        pytest.skip(reason)
    if request.param == "loopback" and not reason:
        pytest.skip("hosts in namespaces show the same, and more")
    apart = request.param == "namespaces"
    with (namespaces if apart else folders)(tmp_path / "hosts") as hosts:
        environments = {}
        for name, host in hosts.items():
            own = {"SITE": name, "NODES": "3", "FEDCOF_CACHE": str(host.folder / "cache")}
            own |= {"DATA": str(host.folder / "images.csv"), "APP": str(tmp_path / "checkout")}
            environments[name] = whole_environment() | own
        if not apart:
            shared = {"ADDRESS": "127.0.0.1", "PORT": free_port(), "INNER_PORT": free_port()}
            environments = {
                name: environment | shared | {"NODE_PORT": free_port()}
                for name, environment in environments.items()
            }
        yield hosts, environments


@pytest.fixture
def checkout(tmp_path):
    """The server's checkout, whose app would write a file on each node that ran it."""
    folder, stolen = tmp_path / "checkout", tmp_path / "stolen"
    shutil.move(stage_app(tmp_path / "staged", SAME_UPLOADS), folder)
    shutil.copytree(ROOT / "deploy", folder / "deploy")
    with (folder / "clients" / "client_app.py").open("a", encoding="utf-8") as file:
        file.write(f"\nopen({str(stolen)!r}, 'w').close()\n")
    return stolen


@pytest.fixture
def images(tmp_path):
    """Sixty training and eight test images of two classes."""
    generator = np.random.default_rng(0)
    for split, count in (("train", 30), ("test", 4)):
        for shade, name in enumerate(("benign", "malignant")):
            folder = tmp_path / "images" / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = generator.integers(0, 180, (32, 32, 3)) + 70 * shade
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{i:02d}.png")
    return tmp_path / "images"


@pytest.fixture
def simulated(images, tmp_path):
    """The simulation of the same federation, which goes on meanwhile: its settings, its process and its folder."""
    settings = {"dataset": f"folder:{images}", "num-clients": 3, "partition": "iid", "feature-cache": False}
    settings |= SAME_UPLOADS
    words = [
        word
        for key, value in settings.items()
        for word in ("-c", f"{key}={str(value).lower() if value is False else value}")
    ]
    output = tmp_path / "simulated"
    command = [Path(sys.executable).parent / "fedcof", "simulate", *words, "-o", output]
    with (tmp_path / "simulation.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    yield RunConfig.from_mapping(settings), process, output
    process.terminate()
    process.wait()


def deal(images, config, sites):
    """Copy to each site the images of a client of the simulation, in its order, with a table of them."""
    dataset, parts = dataset_of(config), client_indices(config)
    files = dataset.train.with_format(None).cast_column("image", datasets.Image(decode=False))
    for site, part in zip(sites, parts, strict=True):
        with (site.seen / "images.csv").open("w", newline="") as table:
            rows = csv.writer(table)
            rows.writerow(["path", "label"])
            for index in part:
                image = files[int(index)]
                path = Path(image["image"]["path"]).relative_to(images)
                (site.seen / path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(images / path, site.seen / path)
                rows.writerow([path, dataset.class_names[image["label"]]])


def attacks_fail(site, environment):
    """Try what somebody with ca.crt might, from a site and by its name for the server."""
    site.bash(ATTACK, environment)
    answers = [line.split()[:2] for line in (site.seen / "attacks").read_text().splitlines()]
    assert [status for method, status in answers if method == "POST"] == ["403"] * 4
    assert {status for _, status in answers} <= {"403", "301", "404"}


def rows_of(table, server, folder):
    # SQLite follows the path of another host to a file of this one.
    for file in server.seen.glob("state.db*"):
        shutil.copy(file, folder)
    with closing(sqlite3.connect(folder / "state.db")) as database:
        return database.execute(f"select count(*) from {table}").fetchone()[0]


def run_at(host, script, environments):
    host.bash(script, environments[host.name])


def walk(hosts, environments, scratch):
    """Run each block where it belongs, in a shell of its own, and carry the files that the page says to send."""
    server, *sites = hosts.values()
    inner = environments["server"].get("INNER_PORT", 9093)
    together = ThreadPoolExecutor(len(sites))
    for who, script in blocks():
        if who == "server":
            server.bash(script, environments["server"])
            assert until(lambda: server.listens(inner))
        elif who == "door":
            for site in sites:
                shutil.copy(server.seen / "secrets" / "ca.crt", site.seen)
                # Without nginx nodes call the SuperLink itself, which the page tells nobody to do.
                environments[site.name] |= {} if NGINX else {"PORT": str(inner)}
            if NGINX:
                server.bash(script, environments["server"])
                attacks_fail(sites[0], environments[sites[0].name])
                assert rows_of("run", server, scratch) == rows_of("node", server, scratch) == 0
        elif who == "server, for each node":
            for site in sites:
                shutil.copy(site.seen / "node.key.pub", server.seen / f"{site.name}.pub")
                server.bash(script, environments["server"] | {"PUBLIC_KEY": f"{site.name}.pub"})
        elif who == "node":
            list(together.map(run_at, sites, repeat(script), repeat(environments)))
    together.shutdown()


@pytest.mark.flower
def test_the_page_is_true_from_top_to_bottom(federation, checkout, images, simulated, tmp_path):
    hosts, environments = federation
    config, simulation, simulated_output = simulated
    server, *sites = hosts.values()
    deal(images, config, sites)
    shutil.copytree(images / "test", server.seen / "test")
    environments["server"]["TEST_DATA"] = str(server.folder / "test")
    # What an earlier run left is no word on this one.
    (server.seen / "results").mkdir()
    (server.seen / "results" / "failure.txt").write_text("stale")
    walk(hosts, environments, tmp_path)
    if isinstance(server, Namespace):
        assert until(lambda: server.peers(9092) == set(SEEN.values())), server.peers(9092)
    first, again = load_results(server.seen / "results")
    assert [(node.name, node.outcome, node.samples) for node in first.nodes] == [
        (site.name, "accepted", 20) for site in sites
    ]
    assert simulation.wait() == 0, (tmp_path / "simulation.log").read_text()[-2000:]
    (expected,) = load_results(simulated_output)
    heads = [load_file(path / "head.safetensors") for path in (simulated_output, server.seen / "results")]
    assert heads[0].keys() == heads[1].keys()
    # The last bits of a class's own directions are those of the number of threads.
    for name, array in heads[0].items():
        torch.testing.assert_close(array, heads[1][name], rtol=1e-5, atol=1e-6)
    assert first.accuracy == expected.accuracy
    assert (again.config["head"], again.config["shrinkage"], again.clients) == ("lda", "ledoit-wolf", 3)
    assert "what became of it" in (server.seen / "results" / "report.html").read_text()
    assert not checkout.exists()
