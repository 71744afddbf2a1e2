"""Comparisons with runs that cannot be made: the others are, and the reasons are said."""

import inspect
import io
import json
import re
from types import SimpleNamespace

import pytest
import ray._private.node as ray_node
from rich.console import Console
from rich.progress import Progress

from fedcof import UserError
from fedcof.run.config import RunConfig
from fedcof.run.failures import RunFailure, load_failures
from fedcof.run.results import append_result, load_results
from server.reporting import FAILURE_FILE_NAME
from simulations import commands, flower_runs
from simulations import terminal as terminal_module
from simulations.comparison import comparison_runs
from simulations.flower_runs import FlowerRuns, progress_of_replies
from simulations.submission import FlowerRunError
from tests.simulations.test_comparison import result_of, write_features


@pytest.fixture
def execute(tmp_path, monkeypatch):
    """Run what is handed to Flower as if Flower did: a result for each run that is planned in the end."""
    monkeypatch.setenv("FEDCOF_CACHE", str(tmp_path / "cache"))
    output = tmp_path / "run"
    planned = []

    class Submission:
        def follow(self, on_line, is_done, last_words):
            runs = json.loads((tmp_path / "plan.json").read_text())["runs"]
            planned.append([run["folder"] for run in runs])
            for run in runs:
                append_result(output, result_of(RunConfig.from_mapping(run["config"]), run["folder"]))
            assert is_done()

    monkeypatch.setattr(flower_runs, "stage_app", lambda folder: folder)
    monkeypatch.setattr(flower_runs, "submit", lambda *_: Submission())

    def run(runs, goes_on=True):
        planned.clear()
        connection = SimpleNamespace(working_directory=tmp_path)
        bars = Progress(console=Console(file=io.StringIO()))
        FlowerRuns(runs, output, connection, tmp_path / "notes", bars, goes_on).execute(lambda: None)
        return output, list(planned)

    return run


def test_a_partition_that_cannot_be_dealt_costs_its_runs_alone(execute, tmp_path):
    values = {"dataset": write_features(tmp_path / "features"), "num-clients": [4, 41]}
    runs = comparison_runs(values, ["fedncm", "fedcof"], ["0"])
    possible = [folder for folder, config in runs.items() if config.data.num_clients == 4]
    output, planned = execute(runs)
    assert planned == [possible]
    assert {result.config["num-clients"] for result in load_results(output)} == {4}
    # Tried again with nothing changed they fail again, and are noted once.
    for again in (False, True):
        if again:
            execute({folder: config for folder, config in runs.items() if folder not in possible})
        failures = load_failures(output)
        assert [(failure.method, failure.config["num-clients"]) for failure in failures] == [
            ("fedncm", 41),
            ("fedcof", 41),
        ]
        assert all("set num-clients to at most 40" in failure.reason for failure in failures)


def test_the_error_of_a_single_run_is_raised(execute, tmp_path):
    dataset = write_features(tmp_path / "features")
    with pytest.raises(UserError, match="set num-clients to at most 40"):
        execute({"": RunConfig(dataset=dataset, num_clients=41)}, goes_on=False)
    assert load_failures(tmp_path / "run") == []


TOO_LATE = "Exception: The current node timed out during startup. This could happen because of much"


@pytest.mark.parametrize(
    ("details", "fails", "started", "ends"),
    [(TOO_LATE, 3, 4, True), (TOO_LATE, 4, 4, False), ("ValueError: mine", 1, 1, False)],
)
def test_a_ray_that_a_busy_machine_keeps_from_starting_is_started_again(
    execute, tmp_path, monkeypatch, details, fails, started, ends
):
    starts, make = [], flower_runs.submit

    def submit(*arguments):
        starts.append(arguments)
        if len(starts) > fails:
            return make(*arguments)

        def follow(*_, **__):
            raise FlowerRunError("finished:failed", details, [])

        return SimpleNamespace(follow=follow)

    monkeypatch.setattr(flower_runs, "submit", submit)
    runs = {"run": RunConfig(dataset=write_features(tmp_path / "features"), num_clients=4)}
    if ends:
        execute(runs, goes_on=False)
    else:
        with pytest.raises(FlowerRunError, match=re.escape(details)):
            execute(runs, goes_on=False)
    assert len(starts) == started
    assert len(load_results(tmp_path / "run")) == ends


