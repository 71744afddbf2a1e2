"""A server that is killed, or whose disk is full: what had arrived is kept, and the end is a sentence."""

import ctypes
import errno
import os
import signal
import sys
import time

import pytest
import torch
from flwr.app import Context, RecordDict

from fedcof import LinearClassifier, UserError
from fedcof.data.problem import backbone_of, fingerprint_of
from fedcof.run.config import RunConfig
from fedcof.run.results import load_results
from server import app, exchange
from server.reporting import FAILURE_FILE_NAME
from server.upload_store import UploadStore
from tests.server.in_memory_grid import InMemoryGrid
from tests.server.test_nodes import asked, node_config, weight_of
from tests.simulations import hostile_client

NODES, ARRIVED = 5, 3
TINY = {"backbone": "test_efficientnet", "weights": "none", "image-size": 32}
# The classifier is looked at as a linear one.
PATIENT = {"node-timeout": 60.0, "reply-timeout": 10.0**6, "quorum": 0.5, "shrinkage": 0.1, "head": "ridge"}


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.setenv("FEDCOF_CACHE", str(tmp_path / "cache"))
    values = {**TINY, **PATIENT, "dataset": "nodes", "classes": "a,b,c", "num-clients": NODES}
    found = RunConfig.from_mapping({**values, "output": str(tmp_path / "out")})
    # Before anybody forks.
    assert backbone_of(found).feature_dim == hostile_client.DIM
    return found


def served(config, folder, grid_class=InMemoryGrid, **grid_settings):
    """Run the server's app with nodes in memory; gives the grid."""
    fingerprint = fingerprint_of(config)
    of = node_config(folder)
    grid = grid_class(
        hostile_client.app,
        NODES,
        node_config=lambda partition: of(partition) | {"fingerprint": fingerprint},
        **grid_settings,
    )
    context = Context(run_id=1, node_id=0, node_config={}, state=RecordDict(), run_config=config.to_mapping())
    app.main(grid, context)
    return grid


class OneByOne(InMemoryGrid):
    """Delivers uploads one at a time, the first node's never, and writes a line before each; stops after some."""

    def pull_messages(self, message_ids):
        asked_for_uploads = any(
            "statistics" in self.unanswered[i].metadata.message_type for i in message_ids if i in self.unanswered
        )
        if not asked_for_uploads:
            return super().pull_messages(message_ids)
        if self.delivered == ARRIVED:
            os.write(self.told, b".")
            time.sleep(10**6)
        ready = [i for i in message_ids if i in self.unanswered and self._partition(i)]
        self.delivered += 1
        chosen = self.random.choice(ready)
        return [self._answer(self.unanswered.pop(chosen), chosen)]


def forked(act):
    """Start a process that is a copy of this one, and does one thing."""
    process = os.fork()
    if process == 0:
        status = 1
        try:
            # The threads of the original are not in the copy.
            torch.set_num_threads(1)
            act()
            status = 0
        finally:
            os._exit(status)
    return process


@pytest.mark.parametrize("seed", range(2))
def test_a_killed_server_has_all_that_had_arrived_and_asks_for_none_again(config, tmp_path, seed, monkeypatch):
    reading, writing = os.pipe()
    monkeypatch.setattr(OneByOne, "told", writing, raising=False)
    monkeypatch.setattr(OneByOne, "delivered", 0, raising=False)
    before = os.umask(0)
    try:
        server = forked(lambda: served(config, tmp_path, OneByOne, seed=seed))
    finally:
        os.umask(before)
    os.close(writing)
    # All that came before is on disk when the server asks for more, although the first node is silent.
    assert os.read(reading, 1) == b"."
    os.kill(server, signal.SIGKILL)
    assert os.WTERMSIG(os.waitpid(server, 0)[1]) == signal.SIGKILL
    os.close(reading)

    store = UploadStore(tmp_path / "out", config)
    kept = store.names()
    assert len(kept) == ARRIVED
    assert all(store.read(name) for name in kept)
    # Of another backbone, by the same name, they would be asked for again.
    assert not any(UploadStore(tmp_path / "out", config, "0" * 64).read(name) for name in kept)
    exposed = [path for path in (tmp_path / "out").rglob("*") if path.stat().st_mode & 0o077]
    assert exposed == []

    served(config, tmp_path, seed=seed)
    (result,) = load_results(tmp_path / "out")
    outcomes = {node.name: node.outcome for node in result.nodes}
    assert {name for name, outcome in outcomes.items() if outcome == "accepted, from an earlier run"} == set(kept)
    assert [asked(tmp_path, partition) for partition in range(NODES)] == [1] * NODES
    assert torch.equal(LinearClassifier.load(tmp_path / "out" / result.head).weight, weight_of(range(NODES)))


def test_a_failure_of_an_earlier_run_does_not_stay(config, tmp_path, monkeypatch):
    with pytest.raises(UserError, match="Only 1 of 5 clients"):
        served(config, tmp_path, failing=range(1, NODES))
    assert "Only 1 of 5 clients" in (tmp_path / "out" / FAILURE_FILE_NAME).read_text(encoding="utf-8")
    served(config, tmp_path)
    assert not (tmp_path / "out" / FAILURE_FILE_NAME).exists()
    assert len(load_results(tmp_path / "out")) == 1


CLONE_NEWNS, MS_REC, MS_PRIVATE = 0x20000, 0x4000, 1 << 18


def mount_small_disk(folder, size):
    """Put a disk of so many bytes at a folder, for this process alone."""
    libc = ctypes.CDLL(None, use_errno=True)
    steps = (
        lambda: libc.unshare(CLONE_NEWNS),
        lambda: libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None),
        lambda: libc.mount(b"tmpfs", os.fsencode(folder), b"tmpfs", 0, f"size={size}".encode()),
    )
    for step in steps:
        if step():
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def may_mount():
    """Whether this account may mount a disk for a process alone."""
    try_it = forked(lambda: mount_small_disk("/tmp", 2**20))
    return os.waitpid(try_it, 0)[1] == 0


@pytest.mark.skipif(sys.platform != "linux", reason="mounts a small disk")
def test_a_full_disk_ends_a_run_with_a_sentence_and_keeps_what_had_arrived(config, tmp_path):
    if not may_mount():
        pytest.skip("no disk may be mounted here")
    (tmp_path / "out").mkdir()
    reading, writing = os.pipe()

    def serve():
        mount_small_disk(tmp_path / "out", app.ROOM_BYTES + 6 * os.sysconf("SC_PAGESIZE"))
        exchange.time = time
        try:
            served(config, tmp_path)
        except UserError as error:
            failure = (tmp_path / "out" / FAILURE_FILE_NAME).read_text(encoding="utf-8")
            assert failure == str(error)
            kept = UploadStore(tmp_path / "out", config).names()
            os.write(writing, f"{len(kept)} {error}".encode())

    server = forked(serve)
    os.close(writing)
    with os.fdopen(reading) as said:
        kept, _, sentence = said.read().partition(" ")
    assert os.waitpid(server, 0)[1] == 0
    assert 0 < int(kept) < NODES
    assert os.strerror(errno.ENOSPC) in sentence
    assert "node-site-" in sentence
    assert "\n" not in sentence


def test_a_disk_that_is_full_from_the_start_is_a_sentence(config, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/full/file")

    monkeypatch.setattr(app, "write_whole", full)
    with pytest.raises(UserError, match="No space left on device"):
        served(config, tmp_path)
    assert [asked(tmp_path, partition) for partition in range(NODES)] == [0] * NODES
