"""Weights & Biases: offline without a key, nothing of nodes or the machine; the package itself if it is there."""

import sys
from types import ModuleType, SimpleNamespace

import pytest

from server.trackers.tracker import numbers_of, settings_of
from server.trackers.weights_and_biases import WeightsAndBiases
from tests.server.trackers.recorded import CONFIG, PRIVATE, RESULT, ROUNDS, files_below, tell


@pytest.fixture(autouse=True)
def no_environment(monkeypatch):
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_PROJECT"):
        monkeypatch.delenv(name, raising=False)


class StandIn(ModuleType):
    """The part of the package that is used, with its signatures."""

    def __init__(self):
        super().__init__("wandb")
        self.calls, self.begun = [], []

    def init(self, *, project, name, config, dir, mode, settings):  # noqa: A002
        self.begun.append({"project": project, "name": name, "config": config, "dir": dir, "mode": mode})
        self.settings = settings
        return SimpleNamespace(log=self.log, finish=self.finish, summary=SimpleNamespace(update=self.update))

    def Settings(self, **values):  # noqa: N802
        return values

    def log(self, data, step):
        self.calls.append((step, data))

    def update(self, data):
        self.calls.append(("summary", data))

    def finish(self, exit_code):
        self.calls.append(("finish", exit_code))


@pytest.fixture
def wandb(monkeypatch):
    stand_in = StandIn()
    monkeypatch.setitem(sys.modules, "wandb", stand_in)
    return stand_in


def test_it_gets_settings_rounds_and_a_summary(wandb, tmp_path):
    tell(WeightsAndBiases(), tmp_path)
    (begun,) = wandb.begun
    assert begun == {
        "project": "fedcof",
        "name": "run: fedcof, seed 7",
        "config": settings_of(CONFIG),
        "dir": str(tmp_path),
        "mode": "offline",
    }
    summary = {f"run/{name}": value for name, value in numbers_of(RESULT).items()}
    rounds = [(entry.round, numbers_of(entry)) for entry in ROUNDS]
    assert wandb.calls == [*rounds, ("summary", summary), ("finish", 0)]
    assert not any(word in str([wandb.calls, begun["config"]]) for word in PRIVATE)
    assert wandb.settings["x_disable_machine_info"] is wandb.settings["disable_code"] is True


def test_gone_on_with_it_gets_the_rounds_before_too(wandb, tmp_path):
    tell(WeightsAndBiases(), tmp_path, before=ROUNDS[:2], rounds=ROUNDS[2:], result=None)
    assert [step for step, _ in wandb.calls] == [1, 2, 3, 4]


def test_of_a_failure_it_gets_no_word(wandb, tmp_path):
    tracker = WeightsAndBiases()
    tell(tracker, tmp_path, rounds=[], result=None)
    tracker.on_failure(OSError("hospital-east"))
    assert wandb.calls == [("finish", 1)]


@pytest.mark.parametrize(
    ("variables", "mode", "project"),
    [
        ({"WANDB_API_KEY": "0" * 40}, "online", "fedcof"),
        ({"WANDB_API_KEY": "0" * 40, "WANDB_MODE": "offline"}, "offline", "fedcof"),
        ({"WANDB_MODE": "disabled", "WANDB_PROJECT": "mine"}, "disabled", "mine"),
    ],
)
def test_the_environment_says_whether_and_where(wandb, tmp_path, monkeypatch, variables, mode, project):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    tell(WeightsAndBiases(), tmp_path)
    assert (wandb.begun[0]["mode"], wandb.begun[0]["project"]) == (mode, project)


def test_the_package_itself_writes_its_files_beside_the_results(tmp_path):
    pytest.importorskip("wandb")
    tell(WeightsAndBiases(), tmp_path)
    (record,) = [path for path in files_below(tmp_path / "wandb") if path.suffix == ".wandb"]
    content = record.read_bytes()
    assert b"worst_tenth_accuracy" in content
    assert b"continue-rounds" in content
    assert not any(word.encode() in content for word in PRIVATE)
    assert not list((tmp_path / "wandb").rglob("wandb-metadata.json"))
