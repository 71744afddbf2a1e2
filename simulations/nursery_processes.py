"""Forks the processes of many nodes: one process imports Flower for all of them, another what answers come from.

The first forks every node's SuperNode and SuperExec, the second one process for each message. They share the pages
that they do not change, and no more of them compute at a time than the machine has cores.
"""

from __future__ import annotations

import gc
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

from filelock import FileLock, Timeout
from flwr.app import Context, Message
from flwr.supernode import start_client_internal
from flwr.supernode.cli.flower_supernode import flower_supernode

from clients.client_app import app
from clients.own_app import Answering, Start, clientapp, run_and_end, superexec
from clients.own_commands import CLIENTAPP, SUPEREXEC
from fedcof.run.protocol import INTRODUCTION
from simulations.nursery import Order

SUPERNODE = "flower-supernode"
ANSWERS_COME_FROM = (
    "clients.app",
    "fedcof.data.node_data",
    "fedcof.embedding.backbones",
    "fedcof.embedding.feature_cache",
    "fedcof.embedding.features",
)
PAUSE_SECONDS = 0.1


@contextmanager
def turn(folder: Path, at_once: int) -> Iterator[None]:
    """Wait for one's turn; a process that is killed gives its own back.

    Parameters
    ----------
    folder : Path
        The same for all who share the turns.
    at_once : int
        How many turns there are.
    """
    locks = [FileLock(folder / f"{number}.lock") for number in range(at_once)]
    while not (mine := next((lock for lock in locks if _taken(lock)), None)):
        time.sleep(PAUSE_SECONDS)
    try:
        yield
    finally:
        mine.release()


def main() -> None:
    """Fork what is ordered, until stopped."""
    receiving, sending, at_once, threads = (int(sys.argv[place]) for place in (1, 2, 4, 5))
    orders, to_first = socket.socket(fileno=receiving), socket.socket(fileno=sending)
    answers, to_second = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    if os.fork() == 0:
        for module in ANSWERS_COME_FROM:
            import_module(module)
        answer = _in_turn(Path(sys.argv[3]), at_once, threads)
        _fork_all(answers, {CLIENTAPP: lambda order: clientapp(answer)})
    _fork_all(
        orders,
        {
            SUPERNODE: lambda order: _supernode(lambda command: _pass_on(order, command, to_first)),
            SUPEREXEC: lambda order: superexec(lambda command: _pass_on(order, command, to_second)),
        },
    )


def _supernode(start: Start) -> None:
    """Be a SuperNode, as ``flower-supernode`` is, whose SuperExec is started by another process."""
    # Flower offers no place for this, so its module's own name is set; a test says when it is gone.
    module: Any = start_client_internal
    module.subprocess = SimpleNamespace(Popen=start)
    flower_supernode()


def _fork_all(orders: socket.socket, works: Mapping[str, Callable[[Order], None]]) -> NoReturn:
    """Fork a process for each order, and do its command's work there."""
    # Nobody waits for them.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    # The collector would write to the pages that are to be shared.
    gc.collect()
    gc.freeze()
    while True:
        order = Order.receive(orders)
        if os.fork() == 0:
            _take_place(order)
            run_and_end(order.command, partial(works[order.command[0]], order))


def _take_place(order: Order) -> None:
    """Let this process say and keep what it has to in the order's own places."""
    os.environ["FLWR_HOME"] = order.home
    log = os.open(order.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.dup2(log, sys.stdout.fileno())
    os.dup2(log, sys.stderr.fileno())


def _pass_on(order: Order, command: Sequence[str], to: socket.socket) -> None:
    """Have one node's next process forked, with the same home and log."""
    Order(list(command), order.home, order.log).send(to)


def _in_turn(turns: Path, at_once: int, threads: int) -> Answering:
    """Make an app that says at once who it is, and computes when it is its turn."""

    def answer(message: Message, context: Context) -> Message:
        if message.metadata.message_type.endswith(INTRODUCTION):
            return app(message, context)
        import_module("torch").set_num_threads(threads)
        with turn(turns, at_once):
            return app(message, context)

    return answer


def _taken(lock: FileLock) -> bool:
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return False
    return True
