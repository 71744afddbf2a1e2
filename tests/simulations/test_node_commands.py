"""The commands for nodes and servers: what is checked, and a SuperNode that is watched from outside."""

import os
import socket
import ssl
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path

import numpy as np
import psutil
import pytest

from fedcof.errors import UserError
from simulations import node_checks, node_commands, node_supervision
from simulations.credentials import write_certificates, write_node_key
from simulations.node_checks import check_node, check_server
from simulations.node_commands import node_config_of
from simulations.node_supervision import NodeSettings, is_connected, watch

NOWHERE = Path("nowhere")


@contextmanager
def tls_server(folder, ahead=0.0):
    """Answer every request with a date, over TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.crt", folder / "server.key")
    listening = socket.create_server(("127.0.0.1", 0))
    over = threading.Event()

    def serve():
        while not over.is_set():
            try:
                plain, _ = listening.accept()
                with context.wrap_socket(plain, server_side=True) as secured:
                    if secured.recv(1000):
                        date = format_datetime(datetime.fromtimestamp(time.time() + ahead, UTC), usegmt=True)
                        secured.sendall(f"HTTP/1.1 200 OK\r\nDate: {date}\r\nContent-Length: 0\r\n\r\n".encode())
            except OSError:
                continue

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield f"127.0.0.1:{listening.getsockname()[1]}"
    finally:
        over.set()
        listening.close()


@pytest.fixture(scope="module")
def secrets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("secrets")
    write_certificates(folder, ["fl.hospital.example"])
    write_node_key(folder / "node.key")
    return folder


@pytest.fixture
def data(tmp_path):
    for name in ("a", "b"):
        (tmp_path / "data" / name).mkdir(parents=True)
    return tmp_path / "data"


def wrong(checks):
    return {check.what: check.said for check in checks if not check.is_right}


def test_all_that_a_node_needs_is_right(secrets, data, tmp_path):
    config = {"name": "site", "data": str(data), "state": str(tmp_path / "state")}
    with tls_server(secrets) as address:
        checks = list(check_node(address, secrets / "ca.crt", secrets / "node.key", config))
    assert wrong(checks) == {}
    assert [check.what for check in checks] == [
        "policy",
        "data",
        "key",
        "disk",
        "address",
        "port",
        "certificate",
        "clock",
    ]


def data_of(config):
    return next(
        check for check in check_node("no.such.host.invalid:1", NOWHERE, NOWHERE, config) if check.what == "data"
    )


def test_features_are_looked_at_as_a_run_would(tmp_path):
    np.save(tmp_path / "features.npy", np.ones((5, 3), np.float32))
    np.save(tmp_path / "labels.npy", ["a", "b", "a", "a", "b"])
    config = {"name": "site", "data": str(tmp_path), "encoder": "acme 2"}
    assert data_of(config).said == "5 features of acme 2 in 3 dimensions, 2 classes"
    del config["encoder"]
    assert "There are features at" in data_of(config).said
    assert "declare what computed them with -n encoder=VALUE" in data_of(config).said
    assert "200 printable characters" in data_of({**config, "encoder": " "}).said
    np.save(tmp_path / "labels.npy", ["a"])
    assert "its features have 5 samples" in data_of({**config, "encoder": "acme 2"}).said
    assert node_config_of(["name=a", f"data={tmp_path}", "encoder=x=1"])["encoder"] == "x=1"


@pytest.mark.parametrize(("ahead", "said"), [(-60, "ahead of"), (400, "behind")])
def test_a_clock_that_the_server_would_not_let_in(secrets, ahead, said):
    with tls_server(secrets, ahead) as address:
        found = wrong(check_node(address, secrets / "ca.crt", secrets / "node.key", {}))
    assert said in found["clock"]
    assert "run NTP" in found["clock"]


def test_a_server_of_another_authority_is_not_believed(secrets, tmp_path):
    write_certificates(tmp_path, ["127.0.0.1"])
    with tls_server(secrets) as address:
        found = wrong(check_node(address, tmp_path / "ca.crt", secrets / "node.key", {}))
    assert "does not hold for 127.0.0.1" in found["certificate"]


def test_what_is_wrong_says_what_to_do(secrets, data, tmp_path, monkeypatch):
    key = tmp_path / "open.key"
    key.write_bytes((secrets / "node.key").read_bytes())
    key.chmod(0o644)
    config = {"name": "site", "data": str(tmp_path / "nowhere"), "smallest-count": "none"}
    monkeypatch.setattr(node_checks, "LEAST_FREE", 10**18)
    found = wrong(check_node("no.such.host.invalid:9092", tmp_path / "ca.crt", key, config))
    assert "chmod 600" in found["key"]
    assert "name a folder" in found["data"]
    assert "whole number" in found["policy"]
    assert "make room" in found["disk"]
    assert "has no address" in found["address"]
    for address in ("host", "https://host:1", "host:0", "host:99999", ":1"):
        assert "HOST:PORT" in wrong(check_node(address, tmp_path / "x", key, config))["address"]
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    assert "Nothing answers" in wrong(check_node(f"127.0.0.1:{port}", tmp_path / "x", key, config))["port"]


def test_a_server_keeps_its_authority_elsewhere_and_its_certificate_has_the_name(secrets, tmp_path):
    found = wrong(check_server(secrets, "other.example:9092"))
    assert "keep it on a machine that is offline" in found["authority's key"]
    assert "not for other.example" in found["certificate file"]
    for name in ("ca.crt", "server.crt", "server.key"):
        (tmp_path / name).write_bytes((secrets / name).read_bytes())
        (tmp_path / name).chmod(0o600)
    with tls_server(secrets) as address:
        assert wrong(check_server(tmp_path, address)) == {}
    assert (
        "There is no server's certificate" in wrong(check_server(tmp_path / "nowhere", "a:1"))["certificate file"]
    )


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (["name=a"], "The node has no data"),
        (["data=x"], "The node has no name"),
        (["name=a", "data=x", "smalest-count=3"], "Unknown key of a node 'smalest-count'"),
        (["name=a", "data="], "has no value"),
        (["name"], "has no value"),
    ],
)
def test_a_node_config_that_is_none_is_one_sentence(settings, sentence):
    with pytest.raises(UserError, match=sentence):
        node_config_of(settings)


def test_places_in_a_node_config_are_where_the_owner_stands(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = node_config_of(["name=a", "data=images", "state=~/s", "smallest-count=7"])
    assert config["data"] == str(tmp_path / "images")
    assert config["state"].endswith("/s")
    assert "~" not in config["state"]
    assert config["smallest-count"] == "7"


def test_values_of_a_node_config_are_quoted_for_flower(tmp_path):
    command = NodeSettings("a:1", tmp_path, tmp_path, {"name": 'the "x" \\ y'}).command()
    assert command[command.index("--node-config") + 1] == 'name="the \\"x\\" \\\\ y"'
    with pytest.raises(UserError, match="more than one line"):
        NodeSettings("a:1", tmp_path, tmp_path, {"name": "a\nb"}).command()


def test_a_node_is_watched_without_what_only_its_answers_need(tmp_path, monkeypatch):
    settings = NodeSettings("a:1", tmp_path / "ca", tmp_path / "key", {"name": "é", "x": "1"}, tmp_path, 9)
    assert NodeSettings.from_json(settings.to_json()) == settings
    imported = "import sys, simulations.node_supervision; print('torch' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", imported], text=True) == "False\n"
    (tmp_path / "ca").touch()
    (tmp_path / "key").touch()
    became = []
    monkeypatch.setattr(os, "execv", lambda *command: became.append(command))
    node_commands.run(
        "a:1", tmp_path / "ca", tmp_path / "key", ["name=s", f"data={tmp_path}", f"state={tmp_path}"], 9
    )
    ((program, words),) = became
    assert (program, words[1:4]) == (sys.executable, ["-P", "-m", "simulations.node_supervision"])
    config = {"name": "s", "data": str(tmp_path), "state": str(tmp_path)}
    home = tmp_path / "s" / "flower"
    assert NodeSettings.from_json(words[4]) == NodeSettings(
        "a:1", tmp_path / "ca", tmp_path / "key", config, home, 9
    )


CONNECTING = """
import socket, sys, time
kept = socket.create_connection(("127.0.0.1", int(sys.argv[1]))) if sys.argv[1] != "0" else None
print("up", flush=True)
time.sleep(1000)
"""


def test_a_connection_is_seen_from_outside():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        command = [sys.executable, "-c", CONNECTING, str(port)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout.readline() == b"up\n"
            seen = psutil.Process(process.pid)
            assert is_connected(seen, f"localhost:{port}")
            assert not is_connected(seen, f"localhost:{port + 1 if port < 65535 else port - 1}")
            assert not is_connected(seen, "no.such.host.invalid:1")
            process.kill()


def test_a_process_that_lives_and_is_deaf_is_found_out(monkeypatch):
    monkeypatch.setattr(node_supervision, "LONGEST_SILENCE", 0.2)
    monkeypatch.setattr(node_supervision, "LOOK_SECONDS", 0.01)
    with subprocess.Popen([sys.executable, "-c", CONNECTING, "0"], stdout=subprocess.PIPE) as process:
        assert "was not connected" in watch(process, "127.0.0.1:1", lambda line: None)
        process.kill()
        process.wait()
        assert "has ended" in watch(psutil_like(process), "127.0.0.1:1", lambda line: None)


def psutil_like(process):
    """The process that runs this test, said to be dead."""

    class Dead:
        pid = psutil.Process().pid

        @staticmethod
        def is_running():
            return False

    return Dead


@pytest.mark.parametrize(
    "name",
    [
        "https://fl.example",
        "fl.example:9092",
        "fl.example/path",
        "über.example",
        "",
        "a b",
        "-x",
        "x" * 300,
        "a..b",
    ],
)
def test_a_name_that_no_certificate_holds_is_refused(tmp_path, name):
    with pytest.raises(UserError, match="without https, port or path"):
        write_certificates(tmp_path / "secrets", ["fl.example", name])
    assert not (tmp_path / "secrets").exists()
