"""Real SuperNodes that live and are deaf, after an HTTP 500 or an expired certificate, are started again."""

import shutil
import ssl
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from flwr.proto.fleet_pb2 import ActivateNodeResponse, PullMessagesResponse
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatResponse

from simulations import credentials, node_supervision
from simulations.credentials import write_certificates, write_node_key
from simulations.node_supervision import NodeSettings, run_node
from simulations.runtime import reserved_port

ON_PULL, ON_HEARTBEAT, EXPIRED = "500 to a pull", "500 to a heartbeat", "an expired certificate"

PULLS_BEFORE = 2


class Answers(BaseHTTPRequestHandler):
    """What a SuperLink says to its nodes, each of which has a fault of its own to bear."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        call = self.path.rpartition("/")[2]
        answer = b""
        if call == "activate-node":
            self.server.pulls = 0
            self.server.fault = self.server.faults.pop(0) if self.server.faults else ""
            answer = ActivateNodeResponse(node_id=7).SerializeToString()
        elif call == "send-node-heartbeat":
            answer = SendNodeHeartbeatResponse(success=True).SerializeToString()
        elif call == "pull-messages":
            answer = PullMessagesResponse().SerializeToString()
            self.server.pulls += 1
        # Until it has been seen to be connected, all is well.
        fault = self.server.fault
        if fault != ON_HEARTBEAT and self.server.pulls <= PULLS_BEFORE:
            fault = ""
        fails = (call, fault) in (("pull-messages", ON_PULL), ("send-node-heartbeat", ON_HEARTBEAT))
        if fails:
            self.server.fault = ""
        elif (call, fault) == ("pull-messages", EXPIRED):
            self.server.context, self.server.fault = self.server.expired, ""
            self.close_connection = True
        self.send_response(500 if fails else 200)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass


class SuperLink(ThreadingHTTPServer):
    """The transport of a SuperLink, whose certificate may be changed while it runs."""

    daemon_threads = True
    fault, pulls = "", 0

    def get_request(self):
        plain, address = super().get_request()
        return self.context.wrap_socket(plain, server_side=True, do_handshake_on_connect=False), address

    def handle_error(self, *_):
        pass


def context_of(folder):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.crt", folder / "server.key")
    return context


@contextmanager
def superlink(folder, monkeypatch, faults):
    write_certificates(folder / "good", ["127.0.0.1"])
    shutil.copytree(folder / "good", folder / "expired", ignore=shutil.ignore_patterns("server.*"))
    with monkeypatch.context() as patch:
        patch.setattr(credentials, "DAYS_OF_SERVER", -0.02)
        write_certificates(folder / "expired", ["127.0.0.1"])
    with SuperLink(("127.0.0.1", 0), Answers) as server:
        server.good, server.expired = context_of(folder / "good"), context_of(folder / "expired")
        server.context, server.faults = server.good, list(faults)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


class Whole(Exception):  # noqa: N818
    """The node has come back from all its faults."""


@pytest.mark.flower
def test_a_node_that_is_deaf_is_started_again(tmp_path, monkeypatch):
    write_node_key(tmp_path / "node.key")
    monkeypatch.setattr(node_supervision, "PAUSE_SECONDS", 0.1)
    monkeypatch.setattr(node_supervision, "LONGEST_SILENCE", 10.0**6)
    said = []
    with superlink(tmp_path, monkeypatch, [ON_PULL, EXPIRED, ON_HEARTBEAT]) as server, reserved_port() as port:

        def say(line):
            said.append(line)
            connected = "is connected" in line
            # A node that has been there and is not is deaf; until then it may take its time to start.
            node_supervision.LONGEST_SILENCE = 5.0 if connected or server.context is server.expired else 10.0**6
            if connected and not server.faults and server.fault != ON_HEARTBEAT and restarts(said) >= 3:
                raise Whole
            if "started again" in line and server.context is server.expired:
                # The certificate is renewed.
                server.context = server.good
                node_supervision.LONGEST_SILENCE = 10.0**6

        settings = NodeSettings(
            f"127.0.0.1:{server.server_address[1]}",
            tmp_path / "good" / "ca.crt",
            tmp_path / "node.key",
            {"name": "site", "data": str(tmp_path)},
            tmp_path / "home",
            port.getsockname()[1],
        )
        with pytest.raises(Whole):
            run_node(settings, say)
    assert sum("was not connected" in line for line in said) >= 2, said
    assert sum("has ended" in line for line in said) >= 1, said
    assert (tmp_path / "home" / "supernode.log").stat().st_mode & 0o077 == 0


def restarts(said):
    return sum("started again" in line for line in said)
