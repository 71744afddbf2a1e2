"""MLflow: a database beside the results, nothing of nodes; and the package itself, if it is there."""

import os
import sys
from types import ModuleType, SimpleNamespace

import pytest

from server.trackers.mlflow import MOST_CHARACTERS, MLflow
from server.trackers.tracker import numbers_of, settings_of
from tests.server.trackers.recorded import CONFIG, PRIVATE, RESULT, ROUNDS, tell


@pytest.fixture(autouse=True)
def no_environment(monkeypatch):
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_DISABLE_TELEMETRY"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


class Client:
    """The part of the client that is used, with its signatures."""

    made = ()

    def __init__(self, tracking_uri):
        self.place, self.experiments, self.runs, self.params, self.metrics, self.ended = (
            tracking_uri,
            {},
            [],
            [],
            [],
            [],
        )
        Client.made = (*Client.made, self)

    def get_experiment_by_name(self, name):
        return self.experiments.get(name)

    def create_experiment(self, name, artifact_location=None):
        self.experiments[name] = SimpleNamespace(experiment_id="1", artifact_location=artifact_location)
        return "1"

    def create_run(self, experiment_id, run_name=None):
        self.runs.append((experiment_id, run_name))
        return SimpleNamespace(info=SimpleNamespace(run_id="r"))

    def log_batch(self, run_id, metrics=(), params=()):
        self.params += params
        self.metrics += [(step, key, value) for key, value, _, step in metrics]

    def set_terminated(self, run_id, status="FINISHED"):
        self.ended.append(status)


@pytest.fixture
def mlflow(monkeypatch):
    monkeypatch.setattr(Client, "made", ())
    tracking, entities = ModuleType("mlflow.tracking"), ModuleType("mlflow.entities")
    tracking.MlflowClient = Client
    entities.Param = lambda key, value: (key, value)
    entities.Metric = lambda key, value, timestamp, step: (key, value, timestamp, step)
    for module in (ModuleType("mlflow"), tracking, entities):
        monkeypatch.setitem(sys.modules, module.__name__, module)


def expected_metrics(rounds=ROUNDS):
    course = [(entry.round, name, value) for entry in rounds for name, value in numbers_of(entry).items()]
    return course + [(4, f"run/{name}", value) for name, value in numbers_of(RESULT).items()]


def test_it_gets_settings_rounds_and_an_end(mlflow, tmp_path):
    tell(MLflow(), tmp_path, before=ROUNDS[:1], rounds=ROUNDS[1:])
    (client,) = Client.made
    assert client.place == f"sqlite:///{tmp_path}/mlflow.db"
    assert client.experiments["fedcof"].artifact_location == (tmp_path / "mlflow").as_uri()
    assert client.runs == [("1", "run: fedcof, seed 7")]
    assert client.params == [(key, str(value)) for key, value in settings_of(CONFIG).items()]
    assert client.metrics == expected_metrics()
    assert client.ended == ["FINISHED"]
    assert not any(word in str([client.params, client.metrics]) for word in PRIVATE)
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"


def test_a_tracking_server_that_is_named_gets_it(mlflow, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://mlflow.example")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "mine")
    tell(MLflow(), tmp_path)
    (client,) = Client.made
    assert client.place == "https://mlflow.example"
    assert client.experiments["mine"].artifact_location is None


def test_a_run_that_fails_is_said_to_have_and_no_word_why(mlflow, tmp_path):
    tracker = MLflow()
    tell(tracker, tmp_path, result=None)
    tracker.on_failure(OSError("hospital-east"))
    assert Client.made[0].ended == ["FAILED"]


def test_what_is_longer_than_it_takes_is_cut(mlflow, tmp_path):
    tracker = MLflow()
    tracker.on_run_start(CONFIG.replaced(classes=",".join(f"class-{n}" for n in range(100))), tmp_path, "")
    (client,) = Client.made
    assert len(dict(client.params)["classes"]) == MOST_CHARACTERS
    assert client.runs == [("1", "fedcof, seed 7")]


def test_the_package_itself_has_it_in_its_database(tmp_path):
    pytest.importorskip("mlflow")
    from mlflow.tracking import MlflowClient

    for _ in range(2):
        tell(MLflow(), tmp_path)
    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path}/mlflow.db")
    experiment = client.get_experiment_by_name("fedcof")
    runs = client.search_runs([experiment.experiment_id])
    assert len(runs) == 2
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert runs[0].data.params == {key: str(value) for key, value in settings_of(CONFIG).items()}
    assert runs[0].data.metrics.items() >= {"run/joules": 7.0, "accuracy": 0.875}.items()
    course = client.get_metric_history(runs[0].info.run_id, "loss")
    assert [(metric.step, metric.value) for metric in course] == [(2, 0.75), (3, 0.5), (4, 0.25)]
    assert not any(word in str(runs[0].data.to_dictionary()) for word in PRIVATE)
