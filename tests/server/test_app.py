"""The ServerApp's plan in memory: a run that fails, and runs that are planned no more."""

import json
import os

import pytest

from clients.app import app as client_app
from fedcof import UserError
from fedcof.run.config import RunConfig
from fedcof.run.failures import load_failures
from fedcof.run.results import load_results
from server import app
from tests.server.in_memory_grid import InMemoryGrid
from tests.server.test_federated_run import CLIENTS, config_of, dataset

__all__ = ["dataset"]


@pytest.fixture
def run_plan(dataset, tmp_path):
    """Run configurations as a plan; gives those with a result, and the reasons of those without."""

    def run(runs, goes_on=True, ready=True):
        plan = tmp_path / "plan.json"
        entries = [{"folder": name, "config": config.to_mapping()} for name, config in runs.items()]
        state = {"driver": os.getpid(), "ready": ready, "goes_on": goes_on}
        plan.write_text(json.dumps({**state, "runs": entries}))
        grid = InMemoryGrid(client_app, CLIENTS, run_config=RunConfig().to_mapping())
        app._run_all(grid, RunConfig(plan=str(plan)), tmp_path)
        failures = {failure.method: failure.reason for failure in load_failures(tmp_path)}
        return [result.method for result in load_results(tmp_path)], failures

    return run


def closed_form(dataset, **values):
    return config_of(dataset, continue_="none", continue_rounds=20, continue_fraction=1.0, **values)


def impossible(dataset):
    return closed_form(dataset, method="fed3r", dropout=0.99)


def test_a_run_that_fails_costs_itself_alone(dataset, run_plan, tmp_path):
    runs = {"a": closed_form(dataset, method="fedncm"), "b": impossible(dataset), "c": closed_form(dataset)}
    made, failed = run_plan(runs)
    assert made == ["fedncm", "fedcof"]
    assert list(failed) == ["fed3r"]
    assert "fewer than the quorum" in failed["fed3r"]
    assert (tmp_path / "c" / "head.safetensors").exists()


def test_without_others_that_go_on_its_error_is_raised(dataset, run_plan, tmp_path):
    with pytest.raises(UserError, match="fewer than the quorum"):
        run_plan({"b": impossible(dataset), "c": closed_form(dataset)}, goes_on=False)
    assert load_failures(tmp_path) == load_results(tmp_path) == []


def test_what_is_planned_no_more_once_all_is_looked_up_is_not_run(dataset, run_plan, tmp_path, monkeypatch):
    runs = {"a": closed_form(dataset, method="fedncm"), "c": closed_form(dataset)}

    def ready(_):
        plan = json.loads((tmp_path / "plan.json").read_text())
        (tmp_path / "plan.json").write_text(json.dumps({**plan, "ready": True, "runs": plan["runs"][1:]}))

    monkeypatch.setattr(app, "_await_command", ready)
    assert run_plan(runs, ready=False) == (["fedcof"], {})


def test_an_empty_plan_ends_at_once(run_plan):
    assert run_plan({}) == ([], {})
