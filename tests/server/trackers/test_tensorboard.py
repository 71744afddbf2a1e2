"""TensorBoard's files are read back as TensorBoard reads them, where it is installed."""

import logging

import pytest

import server.trackers.tensorboard as module
from fedcof.run.config import RunConfig
from server.callbacks import Callbacks
from server.trackers.registry import trackers_of
from server.trackers.tensorboard import TensorBoard
from server.trackers.tracker import numbers_of
from tests.server.trackers.recorded import CONFIG, PRIVATE, RESULT, ROUNDS, files_below, tell


@pytest.fixture
def curves():
    """Read all curves in a folder: (round, value) by name."""
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    def read(folder):
        accumulator = EventAccumulator(str(folder))
        accumulator.Reload()
        tags = accumulator.Tags()["scalars"]
        return {tag: [(event.step, event.value) for event in accumulator.Scalars(tag)] for tag in tags}

    return read


def expected(rounds, result=RESULT):
    found = {}
    for entry in rounds:
        for name, value in numbers_of(entry).items():
            found.setdefault(name, []).append((entry.round, value))
    return found | {f"run/{name}": [(4, value)] for name, value in numbers_of(result).items()}


def test_every_number_of_a_round_is_a_curve(tmp_path, curves):
    tell(TensorBoard(), tmp_path)
    assert curves(tmp_path / "run") == expected(ROUNDS)
    (file,) = files_below(tmp_path)
    content = file.read_bytes()
    assert b"continue-rounds | 3" in content
    assert not any(word.encode() in content for word in PRIVATE)


def test_each_round_is_shown_once_after_an_interruption(tmp_path, curves):
    broken_off = TensorBoard()
    tell(broken_off, tmp_path, rounds=ROUNDS[:3], result=None)
    broken_off.on_failure(OSError())
    assert curves(tmp_path / "run")["loss"] == [(2, 0.75), (3, 0.5)]
    tell(TensorBoard(), tmp_path, before=ROUNDS[:3], rounds=ROUNDS[3:])
    assert curves(tmp_path / "run") == expected(ROUNDS)


@pytest.fixture
def not_importable(monkeypatch):
    def refuse(name):
        raise ModuleNotFoundError("No module named 'tensorboard'")

    monkeypatch.setattr(module, "import_module", refuse)


def test_a_run_of_one_round_imports_and_writes_nothing(tmp_path, monkeypatch, not_importable):
    once = CONFIG.replaced(continue_="none", continue_rounds=20)
    tracker = TensorBoard()
    tracker.on_run_start(once, tmp_path, "run")
    tracker.on_round_end(ROUNDS[0], None)
    tracker.on_run_end(RESULT)
    assert files_below(tmp_path) == []


def test_where_it_is_not_installed_a_run_goes_on_without_it(tmp_path, caplog, not_importable):
    with caplog.at_level(logging.WARNING, "flwr"):
        tell(Callbacks(trackers_of(RunConfig())), tmp_path)
    assert [record.getMessage() for record in caplog.records] == [
        "The tracker tensorboard has failed, so the run goes on without it "
        "(ModuleNotFoundError: No module named 'tensorboard')."
    ]
