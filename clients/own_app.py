"""A node's own ClientApp in place of the one that a server ships, whose code is not even unpacked.

Flower's SuperNode answers a message by running the command ``flower-superexec``, which runs ``flwr-clientapp`` for
each message, which installs and runs the app that the server has sent along: a policy in that app is the server's.
The commands of the same names that :mod:`clients.own_commands` makes run Flower's own code with two changes: the
app is this installation's :mod:`clients.client_app`, and each message is answered by a copy of one process that
has imported Flower, so that it costs no new start of Python.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, NoReturn, TextIO

from flwr.app import Context, Message
from flwr.supercore.cli import flower_superexec
from flwr.supercore.superexec.executor import subprocess_executor
from flwr.supernode.cli.flwr_clientapp import flwr_clientapp
from flwr.supernode.runtime import run_clientapp

from clients.client_app import app
from clients.own_commands import CLIENTAPP

Answering = Callable[[Message, Context], Message]
Start = Callable[[Sequence[str]], object]


def clientapp(answering: Answering = app) -> None:
    """Answer one message, as ``flwr-clientapp`` does, by this installation's app.

    Parameters
    ----------
    answering : callable
        What answers, if not the app alone.
    """
    _use_own_app(answering)
    flwr_clientapp()


def superexec(answer: Start | None = None) -> None:
    """Wait for messages, as ``flower-superexec`` does, and have each answered by a copy of this process.

    Parameters
    ----------
    answer : callable, optional
        Has a message answered by another process, given the command that Flower would run.
    """
    answer = answer or _fork_answerer()
    # Flower offers no place for this, so its modules' own names are set; a test says when they are gone.
    executor: Any = subprocess_executor
    real = executor.subprocess

    def popen(command: Sequence[str], **settings: object) -> object:
        return answer(command) if command[0] == CLIENTAPP else real.Popen(command, **settings)

    executor.subprocess = SimpleNamespace(Popen=popen, DEVNULL=real.DEVNULL)
    flower_superexec()


def run_and_end(command: Sequence[str], work: Callable[[], None]) -> NoReturn:
    """Do the work of a command in a process that was forked for it, and end that.

    Parameters
    ----------
    command : sequence of str
        The command.
    work : callable
        Does it.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    sys.argv = list(command)
    status = 1
    try:
        work()
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    except Exception:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _use_own_app(answering: Answering = app) -> None:
    def load(*_: object, **__: object) -> Callable[..., Answering]:
        return lambda *fab: answering

    module: Any = run_clientapp
    module.install_from_fab = lambda *_, **__: None
    module.get_load_client_app_fn = load


def _fork_answerer() -> Start:
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
    # The collector would write to the pages that are shared.
    gc.freeze()
    # Nobody waits for them.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for line in commands:
        if os.fork() == 0:
            run_and_end(json.loads(line), clientapp)
