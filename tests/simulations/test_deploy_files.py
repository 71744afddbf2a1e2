"""The files in deploy/, as far as they can be checked, and the page on policies."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from clients.policy import POLICY_KEYS

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
POLICY_PAGE = (ROOT / "docs" / "policy.md").read_text(encoding="utf-8")

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
    unit = (DEPLOY / f"{name}.service").read_text(encoding="utf-8").partition("ExecStart=")[2]
    page = (DEPLOY / "compose.yaml").read_text(encoding="utf-8")
    compose = yaml.safe_load(page)["services"][name]
    file = (DEPLOY / f"Dockerfile.{name}").read_text(encoding="utf-8")
    entry = re.search(r"ENTRYPOINT (\[.*\])", file).group(1)
    used = [re.findall(r"--[a-z][a-z-]+", text) for text in (unit, " ".join(compose["command"]), entry)]
    assert set(used[0]) <= options
    assert set(used[1]) | set(used[2]) <= options
    assert used[0]
    assert " ".join(COMMANDS[name]) in unit
    assert all(f'"{word}"' in entry for word in COMMANDS[name])
    # The unit and the image start the same thing.
    assert set(used[0]) - {"--host", "--port"} == (set(used[1]) | set(used[2])) - {"--host", "--port"}
    assert (DEPLOY / compose["build"]["context"] / compose["build"]["dockerfile"]).resolve().is_file()


def settings_of(unit):
    """The settings of a unit's service; those that may be there several times, one after the other."""
    text = re.sub(r"\\\n\s*", "", (DEPLOY / f"{unit}.service").read_text(encoding="utf-8"))
    settings = {}
    for key, value in re.findall(r"^(\w+)=(.*)$", text, re.MULTILINE):
        settings[key] = f"{settings[key]} {value}" if key in settings else value
    return settings


def test_nobody_but_the_door_is_reached_from_outside():
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))["services"]
    assert "--host=127.0.0.1" in services["superlink"]["command"]
    # The same loopback, also after one of the two was started again alone.
    assert services["door"]["network_mode"] == services["superlink"]["network_mode"] == "host"
    assert "--host 127.0.0.1" in (DEPLOY / "superlink.service").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["superlink", "supernode", "door"])
def test_services_write_where_they_may_and_for_their_user_alone(name):
    settings = settings_of(name)
    folder = f"/var/lib/{settings['StateDirectory']}"
    assert (settings["UMask"], settings["StateDirectoryMode"], settings["ProtectSystem"]) == (
        "0077",
        "0700",
        "strict",
    )
    written = re.findall(
        r"/(?:var|home|srv|tmp|run)[\w/.-]*", settings["ExecStart"] + settings.get("Environment", "")
    )
    assert written
    assert all(f"{path}/".startswith(f"{folder}/") for path in written)


def test_a_superlink_finds_what_it_starts():
    settings = settings_of("superlink")
    path = re.search(r"\bPATH=(\S+)", settings["Environment"]).group(1)
    # Flower starts flower-superexec by its name.
    assert str(Path(settings["ExecStart"].split()[0]).parent) in path.split(":")


def test_volumes_have_folders_that_their_user_owns():
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
    for name in ("superlink", "supernode"):
        _, _, of_user = (DEPLOY / f"Dockerfile.{name}").read_text(encoding="utf-8").partition("USER fedcof")
        mounts = [volume.split(":") for volume in services["services"][name]["volumes"]]
        kept = [Path(mount[1]).name for mount in mounts if mount[0] in services["volumes"]]
        assert kept
        assert set(kept) <= set(re.search(r"RUN mkdir -m 700 ([a-z ]+)", of_user).group(1).split())


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="there is no systemd here")
@pytest.mark.parametrize("name", ["superlink", "supernode", "door"])
def test_systemd_takes_the_units(name, tmp_path):
    unit = (DEPLOY / f"{name}.service").read_text(encoding="utf-8")
    unit = re.sub(r"ExecStart=\S+", "ExecStart=/bin/true", unit)
    (tmp_path / f"{name}.service").write_text(unit)
    command = ["systemd-analyze", "verify", "--man=no", str(tmp_path / f"{name}.service")]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    complaints = [line for line in done.stderr.splitlines() if f"{name}.service" in line]
    assert not complaints


def test_the_page_on_policies_names_every_key():
    rows = [line for line in POLICY_PAGE.splitlines() if line.startswith("| `")]
    named = {key for row in rows for key in re.findall(r"`([a-z-]+)`", row.split("|")[1])}
    assert named == {*POLICY_KEYS, "name", "data", "encoder", "state", "weights"}


def test_containers_start_from_nothing_but_the_app():
    for name in ("superlink", "supernode"):
        lines = (DEPLOY / f"Dockerfile.{name}").read_text().splitlines()
        assert next(line.split()[0] for line in lines if line and not line.startswith("#")) == "FROM"
        assert "USER fedcof" in lines
    assert {"tests", "docs", "runs", ".git"} <= set((ROOT / ".dockerignore").read_text().split())
