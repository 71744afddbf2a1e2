"""Comparisons as lists of runs; one that is killed half way goes on where it was."""

import os
import subprocess
import sys

import numpy as np
import pytest

from fedcof import UserError
from fedcof.run.failures import RunFailure
from fedcof.run.results import RunResult, load_results
from simulations.comparison import comparison_runs, laid_out, unfinished, varying_keys
from tests.running import kill_groups, marked
from tests.waiting import until


def result_of(config, folder):
    return RunResult(
        config.method.name, config.data.seed, 0.5, 1, 1, 1, 0, 1.0, config.to_mapping(), head=f"{folder}/head"
    )


def write_features(folder, train=40, test=20, classes=4, dim=6):
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    for split, count in (("train", train), ("test", test)):
        labels = np.arange(count) % classes
        features = generator.standard_normal((count, dim)) + 3 * np.eye(classes, dim)[labels]
        np.save(folder / f"{split}_features.npy", features.astype(np.float32))
        np.save(folder / f"{split}_labels.npy", labels)
    return f"features:{folder}"


def test_methods_seeds_and_lists_are_multiplied():
    values = {"alpha": [0.1, 1.0], "groups": [1, 4], "num-clients": 7}
    runs = comparison_runs(values, ["fedncm", "fedcof", "fed3r", "oracle"], ["0", "1"])
    by_method = {}
    for config in runs.values():
        by_method.setdefault(config.method.name, []).append(
            (config.data.alpha, config.wire.groups, config.data.seed)
        )
    assert len(by_method["fedcof"]) == len(set(by_method["fedcof"])) == 8
    assert len(by_method["fedncm"]) == len(by_method["fed3r"]) == 4
    assert {config.data.num_clients for config in runs.values()} == {7}
    assert {groups for _, groups, _ in by_method["fed3r"]} == {1}
    assert varying_keys([result_of(config, folder) for folder, config in runs.items()]) == ["alpha", "groups"]


def test_a_method_may_take_the_form_of_its_paper():
    values = {"head": "lda", "feature-transform": "power", "num-clients": 7}
    runs = comparison_runs(values, ["fedncm:paper", "fedcof:paper", "fedcof"], ["0"])
    found = [(run.method.name, run.method.head, run.embedding.feature_transform) for run in runs.values()]
    assert found[1:] == [("fedcof", "ridge", "none"), ("fedcof", "lda", "power")]
    assert found[0][::2] == ("fedncm", "none")
    # In the paper's form already, a method is run once.
    assert (
        len(
            comparison_runs(
                {"head": "ridge", "feature-transform": "none", "upload": "paper"}, ["fedcof", "fedcof:paper"], ["0"]
            )
        )
        == 1
    )


def test_folders_are_plain_and_differ():
    runs = comparison_runs({"dataset": "folder:/a b/c", "shrinkage": [0.1, "oas"]}, ["fedcof"], ["3"])
    assert len(runs) == 2
    for folder in runs:
        assert set(folder) <= set("abcdefghijklmnopqrstuvwxyz0123456789_.-")
        assert folder.startswith("fedcof_shrinkage-")


def test_only_what_has_no_result_is_left():
    runs = comparison_runs({"alpha": [0.1, 1.0]}, ["fedcof"], ["0", "1"])
    folders = list(runs)
    results = [result_of(runs[folder], folder) for folder in folders[:3]]
    assert list(unfinished(runs, results)) == folders[3:]
    assert list(unfinished(comparison_runs({"alpha": 0.3}, ["fedcof"], ["0"]), results))


@pytest.mark.parametrize(
    ("values", "methods", "sentence"),
    [
        ({"method": ["fedcof"]}, ["fedcof"], "method takes no list: use --methods"),
        ({}, ["fedcof:poster"], "Unknown form of a method 'poster'"),
        ({"seed": [0, 1]}, ["fedcof"], "seed takes no list: use --seeds"),
        ({"alpha": []}, ["fedcof"], "alpha has an empty list"),
        ({"alpha": [0.1, "wide"]}, ["fedcof"], "alpha is 'wide'"),
        ({"alpha": [0.1, -1]}, ["fedcof"], "alpha is -1"),
        ({"colour": "red"}, ["fedcof"], "Unknown key 'colour'"),
        ({}, ["fedsgd"], "Unknown method 'fedsgd'"),
        ({}, [], "--methods names no method"),
        ({"encoding": "coded", "epsilon": [1.0, 2.0], "clip-norm": 1.0}, ["fedcof"], "look at the samples"),
    ],
)
def test_what_cannot_be_compared_is_named(values, methods, sentence):
    with pytest.raises(UserError, match=sentence):
        comparison_runs(values, methods, ["0"])


