"""A simulation on a Ray cluster that runs already, and on one that does not."""

import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from fedcof.run.results import load_results
from tests.waiting import until

TINY = ("-c", "backbone=test_efficientnet", "-c", "weights=none", "-c", "image-size=32", "-c", "partition=iid")


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def answers(address):
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=1).close()
    except OSError:
        return False
    return True


@pytest.fixture
def cluster():
    """Start Ray as its users do; gives its address and its folder."""
    address = f"127.0.0.1:{free_port()}"
    with tempfile.TemporaryDirectory(dir="/tmp", ignore_cleanup_errors=True) as folder:
        command = [str(Path(sys.executable).parent / "ray"), "start", "--head", "--block", "--num-cpus=2"]
        command += ["--node-ip-address=127.0.0.1", f"--port={address.rpartition(':')[2]}", f"--temp-dir={folder}"]
        command += ["--include-dashboard=false"]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as ray:
            try:
                assert until(lambda: answers(address), ray)
                yield address, Path(folder) / "session_latest"
            finally:
                ray.terminate()


@pytest.mark.flower
def test_an_existing_cluster_is_used_and_left_running(fedcof, image_folder, tmp_path, cluster):
    address, session = cluster
    assert not list(session.glob("logs/python-core-driver-*"))
    settings = (
        "-c",
        f"dataset=folder:{image_folder}",
        "-c",
        "num-clients=4",
        *TINY,
        "-c",
        f"ray-address={address}",
    )
    assert fedcof("simulate", *settings, "--output", tmp_path / "run") == (0, "")
    (result,) = load_results(tmp_path / "run")
    assert result.clients == 4
    # Ray keeps a log for every program that has used it.
    assert len(list(session.glob("logs/python-core-driver-*"))) == 1
    assert answers(address)
    assert not [path for path in (tmp_path / "run").iterdir() if path.name.startswith(".")]


def test_a_cluster_that_does_not_answer_is_one_sentence(fedcof, image_folder, tmp_path):
    address = f"127.0.0.1:{free_port()}"
    settings = (
        "-c",
        f"dataset=folder:{image_folder}",
        "-c",
        "num-clients=4",
        *TINY,
        "-c",
        f"ray-address={address}",
    )
    status, message = fedcof("simulate", *settings, "--output", tmp_path / "run")
    assert status == 2
    assert f"No Ray cluster answers at {address}" in message
    assert message.strip().count("\n") == 0


@pytest.mark.flower
def test_more_than_the_machine_has_is_one_sentence(fedcof, image_folder, tmp_path):
    cores = (os.cpu_count() or 1) + 1
    settings = ("-c", f"dataset=folder:{image_folder}", "-c", "num-clients=4", *TINY, "-c", f"num-cpus={cores}")
    status, message = fedcof("simulate", *settings, "--output", tmp_path / "run")
    assert status == 2
    assert f"each was to get {cores} CPU cores" in message
    assert "num-cpus" in message
