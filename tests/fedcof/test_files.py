"""Files written whole: synced, old or new but never half after a kill, nothing left behind by what failed."""

import ast
import os
import signal
import stat
import subprocess
import sys
import threading
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch

from clients.answers import Answers
from clients.node_state import NodeState
from clients.policy import NodePolicy
from fedcof import LinearClassifier
from fedcof.data.kept_problem import KeptProblem, KeptSplit, leave_note
from fedcof.data.partition_cache import kept_partition
from fedcof.embedding.feature_cache import cached_features
from fedcof.files import nobody_else, private_folder, put_in_place, whole_file, write_whole
from fedcof.run.config import RunConfig
from fedcof.wire.codec import Sent
from server.checkpoint import save_checkpoint
from server.upload_store import UploadStore
from tests.fedcof.images import counting_backbone, make_images
from tests.server.test_checkpoint import checkpoint_of
from tests.server.test_checkpoint import config as trained

ROOT = Path(__file__).parents[2]

WRITING_FOR_EVER = """
import sys
from itertools import cycle
from fedcof.files import write_whole

for letter in cycle("ab"):
    write_whole(sys.argv[1], letter * 2_000_000)
    print(letter, flush=True)
"""


def keep_features(folder):
    cached_features(counting_backbone(), make_images(), folder, 4)


def keep_partition(folder):
    kept_partition(folder, np.zeros(4, np.int64), "settings", lambda: [np.arange(4)])


def keep_upload(folder):
    run = RunConfig(dataset="nodes", classes="a,b", backbone="test_efficientnet", weights="none")
    UploadStore(folder, run).keep("clinic", Sent({"means": np.zeros((1, 2), np.float32)}, "class-means.float32"))


def save_classifier(folder):
    LinearClassifier(torch.zeros(2, 3), torch.zeros(2), torch.ones(2, dtype=torch.bool)).save(folder / "head")