def test_without_a_seed_there_is_nothing_to_compare():
    with pytest.raises(UserError, match="--seeds names no seed"):
        comparison_runs({}, ["fedcof"], [])


def test_values_that_do_not_go_together_cost_their_own_runs_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    values = {"encoding": ["float32", "coded"], "epsilon": 1.0, "clip-norm": 1.0, "dataset": "folder:images"}
    runs, impossible = laid_out(values, ["fedncm", "fedcof"], ["0", "1"])
    assert {(c.method.name, c.wire.encoding, c.data.seed) for c in runs.values()} == {
        (method, "float32", seed) for method in ("fedncm", "fedcof") for seed in (0, 1)
    }
    assert {(f.method, f.config["encoding"], f.seed) for f in impossible} == {
        (method, "coded", seed) for method in ("fedncm", "fedcof") for seed in (0, 1)
    }
    assert all("choose another encoding" in failure.reason for failure in impossible)
    assert {failure.config["dataset"] for failure in impossible} == {f"folder:{tmp_path}/images"}
    with pytest.raises(UserError, match="choose another encoding"):
        comparison_runs(values, ["fedcof"], ["0"])


def test_a_method_that_cannot_be_so_costs_itself_alone():
    runs, impossible = laid_out({"continue": "none"}, ["fedcof", "random"], ["0"])
    assert [config.method.name for config in runs.values()] == ["fedcof"]
    assert [(failure.method, failure.seed) for failure in impossible] == [("random", 0)]
    assert "set continue to" in impossible[0].reason


def test_what_failed_is_not_finished():
    runs = comparison_runs({"quorum": [0.5, 0.9]}, ["fedcof"], ["0"])
    patient, strict = runs
    results = [result_of(runs[patient], patient)]
    assert list(unfinished(runs, results)) == []
    assert list(unfinished(runs, results, [RunFailure.of(runs[strict], "Too few.")])) == [strict]


def test_one_grid_holds_hand_picked_uploads_and_budgets():
    values = {"encoding": ["float32", "coded"], "groups": [1, 2], "rounding-noise": [0.1, 0.5]}
    values["bytes-per-class"] = [0, 90]
    runs = comparison_runs(values, ["fedcof", "fed3r"], ["0"]).values()
    made = {
        (c.method.name, c.wire.encoding, c.wire.groups, c.wire.rounding_noise, c.wire.bytes_per_class) for c in runs
    }
    assert len(runs) == len(made)
    assert made == {
        *(("fedcof", "float32", groups, 0.02, 0) for groups in (1, 2)),
        *(("fedcof", "coded", groups, noise, 0) for groups in (1, 2) for noise in (0.1, 0.5)),
        ("fedcof", "float32", 1, 0.02, 90),
        ("fed3r", "float32", 1, 0.02, 0),
    }


@pytest.mark.flower
def test_a_killed_comparison_goes_on_without_loss_or_repetition(fedcof, tmp_path):
    arguments = ["compare", "digits", "--methods", "fedncm,fedcof", "--seeds", ",".join(map(str, range(8)))]
    arguments += ["-c", f"dataset={write_features(tmp_path / 'features', 200)}", "-c", "shrinkage=0.1"]
    arguments += ["-c", "num-clients=10", "--output", str(tmp_path / "run")]
    environment = {**os.environ, "FEDCOF_CACHE": str(tmp_path / "cache")}
    command = [sys.executable, "-c", "from simulations.cli import main; main()", *arguments]
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    assert until(lambda: len(load_results(tmp_path / "run")) >= 2, process)
    kill_groups(marked("FEDCOF_CACHE", tmp_path / "cache"))
    process.wait()
    before = load_results(tmp_path / "run")
    assert 2 <= len(before) < 16
    assert fedcof(*arguments) == (0, "")
    after = load_results(tmp_path / "run")
    assert after[: len(before)] == before
    assert len({(result.method, result.seed) for result in after}) == len(after) == 16
