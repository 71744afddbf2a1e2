"""results.json: what nobody knows is null, and files of earlier versions are read."""

import json
import math
import os
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedcof import UserError
from fedcof.covariance.diagnostic import CovarianceDiagnostic
from fedcof.run.client_accuracy import ClientAccuracy, Spread
from fedcof.run.config import RunConfig
from fedcof.run.failures import load_failures
from fedcof.run.results import FILE_NAME, RoundResult, RunResult, append_result, load_results
from fedcof.run.sample_groups import AccuracyBySamples, GroupAccuracy


def run(accuracy=0.5, **fields):
    return RunResult("fedcof", 0, accuracy, 1, 1, 1, 0, 1.0, RunConfig().to_mapping(), **fields)


def strictly(path):
    def refuse(name):
        raise AssertionError(f"{name} is no JSON")

    return json.loads(path.read_text(), parse_constant=refuse)


@pytest.mark.parametrize("unknown", [None, math.nan, math.inf])
def test_an_accuracy_that_is_no_number_is_unknown(unknown, tmp_path):
    result = run(unknown, best_accuracy=unknown, rounds=[RoundResult(1, 5, unknown, 1, 1)])
    assert result.accuracy is result.best_accuracy is result.rounds[0].accuracy is None
    append_result(tmp_path, result)
    (written,) = strictly(tmp_path / FILE_NAME)
    assert written["accuracy"] is written["best_accuracy"] is written["rounds"][0]["accuracy"] is None
    assert load_results(tmp_path) == [result]