WRITERS = {
    "text": lambda folder: write_whole(folder / "results.json", "[]"),
    "bytes": lambda folder: write_whole(folder / "plot.png", b"\x89PNG"),
    "partition": keep_partition,
    "features": keep_features,
    "upload": keep_upload,
    "checkpoint": lambda folder: save_checkpoint(folder, checkpoint_of(trained())),
    "classifier": save_classifier,
    "answers": lambda folder: Answers(NodePolicy("clinic", state=NodeState(folder))).count(RunConfig()),
    "note": lambda folder: leave_note(
        folder, ("digits",), KeptProblem(("a",), 3, KeptSplit("train", 1), KeptSplit("test", 1))
    ),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_all_that_is_kept_is_on_disk_before_it_has_its_name(kind, tmp_path, monkeypatch):
    synced, events = set(), []
    sync, rename = os.fsync, Path.replace

    def note_sync(descriptor):
        sync(descriptor)
        state = os.fstat(descriptor)
        synced.add(state.st_ino)
        events.append("folder" if stat.S_ISDIR(state.st_mode) else "file")

    def note_rename(path, target):
        inside = list(path.iterdir()) if path.is_dir() else [path]
        assert {file.stat().st_ino for file in inside} <= synced
        events.append("rename")
        return rename(path, target)

    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(Path, "replace", note_rename)
    folder = tmp_path / "new" / "folder"
    if kind in ("classifier", "features"):
        folder.mkdir(parents=True)
    WRITERS[kind](folder)
    assert "rename" in events
    if os.name == "posix":
        assert events[-1] == "folder"
    files = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"]
    assert files
    assert {path.stat().st_ino for path in files} <= synced
    assert not [path for path in folder.rglob("*") if path.name.startswith(".") or "unfinished" in path.name]


@pytest.fixture
def loose_umask():
    """The umask of an account whose files all may read, and write."""
    before = os.umask(0)
    yield
    os.umask(before)


# What holds what people's samples are, or tell, is its owner's alone wherever it is written.
ALONE = ("partition", "features", "upload", "answers", "note")


@pytest.mark.usefixtures("loose_umask")
@pytest.mark.parametrize("kind", WRITERS)
def test_what_is_private_is_its_owners_alone_whatever_the_umask(kind, tmp_path):
    with nullcontext() if kind in ALONE else nobody_else():
        if kind in ("classifier", "features"):
            (tmp_path / "new").mkdir(mode=0o700)
        WRITERS[kind](tmp_path / "new")
    kept = [path for path in tmp_path.rglob("*") if path.suffix != ".lock"]
    assert any(path.is_file() for path in kept)
    assert [path.name for path in kept if path.stat().st_mode & 0o077] == []


@pytest.mark.usefixtures("loose_umask")
def test_what_is_not_private_may_be_read_by_others(tmp_path):
    (tmp_path / "shared").mkdir()
    write_whole(tmp_path / "shared" / "report.html", "")
    assert (tmp_path / "shared" / "report.html").stat().st_mode & 0o444 == 0o444


@pytest.mark.usefixtures("loose_umask")
def test_a_folder_that_was_opened_to_others_stays_open(tmp_path):
    shared = tmp_path / "shared"
    shared.mkdir()
    keep_features(shared)
    assert shared.stat().st_mode & 0o777 == 0o777
    assert private_folder(shared).stat().st_mode & 0o777 == 0o700


def test_a_killed_writer_leaves_the_old_file_or_the_new_one(tmp_path):
    path = tmp_path / "file.txt"
    for number in range(8):
        command = [sys.executable, "-c", WRITING_FOR_EVER, str(path)]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
            for _ in range(number + 1):
                assert process.stdout.readline()
            process.send_signal(signal.SIGKILL)
        text = path.read_text()
        assert len(text) == 2_000_000
        assert len(set(text)) == 1


def test_what_fails_leaves_the_old_content_and_nothing_else(tmp_path):
    path = tmp_path / "file.npz"
    write_whole(path, "old")
    with pytest.raises(ZeroDivisionError), whole_file(path) as unfinished:
        np.savez(unfinished, values=np.arange(3))
        raise ZeroDivisionError
    with pytest.raises(FileNotFoundError), whole_file(path):
        pass
    assert [file.name for file in tmp_path.iterdir()] == ["file.npz"]
    assert path.read_text() == "old"


def test_threads_that_write_at_once_do_not_share_an_unfinished_file(tmp_path):
    path, names = tmp_path / "file", []
    together = threading.Barrier(8)

    def write(letter):
        with whole_file(path) as unfinished:
            unfinished.write_text(letter * 1000)
            names.append(unfinished)
            together.wait()

    threads = [threading.Thread(target=write, args=(letter,)) for letter in "abcdefgh"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(names)) == 8
    assert len(set(path.read_text())) == 1
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["ü" * 120, "n" * 250 + ".txt", ".hidden", "a.b.c"])
def test_names_of_any_kind(name, tmp_path):
    write_whole(tmp_path / name, "Grüße")
    assert (tmp_path / name).read_bytes() == "Grüße".encode()
    assert len(list(tmp_path.iterdir())) == 1


def test_a_folder_takes_its_place_whole(tmp_path):
    (tmp_path / "unfinished").mkdir()
    (tmp_path / "unfinished" / "file").write_text("x")
    put_in_place(tmp_path / "unfinished", tmp_path / "finished")
    assert (tmp_path / "finished" / "file").read_text() == "x"
    assert len(list(tmp_path.iterdir())) == 1


def test_nobody_else_writes_or_renames():
    """What writes by a path of its own may do so only within ``whole_file``, whose block gives the path."""
    for path in (path for room in ("fedcof", "clients", "server") for path in (ROOT / room).rglob("*.py")):
        tree = ast.parse(path.read_text())
        called = {node.func.attr for node in ast.walk(tree) if _calls_a_method(node)}
        if path.name != "files.py":
            assert not called & {"fsync", "write_text", "write_bytes"}, path
        text = ast.unparse(tree)
        if called & {"savez", "savez_compressed"} or "save_file(" in text:
            assert "whole_file(" in text, path


def _calls_a_method(node):
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
