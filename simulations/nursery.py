"""Many nodes on one machine: their processes are copies of two that have imported for all of them.

On its own a node starts Python three times: for Flower's SuperNode, for its ``flower-superexec``, and, with torch,
for answers. In a nursery (:mod:`simulations.nursery_processes`) none does.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from simulations.runtime import Connection

# All SuperExecs together ask so often for something to do; those of few nodes four times a second each.
QUESTIONS_PER_SECOND = 20.0
QUICKEST_SECONDS = 0.25
LOG_NAME = "nursery.log"
LONGEST_ORDER = 64 * 1024


@dataclass(frozen=True)
class Order:
    """A process to be forked.

    Attributes
    ----------
    command : list of str
        One of Flower's, with its arguments.
    home : str
        Flower's home for it.
    log : str
        File for what it says.
    """

    command: list[str]
    home: str
    log: str

    def send(self, to: socket.socket) -> None:
        """Give it to the process that forks."""
        to.send(json.dumps(asdict(self)).encode())

    @classmethod
    def receive(cls, orders: socket.socket) -> Order:
        """Wait for one."""
        return cls(**json.loads(orders.recv(LONGEST_ORDER)))


class Nursery:
    """The processes of many nodes, started and stopped with those of a connection.

    Parameters
    ----------
    connection : Connection
        The SuperLink's; what is forked is one group of processes in its Flower home.
    num_nodes : int
        How many there will be.
    """

    def __init__(self, connection: Connection, num_nodes: int) -> None:
        orders, self._orders = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        at_once = min(num_nodes, _cores())
        turns = connection.working_directory / "turns"
        turns.mkdir()
        ends = orders.fileno(), self._orders.fileno()
        words = *ends, turns, at_once, max(1, _cores() // at_once)
        start = "from simulations.nursery_processes import main; main()"
        pause = max(QUICKEST_SECONDS, num_nodes / QUESTIONS_PER_SECOND)
        with orders, (connection.working_directory / LOG_NAME).open("a", encoding="utf-8") as log:
            connection.popen(
                *(sys.executable, "-P", "-c", start, *map(str, words)),
                stdout=log.fileno(),
                stderr=subprocess.STDOUT,
                variables={"FLWR_SUPEREXEC_TASK_POLL_INTERVAL": str(pause)},
                pass_fds=ends,
            )

    def start_node(self, command: Sequence[str], home: Path, log: Path) -> None:
        """Have a SuperNode forked.

        Parameters
        ----------
        command : sequence of str
            Its command, as :meth:`simulations.node_supervision.NodeSettings.command` gives it.
        home : Path
            Its Flower home.
        log : Path
            File for what it says.
        """
        Order(list(command), str(home), str(log)).send(self._orders)

    def close(self) -> None:
        """Close this end; the processes are stopped with the connection's others."""
        self._orders.close()


def _cores() -> int:
    """Count the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