@given(number=st.floats())
def test_whatever_is_no_number_is_never_written_bare(number, tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    diagnostic = CovarianceDiagnostic(
        number, 0.1, 1.0, 1.0, number, 0.5, 2.0, 0.5, [1, 2], [number, 1.0], [1.0, 1.0], [2.0, number]
    )
    entry = RoundResult(1, 5, 0.5, 1, 1, "train", number, number, number)
    append_result(
        folder, run(class_accuracy=[number, None], rounds=[entry], covariance=diagnostic, shrinkage=number)
    )
    (written,) = strictly(folder / FILE_NAME)
    expected = number if math.isfinite(number) else None
    assert written["covariance"]["spectrum"] == [expected, 1.0]
    assert written["rounds"][0]["loss"] == written["shrinkage"] == written["class_accuracy"][0] == expected
    (read,) = load_results(folder)
    assert read.covariance.relative_error == expected


def test_what_the_clients_get_is_kept_and_of_an_earlier_version_is_unknown(tmp_path):
    found = ClientAccuracy(7, Spread(0.5, 0.1), Spread(0.75, 0.25), Spread(0.875, 0.375))
    append_result(tmp_path, run(client_accuracy=found, nats_per_score=2.5))
    (read,) = load_results(tmp_path)
    assert (read.client_accuracy, read.nats_per_score) == (found, 2.5)
    (older,) = json.loads((tmp_path / FILE_NAME).read_text())
    older["client_accuracy"]["all_classes"] = {"mean": None, "worst_tenth": 0.1}
    (tmp_path / FILE_NAME).write_text(json.dumps([older]))
    with pytest.raises(UserError, match="not a results file"):
        load_results(tmp_path)
    del older["client_accuracy"], older["nats_per_score"]
    (tmp_path / FILE_NAME).write_text(json.dumps([older]))
    (read,) = load_results(tmp_path)
    assert read.client_accuracy is read.nats_per_score is None


def test_accuracies_by_training_samples_are_kept_and_of_an_earlier_version_are_unknown(tmp_path):
    found = AccuracyBySamples(GroupAccuracy(2, 0.0), GroupAccuracy(3, 0.25), GroupAccuracy(0, None))
    append_result(tmp_path, run(accuracy_by_samples=found))
    assert [read.accuracy_by_samples for read in load_results(tmp_path)] == [found]
    (older,) = strictly(tmp_path / FILE_NAME)
    assert older["accuracy_by_samples"]["few"] == {"classes": 3, "accuracy": 0.25}
    for wrong in ({"classes": "3", "accuracy": 0.25}, {"classes": 3}, 3):
        damaged = older | {"accuracy_by_samples": older["accuracy_by_samples"] | {"few": wrong}}
        (tmp_path / FILE_NAME).write_text(json.dumps([damaged]))
        with pytest.raises(UserError, match="not a results file"):
            load_results(tmp_path)
    del older["accuracy_by_samples"]
    (tmp_path / FILE_NAME).write_text(json.dumps([older]))
    assert [read.accuracy_by_samples for read in load_results(tmp_path)] == [None]


@pytest.mark.parametrize("word", ["null", "NaN"])
def test_files_of_earlier_versions_are_read(word, tmp_path):
    append_result(tmp_path, run(0.125, rounds=[RoundResult(1, 5, 0.25, 1, 1)], best_accuracy=0.375))
    (older,) = json.loads((tmp_path / FILE_NAME).read_text())
    del older["shrinkage"]
    text = json.dumps([older])
    for number in ("0.125", "0.25", "0.375"):
        text = text.replace(f'accuracy": {number}', f'accuracy": {word}')
    (tmp_path / FILE_NAME).write_text(text)
    (read,) = load_results(tmp_path)
    assert read == replace(run(None, rounds=[RoundResult(1, 5, None, 1, 1)]), head=read.head)
    assert read.shrinkage is None


def test_the_amount_of_shrinkage_is_kept(tmp_path):
    append_result(tmp_path, run(shrinkage=0.03))
    assert load_results(tmp_path)[0].shrinkage == 0.03


@given(
    known=st.dictionaries(st.sampled_from(["num-clients", "seed", "image-size"]), st.integers(1, 500)),
    later=st.dictionaries(st.text(max_size=9).filter(lambda key: key not in RunConfig.defaults()), st.integers()),
)
def test_the_run_config_of_another_version_can_be_looked_at(known, later):
    told = {"method": "of-tomorrow", "partition": "by-weather", **known, **later}
    config = replace(run(), config=told).run_config()
    assert config.to_mapping() == {
        **RunConfig.defaults(),
        "method": "of-tomorrow",
        "partition": "by-weather",
        **known,
    }


def test_a_run_config_of_this_version_is_read_as_it_is():
    config = RunConfig(num_clients=7, method="fed3r", epsilon=1.0, clip_norm=2.0)
    assert replace(run(), config=config.to_mapping()).run_config() == config


MALFORMED = {
    "no JSON": b"[{",
    "no UTF-8": b"\xff\xfe[",
    "no list": b"{}",
    "a list of texts": b'["a"]',
    "nothing said": b'[{"format": 1}]',
    "nested without end": b"[" * 100_000,
}


@pytest.mark.parametrize("content", MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_file_is_one_sentence(tmp_path, content):
    (tmp_path / "results.json").write_bytes(content)
    with pytest.raises(UserError, match="is not a results file of fedcof|written by another version"):
        load_results(tmp_path)


def written(tmp_path, **changes):
    """A results file with one run, of which something was changed."""
    append_result(tmp_path, RunResult("fedcof", 0, 0.5, 1, 1, 1, 0, 1.0, {}, head="head.safetensors"))
    path = tmp_path / "results.json"
    (run,) = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps([{**run, **changes}]), encoding="utf-8")


WRONG = [
    {"accuracy": "high"},
    {"config": 7},
    {"seed": None},
    {"seed": True},
    {"uplink_bytes": "1"},
    {"head": 7},
    {"class_names": 7},
    {"class_names": ["a", None]},
    {"class_accuracy": ["high"]},
    {"rejected": ["0"]},
    {"rounds": [{"round": "1", "clients": 1, "accuracy": 0.5, "uplink_bytes": 1, "downlink_bytes": 1}]},
    {"nodes": [{"name": 1, "outcome": "accepted"}]},
    {"covariance": {"relative_error": "low"}},
    {"left_out": {"train": 3}},
    {"shrinkage": "much"},
]


@pytest.mark.parametrize("changes", WRONG, ids=str)
def test_what_others_compute_with_is_what_it_says(tmp_path, changes):
    written(tmp_path, **changes)
    with pytest.raises(UserError, match="is not a results file"):
        load_results(tmp_path)


@pytest.mark.parametrize("name", ["results.json", "failures.json"])
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_what_is_no_file_is_not_waited_for(tmp_path, name, make):
    make(tmp_path / name)
    with pytest.raises(UserError, match=name):
        load_results(tmp_path) if name == "results.json" else load_failures(tmp_path)


@pytest.mark.parametrize(
    "content", [*MALFORMED.values(), b'[{"format": 1, "method": "a", "seed": 0, "reason": 7}]']
)
def test_a_malformed_list_of_failures_is_one_sentence(tmp_path, content):
    (tmp_path / "failures.json").write_bytes(content)
    if content == MALFORMED["no list"]:
        assert load_failures(tmp_path) == []
    else:
        with pytest.raises(UserError, match="is not a list of failed runs"):
            load_failures(tmp_path)


@pytest.mark.parametrize("head", ["../head.safetensors", "/etc/passwd", "a/../../b", "link/head.safetensors"])
def test_no_path_leads_out_of_a_folder_of_results(tmp_path, head):
    (tmp_path / "elsewhere").mkdir()
    folder = tmp_path / "results"
    folder.mkdir()
    (folder / "link").symlink_to(tmp_path / "elsewhere")
    written(folder, head=head)
    with pytest.raises(UserError, match="outside of it"):
        load_results(folder)
