"""One process where Flower has several: the identity that stamps messages, and a clock for those who wait."""

from types import SimpleNamespace

import pytest
from flwr.app.message import arrayrecord
from flwr.supercore.task_identity import TaskIdentity

from server import exchange, joining


@pytest.fixture(autouse=True)
def task_identity(monkeypatch):
    for name in ("_run_id", "_task_id", "_node_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)


class Clock:
    """Stands still but for those who sleep."""

    def __init__(self):
        self.now = 1000.0

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    """Nodes in memory compute in the server's own time, which on a busy machine may be any."""
    clock = Clock()
    monkeypatch.setattr(joining, "time", clock)
    monkeypatch.setattr(exchange, "time", clock)
    return clock


@pytest.fixture(autouse=True)
def no_collections(monkeypatch):
    """Flower's q-FedAvg and Bulyan collect garbage for every reply, over all that pytest holds."""
    monkeypatch.setattr(arrayrecord, "gc", SimpleNamespace(collect=lambda: 0))