def test_ray_still_says_it_in_these_words():
    assert re.search(r"node timed out during startup", inspect.getsource(ray_node))


def test_a_dataset_that_is_missing_is_looked_for_once(execute, tmp_path, monkeypatch):
    asked = []
    look = flower_runs.labels_of
    monkeypatch.setattr(flower_runs, "labels_of", lambda config, split: asked.append(split) or look(config, split))
    values = {"dataset": [write_features(tmp_path / "features"), f"features:{tmp_path}/nowhere"]}
    output, planned = execute(comparison_runs(values, ["fedncm", "fedcof"], ["0", "1", "2"]))
    assert len(asked) == 2
    assert len(planned[0]) == len(load_results(output)) == len(load_failures(output)) == 6
    assert {failure.config["dataset"] for failure in load_failures(output)} == {f"features:{tmp_path}/nowhere"}


def test_the_apps_own_sentence_comes_before_flowers(execute, tmp_path, monkeypatch):
    class Failed:
        def follow(self, on_line, is_done, last_words):
            (tmp_path / "run" / FAILURE_FILE_NAME).write_text("Only 5 of 6 clients answered.")
            raise FlowerRunError("finished:failed", "in Flower's words", [])

    monkeypatch.setattr(flower_runs, "submit", lambda *_: Failed())
    config = RunConfig(dataset=write_features(tmp_path / "features"), num_clients=4)
    with pytest.raises(UserError, match=r"^Only 5 of 6 clients answered\.$"):
        execute({"": config}, goes_on=False)


def test_nothing_is_handed_to_flower_where_no_run_is_possible(execute, tmp_path):
    output, planned = execute(comparison_runs({"dataset": f"features:{tmp_path}/no"}, ["fedcof"], ["0", "1"]))
    assert not any(planned)
    assert [failure.seed for failure in load_failures(output)] == [0, 1]


def test_a_run_that_succeeds_the_next_time_has_not_failed(execute, tmp_path):
    runs = comparison_runs({"dataset": f"features:{tmp_path}/features"}, ["fedncm", "fedcof"], ["0"])
    output, _ = execute(runs)
    assert len(load_failures(output)) == 2
    write_features(tmp_path / "features")
    execute(runs)
    assert load_failures(output) == []
    assert len(load_results(output)) == 2


def test_another_number_of_nodes_goes_on_after_one_of_which_nothing_is_left(execute, tmp_path):
    values = {"dataset": write_features(tmp_path / "features"), "num-clients": [3, 5, 4, 41]}
    values |= {"partition": "pathological", "classes-per-client": 1}
    output, planned = execute(comparison_runs(values, ["fedcof"], ["0"]))
    # Flower started for three clients before it was known that these leave a class out.
    assert list(map(len, planned)) == [0, 1, 1]
    assert sorted(result.config["num-clients"] for result in load_results(output)) == [4, 5]
    assert sorted(failure.config["num-clients"] for failure in load_failures(output)) == [3, 41]


def test_the_bar_goes_on_after_a_run_that_failed_half_way():
    bars = Progress(console=Console(file=io.StringIO()))
    follow = progress_of_replies(bars, 30)
    completed = []
    for run, reply in ((1, 4), (1, 10), (2, 1), (2, 3), (3, 1), (3, 10), (1, 1)):
        follow(f"INFO : Run {run} of 3, reply {reply} of 10")
        completed.append(bars.tasks[0].completed)
    assert completed == [4, 10, 11, 13, 21, 30, 31]


