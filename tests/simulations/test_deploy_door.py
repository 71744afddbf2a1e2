"""The door of a federation, deploy/nginx.conf: nodes come through it, and nobody runs code through it."""

import http.client
import ssl
import subprocess

import numpy as np
import pytest
import tomli_w
from PIL import Image

from fedcof.run.results import load_results
from simulations.bundle import stage_app
from simulations.deployment import local_federation
from simulations.door import nginx_command
from simulations.runtime import flower_command
from simulations.submission import run_app
from tests.waiting import until

NGINX = nginx_command()
pytestmark = pytest.mark.skipif(not NGINX, reason="there is no nginx here")
HOUR = 3600.0


@pytest.fixture
def door(tmp_path):
    """A SuperLink on loopback, and nginx before it; gives the federation, whose nodes call nginx."""
    with local_federation(tmp_path / "server") as federation:
        federation.open_door(NGINX)
        assert until(lambda: status(federation, "GET", "/health") == 200, federation.connection.processes[-1])
        yield federation


def status(federation, method, path):
    host, _, port = federation.door.partition(":")
    context = ssl.create_default_context(cafile=federation.connection.certificates)
    connection = http.client.HTTPSConnection(host, int(port), context=context, timeout=30)
    try:
        connection.request(method, path, body=b"" if method == "POST" else None)
        return connection.getresponse().status
    except OSError:
        return None
    finally:
        connection.close()


def attacker(federation, tmp_path):
    """A Flower home of somebody who has ca.crt, and calls the door."""
    home = tmp_path / "attacker"
    home.mkdir()
    entry = {"address": federation.door, "root-certificates": str(federation.connection.certificates)}
    (home / "config.toml").write_text(tomli_w.dumps({"superlink": {"door": entry}}), encoding="utf-8")
    return {**federation.connection.environment, "FLWR_HOME": str(home)}


def tried(environment, *command):
    done = subprocess.run(
        [flower_command(command[0]), *command[1:]], env=environment, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.flower
def test_nodes_come_through_the_door_and_nobody_else_does_anything(door, tmp_path):
    generator = np.random.default_rng(0)
    for shade, name in enumerate(("dark", "bright")):
        folder = tmp_path / "images" / name
        folder.mkdir(parents=True)
        for number in range(6):
            pixels = generator.integers(0, 100, (32, 32, 3)) + 150 * shade
            Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number}.png")

    # With ca.crt and nothing else: run an app of one's own, register a node of one's own, take a run's place.
    environment = attacker(door, tmp_path)
    app = stage_app(tmp_path / "app")
    code, said = tried(environment, "flwr", "run", str(app), "door")
    assert code != 0, said
    public = door.new_key("stranger", register=False).with_suffix(".key.pub")
    code, said = tried(environment, "flwr", "supernode", "register", str(public), "door")
    assert code != 0, said
    for path in ("control/start-run", "runtime/acquire-task", "runtime/pull-task-input", "runtime/push-messages"):
        assert status(door, "POST", f"/v1/{path}") == 403
    for path in ("/", "/docs", "/openapi.json", "/v1/", "/v1/fleet", "/v1/fleet/../control/start-run"):
        assert status(door, "GET", path) in (403, 301, 404)
    listed = subprocess.run(
        [flower_command("flwr"), "ls", door.connection.name, "--format", "json"],
        env=door.connection.environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert '"runs": []' in listed.stdout

    # The server's bundle would read the node's secrets; the node answers with its own installation's app.
    stolen = tmp_path / "stolen"
    with (app / "clients" / "client_app.py").open("a", encoding="utf-8") as file:
        file.write(f"\nopen({str(stolen)!r}, 'w').close()\n")
    own = {"data": str(tmp_path / "images"), "state": str(tmp_path / "state")}
    door.start_node("site-0", door.new_key("site-0"), own)
    values = {"backbone": "test_efficientnet", "weights": "none", "image-size": 32, "dataset": "nodes"}
    values |= {"classes": "dark,bright", "num-clients": 1, "output": str(tmp_path / "out"), "node-timeout": HOUR}
    values |= {"test-data": str(tmp_path / "images"), "shrinkage": 0.1}
    run_app(door.connection, app, values, None, lambda line: None)
    (result,) = load_results(tmp_path / "out")
    assert [(node.name, node.outcome, node.samples) for node in result.nodes] == [("site-0", "accepted", 12)]
    assert result.accuracy == 1.0
    assert not stolen.exists()
