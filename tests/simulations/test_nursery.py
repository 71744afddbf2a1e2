"""Processes that are forked for many nodes: no more compute at once than may, and one that dies holds up nobody."""

import os
import signal
import time
from pathlib import Path

from flwr.supernode import start_client_internal

from simulations.nursery import Order
from simulations.nursery_processes import SUPERNODE, turn
from tests.waiting import until


def hold_turn(folder, at_once):
    """Fork a process that takes its turn and keeps it; gives its id and the file that says that it has it."""
    told = folder / f"told-{time.monotonic_ns()}"
    child = os.fork()
    if child == 0:
        try:
            with turn(folder, at_once):
                told.touch()
                time.sleep(600)
        finally:
            os._exit(0)
    return child, told


def test_as_many_compute_as_may_and_a_killed_one_gives_its_turn_back(tmp_path):
    children = [hold_turn(tmp_path, 2) for _ in range(3)]
    try:
        assert until(lambda: sum(told.exists() for _, told in children) == 2)
        time.sleep(0.3)
        assert sum(told.exists() for _, told in children) == 2
        holder = next(child for child, told in children if told.exists())
        os.kill(holder, signal.SIGKILL)
        assert until(lambda: all(told.exists() for _, told in children))
    finally:
        for child, _ in children:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


def test_a_turn_ends_with_its_work(tmp_path):
    for _ in range(2):
        with turn(tmp_path, 1):
            pass


def test_flower_starts_a_superexec_where_it_is_replaced():
    assert "subprocess.Popen(command)" in Path(start_client_internal.__file__).read_text(encoding="utf-8")


def test_an_order_arrives_as_it_was_sent():
    import socket

    order = Order([SUPERNODE, "--node-config", 'data="' + "d" * 5000 + '"'], "/home", "/log")
    sending, receiving = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with sending, receiving:
        order.send(sending)
        assert Order.receive(receiving) == order
