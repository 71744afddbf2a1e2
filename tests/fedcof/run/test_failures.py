"""failures.json: runs that could not be made stand apart from results, until they are tried again."""

import pytest

from fedcof import UserError
from fedcof.run.config import RunConfig
from fedcof.run.failures import FILE_NAME, RunFailure, forget_failures, load_failures, note_failure
from fedcof.run.results import load_results


def failure(reason="A sentence.", **values):
    return RunFailure.of(RunConfig(**values), reason)


def test_failures_come_back_as_they_were_and_are_no_results(tmp_path):
    first, second = failure(seed=3), failure(alpha=0.5, method="fedncm")
    note_failure(tmp_path, first)
    note_failure(tmp_path, second)
    assert load_failures(tmp_path) == [first, second]
    assert (second.method, second.seed, second.config["alpha"]) == ("fedncm", 0, 0.5)
    assert load_results(tmp_path) == []


def test_a_run_that_fails_again_has_one_entry(tmp_path):
    note_failure(tmp_path, failure("Too few clients."))
    note_failure(tmp_path, failure("The disk is full."))
    assert [known.reason for known in load_failures(tmp_path)] == ["The disk is full."]


def test_a_run_that_is_tried_again_is_forgotten_however_patient_it_is(tmp_path):
    note_failure(tmp_path, failure(quorum=0.9))
    note_failure(tmp_path, failure(alpha=0.5))
    forget_failures(tmp_path, [RunConfig(quorum=0.2)])
    assert [known.config["alpha"] for known in load_failures(tmp_path)] == [0.5]
    forget_failures(tmp_path, [RunConfig(alpha=0.5)])
    assert not (tmp_path / FILE_NAME).exists()
    forget_failures(tmp_path, [RunConfig()])


def test_values_that_do_not_go_together_are_kept_too(tmp_path):
    values = RunConfig.loosely({"encoding": "coded", "epsilon": 1.0, "clip-norm": 1.0})
    note_failure(tmp_path, RunFailure.of(values, "They do not."))
    forget_failures(tmp_path, [RunConfig()])
    (known,) = load_failures(tmp_path)
    assert (known.config["encoding"], known.config["epsilon"]) == ("coded", 1.0)


@pytest.mark.parametrize("content", ["{", "[1]", '[{"format": 99}]', '[{"format": 1, "method": "a"}]', "\xff"])
def test_a_file_of_something_else_is_one_sentence(content, tmp_path):
    (tmp_path / FILE_NAME).write_text(content, encoding="latin-1")
    with pytest.raises(UserError, match="delete it, and the runs are tried again"):
        load_failures(tmp_path)
