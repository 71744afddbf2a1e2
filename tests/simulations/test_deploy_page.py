"""docs/deploy.md, executed as it stands, on loopback; and the files in deploy/, as far as they can be checked."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from clients.policy import POLICY_KEYS
from fedcof.run.results import load_results
from simulations.door import nginx_command
from simulations.processes import stop_groups
from simulations.runtime import reserved_port
from tests.running import kill_groups, marked
from tests.waiting import until

ROOT = Path(__file__).parents[2]
POLICY_PAGE = (ROOT / "docs" / "policy.md").read_text(encoding="utf-8")
PAGE = (ROOT / "docs" / "deploy.md").read_text()
SITES = ["site-0", "site-1"]
NGINX = nginx_command()


def blocks():
    """Who is to run it, and what, in the page's order."""
    return re.findall(r"<!-- (server|door|node|server, for each node) -->\n```bash\n(.*?)```", PAGE, re.DOTALL)


def free_port():
    with reserved_port() as port:
        return str(port.getsockname()[1])


def bash(script, folder, environment):
    """Run a block as a person would, in one shell; what it leaves in the background goes on."""
    folder.mkdir(exist_ok=True)
    log = folder / "walk.log"
    with log.open("a") as file:
        command = ["bash", "-euo", "pipefail", "-c", script]
        settings = {"cwd": folder, "env": environment, "stdout": file, "stderr": file}
        # What it starts is then told from what runs this test.
        done = subprocess.run(command, check=False, start_new_session=True, **settings)
    assert done.returncode == 0, log.read_text()[-2000:]


def listens(port):
    try:
        socket.create_connection(("127.0.0.1", int(port)), timeout=1).close()
    except OSError:
        return False
    return True


@pytest.fixture
def walk(tmp_path):
    environment = {key: value for key, value in os.environ.items() if key != "FLWR_HOME"}
    environment |= {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    environment |= {
        "ADDRESS": "127.0.0.1",
        "PORT": free_port(),
        "INNER_PORT": free_port(),
        "NODES": "2",
    }
    environment |= {"FEDCOF_CACHE": str(tmp_path / "cache"), "NO_PROXY": "127.0.0.1", "APP": str(ROOT)}
    yield environment
    stop_groups(tmp_path / "server" / "flower")
    if (pid := tmp_path / "server" / "nginx.pid").exists():
        os.kill(int(pid.read_text()), signal.SIGTERM)
    for site in SITES:
        # First who would start the SuperNode again.
        kill_groups(marked("FEDCOF_CACHE", tmp_path / site / "features"))


def open_door(script, server, walk, sites):
    if NGINX:
        bash(script, server, walk | {"PATH": f"{walk['PATH']}{os.pathsep}{Path(NGINX).parent}"})
        assert until(lambda: listens(walk["PORT"]))
        return
    # The nodes then call the SuperLink itself, which the page tells nobody to do.
    for environment in sites.values():
        environment["PORT"] = walk["INNER_PORT"]


@pytest.mark.flower
def test_the_page_is_true_from_top_to_bottom(walk, tmp_path):
    generator = np.random.default_rng(0)
    sites = {}
    for number, site in enumerate(SITES):
        for shade, name in enumerate(("benign", "malignant")):
            folder = tmp_path / "images" / site / name
            folder.mkdir(parents=True)
            for i in range(6):
                pixels = generator.integers(0, 120, (32, 32, 3)) + 130 * shade
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number}-{i}.png")
        sites[site] = walk | {"SITE": site, "DATA": str(tmp_path / "images" / site), "NODE_PORT": free_port()}
    server = tmp_path / "server"
    walk["TEST_DATA"] = str(tmp_path / "images" / SITES[0])
    for who, script in blocks():
        if who == "server":
            # A new shell has not what an earlier one exported.
            bash(f'export FLWR_HOME="$PWD/flower"\n{script}', server, walk)
            assert until(lambda: listens(walk["INNER_PORT"]))
        if who == "door":
            open_door(script, server, walk, sites)
        for site, environment in sites.items():
            if who == "server, for each node":
                shutil.copy(tmp_path / site / "node.key.pub", server / f"{site}.pub")
                exported = f'export FLWR_HOME="$PWD/flower"\n{script}'
                bash(exported, server, walk | {"PUBLIC_KEY": f"{site}.pub"})
            if who == "node":
                (tmp_path / site).mkdir(exist_ok=True)
                shutil.copy(server / "secrets" / "ca.crt", tmp_path / site)
                bash(script, tmp_path / site, environment)
    first, again = load_results(server / "results")
    assert [(node.name, node.outcome, node.samples) for node in first.nodes] == [
        (site, "accepted", 12) for site in SITES
    ]
    assert first.accuracy > 0.9
    assert (again.config["head"], again.config["shrinkage"], again.clients) == ("lda", "ledoit-wolf", 2)
    assert "what became of it" in (server / "results" / "report.html").read_text()


