"""A node's own ClientApp in place of the one that a server ships, whose code is not even unpacked.

Flower's SuperNode answers a message by running the command ``flower-superexec``, which runs ``flwr-clientapp`` for
each message, which installs and runs the app that the server has sent along: a policy in that app is the server's.
The commands of the same names that :func:`write_commands` makes run Flower's own code with two changes: the app is
this installation's :mod:`clients.client_app`, and each message is answered by a copy of one process that has
imported Flower, so that it costs no new start of Python.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TextIO

from flwr.clientapp import ClientApp
from flwr.supercore.cli import flower_superexec
from flwr.supercore.superexec.executor import subprocess_executor
from flwr.supernode.cli.flwr_clientapp import flwr_clientapp
from flwr.supernode.runtime import run_clientapp

from clients.client_app import app
from fedcof.files import write_whole

SUPEREXEC, CLIENTAPP = "flower-superexec", "flwr-clientapp"


def write_commands(folder: Path) -> Path:
    """Make the commands, to be found before Flower's own.

    Parameters
    ----------
    folder : Path
        Where to put them; to be the first on the ``PATH`` of a SuperNode.

    Returns
    -------
    Path
        The folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for command, function in ((SUPEREXEC, "superexec"), (CLIENTAPP, "clientapp")):
        path = folder / command
        # Apart from the folder that it is started in; -I would leave out PYTHONPATH, which may name a checkout.
        write_whole(path, f"#!{sys.executable} -P\nfrom clients.own_app import {function}\n{function}()\n")
        path.chmod(0o700)
    return folder


def path_with_commands(folder: Path, path: str) -> str:
    """Make the commands, and give a ``PATH`` on which they come before Flower's own.

    Parameters
    ----------
    folder : Path
        Where to put them.
    path : str
        The ``PATH`` until now.

    Returns
    -------
    str
        The one for a SuperNode.
    """
    return f"{write_commands(folder)}{os.pathsep}{path}"


def clientapp() -> None:
    """Answer one message, as ``flwr-clientapp`` does, by this installation's app."""
    _use_own_app()
    flwr_clientapp()


def superexec() -> None:
    """Wait for messages, as ``flower-superexec`` does, and have each answered by a copy of this process."""
    _use_own_app()
    answer = _fork_answerer()
    # Flower offers no place for this, so its modules' own names are set; a test says when they are gone.
    executor: Any = subprocess_executor
    real = executor.subprocess

    def popen(command: Sequence[str], **settings: object) -> object:
        return answer(command) if command[0] == CLIENTAPP else real.Popen(command, **settings)

    executor.subprocess = SimpleNamespace(Popen=popen, DEVNULL=real.DEVNULL)
    flower_superexec()


def _use_own_app() -> None:
    def load(*_: object, **__: object) -> Callable[..., ClientApp]:
        return lambda *fab: app

    answering: Any = run_clientapp
    answering.install_from_fab = lambda *_, **__: None
    answering.get_load_client_app_fn = load


def _fork_answerer() -> Callable[[Sequence[str]], None]:
    """Fork a process that forks one more for each command: from this one, whose threads start later, none could."""
    reading, writing = os.pipe()
    if os.fork() == 0:
        os.close(writing)
        with os.fdopen(reading) as commands:
            _answer_all(commands)
        os._exit(0)
    os.close(reading)
    pipe = os.fdopen(writing, "w")

    def answer(command: Sequence[str]) -> None:
        pipe.write(json.dumps(list(command)) + "\n")
        pipe.flush()

    return answer


def _answer_all(commands: TextIO) -> None:
    """Answer each command in a process of its own, until the pipe ends with the process that writes to it."""
    # Nobody waits for them.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for line in commands:
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            sys.argv = json.loads(line)
            status = 1
            try:
                clientapp()
                status = 0
            except SystemExit as end:
                status = end.code if isinstance(end.code, int) else 1
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(status)