def printed(monkeypatch, *arguments):
    console = Console(file=io.StringIO(), width=300)
    for module in (terminal_module, commands):
        monkeypatch.setattr(module, "console", console)
    commands.show_results(*arguments)
    return [" ".join(line.replace("│", " ").split()) for line in console.file.getvalue().splitlines()]


def test_the_table_has_the_runs_that_failed_and_their_sentences(monkeypatch, tmp_path):
    runs = list(comparison_runs({"num-clients": [4, 41]}, ["fedncm", "fedcof"], ["0"]).values())
    results = [result_of(config, "run") for config in runs if config.data.num_clients == 4]
    failures = [RunFailure.of(config, "Too many.") for config in runs if config.data.num_clients == 41]
    lines = printed(monkeypatch, results, tmp_path, failures)
    assert "fedncm 4 0 50.00 0.00 0.00 1 1.0" in lines
    assert "fedcof 41 0 failed - - - -" in lines
    assert "Failed: fedncm, num-clients 41, seed 0; fedcof, num-clients 41, seed 0: Too many." in lines
    assert f"The runs that failed are in {tmp_path}/failures.json, and are tried again the next time." in lines


def test_seeds_that_failed_are_counted_out_of_all(monkeypatch, tmp_path):
    runs = list(comparison_runs({"alpha": [0.1, 1.0]}, ["fedcof"], ["0", "1", "2"]).values())
    results = [result_of(config, "run") for config in runs if config.data.alpha == 0.1 and config.data.seed]
    failures = [RunFailure.of(c, "No.") for c in runs if c.data.alpha == 1.0 or not c.data.seed]
    lines = printed(monkeypatch, results, tmp_path, failures)
    assert "fedcof 0.1 2 of 3 50.00 ± 0.00 0.00 0.00 1.0" in lines
    assert "fedcof 1.0 0 of 3 failed - - -" in lines
    assert "Failed: fedcof, alpha 0.1, seed 0; fedcof, alpha 1.0, seeds 0, 1, 2: No." in lines


def test_where_all_failed_that_is_said_and_nothing_else(monkeypatch, tmp_path):
    failures = [RunFailure.of(RunConfig(), "No.")]
    lines = printed(monkeypatch, [], tmp_path, failures)
    assert "Failed: fedcof, seed 0: No." in lines
    assert not any("Written to" in line for line in lines)


def test_features_computed_elsewhere_have_no_backbone(monkeypatch, tmp_path):
    config = RunConfig(dataset="features:/data/birds", num_clients=4)
    lines = printed(monkeypatch, [result_of(config, "run")], tmp_path)
    assert lines[0] == "birds on 4 clients, inner-dirichlet, features computed elsewhere"
    lines = printed(monkeypatch, [result_of(RunConfig(), "run")], tmp_path)
    assert lines[0] == "digits on 20 clients, inner-dirichlet, tf_efficientnet_lite0 at 64 px"


@pytest.mark.flower
def test_a_comparison_makes_what_can_be_made_and_says_the_rest(fedcof, tmp_path):
    dataset = write_features(tmp_path / "features", dim=40)
    arguments = ["compare", "--methods", "fedncm,fedcof", "-c", f"dataset={dataset}", "-c", "num-clients=[4,41]"]
    arguments += ["-c", "shrinkage=[0,leave-one-out]", "-c", "partition=iid", "--output", tmp_path / "run"]
    assert fedcof(*arguments) == (1, "")
    results, failures = load_results(tmp_path / "run"), load_failures(tmp_path / "run")
    assert [(result.method, result.config["num-clients"]) for result in results] == [
        ("fedncm", 4),
        ("fedcof", 4),
    ]
    reasons = [failure.reason for failure in failures]
    assert sum("set num-clients to at most 40" in reason for reason in reasons) == 3
    assert sum("set shrinkage to leave-one-out" in reason for reason in reasons) == 1
    page = (tmp_path / "run" / "report.html").read_text()
    assert "Runs that failed" in page
    assert page.count("set num-clients to at most 40") == 3
