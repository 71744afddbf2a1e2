"""A node that stays connected: Flower's SuperNode with the node's own app, watched from outside."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NoReturn

import psutil

from clients.own_commands import SUPERNODE, path_with_commands
from fedcof.errors import UserError
from fedcof.files import nobody_else, private_folder
from fedcof.keys import Scalar
from fedcof.printable import printable
from simulations.processes import signals_ignored, signals_raise, stop
from simulations.runtime import flower_environment
from simulations.terminal import say

# A SuperNode asks its SuperLink for messages every few seconds; one without a connection for so long is deaf.
LONGEST_SILENCE = 120.0
# Started again sooner it is turned away, until the SuperLink has noticed that it was gone.
PAUSE_SECONDS = 30.0
LOOK_SECONDS = 1.0

# Flower's exit code for a key that the SuperLink does not know.
UNKNOWN_KEY = 2004


@dataclass(frozen=True)
class NodeSettings:
    """What a SuperNode is started with.

    Attributes
    ----------
    superlink : str
        HOST:PORT of the server.
    authority, key : Path
        The authority's certificate, and the node's private key.
    node_config : mapping of str to bool, int, float or str
        Name, data, state and policy.
    home : Path
        Folder for Flower's own files, and the log.
    port : int
        Port on loopback, of the node's own.
    """

    superlink: str
    authority: Path
    key: Path
    node_config: Mapping[str, Scalar] = field(default_factory=dict)
    home: Path = Path()
    port: int = 9094

    @property
    def commands(self) -> Path:
        """Folder of the node's own commands in place of Flower's."""
        return self.home / "commands"

    def command(self) -> list[str]:
        """Write the command that starts the SuperNode."""
        config = " ".join(f"{key}={_quoted(value)}" for key, value in self.node_config.items())
        return [
            SUPERNODE,
            *("--superlink", self.superlink),
            *("--root-certificates", str(self.authority)),
            *("--auth-supernode-private-key", str(self.key)),
            *("--host", "127.0.0.1", "--port", str(self.port)),
            *("--node-config", config),
        ]

    def to_json(self) -> str:
        """Write the settings on one line."""
        return json.dumps(asdict(self), default=str)

    @staticmethod
    def from_json(text: str) -> NodeSettings:
        """Read what :meth:`to_json` has written."""
        values = json.loads(text)
        return NodeSettings(**{**values, **{name: Path(values[name]) for name in ("authority", "key", "home")}})


def become_supervision(settings: NodeSettings) -> NoReturn:
    """Run a node until it is interrupted, in a new program that keeps this process's number.

    Parameters
    ----------
    settings : NodeSettings
        What with.
    """
    # Apart from the folder that it is started in.
    os.execv(sys.executable, [sys.executable, "-P", "-m", "simulations.node_supervision", settings.to_json()])


def run_node(settings: NodeSettings, say: Callable[[str], None] = say) -> None:
    """Run a node until it is interrupted.

    Parameters
    ----------
    settings : NodeSettings
        What with.
    say : callable
        Called with a line whenever something changes; prints it by default.

    Raises
    ------
    UserError
        If a value has more than one line.
    """
    with nobody_else():
        _run_supervised(settings, say)


def _run_supervised(settings: NodeSettings, say: Callable[[str], None]) -> None:
    private_folder(settings.home)
    environment = flower_environment(settings.home)
    environment["PATH"] = path_with_commands(settings.commands, environment["PATH"])
    home = Path(environment["FLWR_HOME"])
    with signals_raise():
        while True:
            process = _start(settings, environment)
            try:
                reason = watch(process, settings.superlink, say)
            finally:
                with signals_ignored():
                    stop([process], home)
            if process.returncode == UNKNOWN_KEY % 256:
                say("The server may not know this node's key yet: send it the file that ends in .pub.")
            say(f"{reason}; it is started again in {PAUSE_SECONDS:g} seconds.")
            time.sleep(PAUSE_SECONDS)


def watch(process: subprocess.Popen[str] | psutil.Process, superlink: str, say: Callable[[str], None]) -> str:
    """Watch a SuperNode from outside.

    Parameters
    ----------
    process : subprocess.Popen or psutil.Process
        The SuperNode.
    superlink : str
        HOST:PORT of the server.
    say : callable
        Called with a line when the node has connected.

    Returns
    -------
    str
        Why it has to be started again: it has ended, or it lives but has had no connection for two minutes.
    """
    seen, connected = time.monotonic(), False
    own = psutil.Process(process.pid)
    while _is_alive(process):
        if is_connected(own, superlink):
            if not connected:
                say(f"The node is connected to {superlink}.")
            seen, connected = time.monotonic(), True
        elif time.monotonic() - seen > LONGEST_SILENCE:
            return f"The node was not connected to {superlink} for {LONGEST_SILENCE:g} seconds"
        time.sleep(LOOK_SECONDS)
    return "The SuperNode has ended (see its log)"


def is_connected(process: psutil.Process, superlink: str) -> bool:
    """Say whether a process, or one that it has started, holds a connection to a server.

    Parameters
    ----------
    process : psutil.Process
        The SuperNode.
    superlink : str
        HOST:PORT.

    Returns
    -------
    bool
        Whether one is established to that port at one of the host's addresses.
    """
    host, _, port = superlink.rpartition(":")
    try:
        addresses = {
            found[4][0] for found in socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
        }
        connections = process.net_connections("tcp")
    except (OSError, psutil.Error):
        return False
    return any(
        connection.status == psutil.CONN_ESTABLISHED
        and connection.raddr
        and connection.raddr.port == int(port)
        and connection.raddr.ip in addresses
        for connection in connections
    )


def _start(settings: NodeSettings, environment: dict[str, str]) -> subprocess.Popen[str]:
    command = settings.command()
    with (settings.home / "supernode.log").open("ab") as log:
        return subprocess.Popen(
            [str(settings.commands / command[0]), *command[1:]],
            env=environment,
            cwd=settings.home,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )


def _is_alive(process: subprocess.Popen[str] | psutil.Process) -> bool:
    if isinstance(process, subprocess.Popen):
        return process.poll() is None
    return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)


def _quoted(value: Scalar) -> str:
    """Write a value as a node-config has it."""
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, str):
        return str(value)
    if "\n" in value:
        raise UserError(f"The node-config value {value!r} has more than one line: give it on one.")
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


if __name__ == "__main__":
    try:
        run_node(NodeSettings.from_json(sys.argv[1]))
    except UserError as error:
        print(f"fedcof: {printable(error)}", file=sys.stderr)
        sys.exit(2)