COMMANDS = {"superlink": ["flower-superlink"], "supernode": ["fedcof", "node"]}


def options_of(command):
    said = subprocess.run(
        [Path(sys.executable).parent / command[0], *command[1:], "--help"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "COLUMNS": "200"},
    )
    return set(re.findall(r"--[a-z][a-z-]+", said.stdout))


@pytest.mark.parametrize("name", ["superlink", "supernode"])
def test_units_and_images_use_options_that_there_are(name):
    options = options_of(COMMANDS[name])
    unit = (ROOT / "deploy" / f"{name}.service").read_text(encoding="utf-8").partition("ExecStart=")[2]
    page = (ROOT / "deploy" / "compose.yaml").read_text(encoding="utf-8")
    compose = yaml.safe_load(page)["services"][name]
    file = (ROOT / "deploy" / f"Dockerfile.{name}").read_text(encoding="utf-8")
    entry = re.search(r"ENTRYPOINT (\[.*\])", file).group(1)
    used = [re.findall(r"--[a-z][a-z-]+", text) for text in (unit, " ".join(compose["command"]), entry)]
    assert set(used[0]) <= options
    assert set(used[1]) | set(used[2]) <= options
    assert used[0]
    assert " ".join(COMMANDS[name]) in unit
    assert all(f'"{word}"' in entry for word in COMMANDS[name])
    # The unit and the image start the same thing.
    assert set(used[0]) - {"--host", "--port"} == (set(used[1]) | set(used[2])) - {"--host", "--port"}
    assert (ROOT / "deploy" / compose["build"]["context"] / compose["build"]["dockerfile"]).resolve().is_file()


def test_nobody_but_the_door_is_reached_from_outside():
    services = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text(encoding="utf-8"))["services"]
    assert "--host=127.0.0.1" in services["superlink"]["command"]
    assert services["door"]["network_mode"] == "service:superlink"
    assert "--host 127.0.0.1" in (ROOT / "deploy" / "superlink.service").read_text(encoding="utf-8")


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="there is no systemd here")
@pytest.mark.parametrize("name", ["superlink", "supernode", "door"])
def test_systemd_takes_the_units(name, tmp_path):
    unit = (ROOT / "deploy" / f"{name}.service").read_text(encoding="utf-8")
    unit = re.sub(r"ExecStart=\S+", "ExecStart=/bin/true", unit)
    (tmp_path / f"{name}.service").write_text(unit)
    command = ["systemd-analyze", "verify", "--man=no", str(tmp_path / f"{name}.service")]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    complaints = [line for line in done.stderr.splitlines() if f"{name}.service" in line]
    assert not complaints


def test_the_page_on_policies_names_every_key():
    rows = [line for line in POLICY_PAGE.splitlines() if line.startswith("| `")]
    named = {key for row in rows for key in re.findall(r"`([a-z-]+)`", row.split("|")[1])}
    assert named == {*POLICY_KEYS, "name", "data", "state", "weights"}


def test_containers_start_from_nothing_but_the_app():
    for name in ("superlink", "supernode"):
        lines = (ROOT / "deploy" / f"Dockerfile.{name}").read_text().splitlines()
        assert next(line.split()[0] for line in lines if line and not line.startswith("#")) == "FROM"
        assert "USER fedcof" in lines
    assert {"tests", "docs", "runs", ".git"} <= set((ROOT / ".dockerignore").read_text().split())
