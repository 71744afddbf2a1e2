"""Accuracies over steps against a plain transcription, and by hand where classes are forgotten."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedcof.run.results import RunResult, append_result, load_results
from fedcof.run.steps import StepCourse, StepResult, Turnover

NOTHING = Turnover(1, 1, 0, 0, 0)


def right(*numbers):
    return np.array(numbers, dtype=bool)


def test_by_hand():
    course = StepCourse(np.array([0, 0, 1, 1, 2]), 4)
    course.add(right(1, 1, 0, 0, 0), right(1, 0, 0, 0), Turnover(3, 3, 0, 10, 20))
    course.add(right(1, 0, 1, 1, 0), right(1, 1, 0, 1), Turnover(4, 1, 0, 15, 25))
    course.add(right(1, 1, 0, 0, 1), right(1, 0, 1, 1), Turnover(3, 1, 2, 18, 30))
    assert course.results == [
        StepResult(1, 3, 3, 0, 1, 1, 1.0, None, 1.0, 1.0, None, 10, 20),
        # The class without a test sample counts among the classes, and in no accuracy.
        StepResult(2, 4, 1, 0, 3, 2, 0.75, 0.5, 1.0, 0.875, 0.5, 15, 25),
        # Class 1 is gone with whoever held it: it has been forgotten.
        StepResult(3, 3, 1, 2, 4, 1, 0.6, 0.5, 1.0, pytest.approx((1 + 0.75 + 0.6) / 3), 0.5, 18, 30),
    ]


@given(st.lists(st.tuples(st.integers(0, 2**12 - 1), st.integers(0, 15)), min_size=1, max_size=5))
def test_as_written_down_plainly(steps):
    labels = np.arange(12) % 3
    course = StepCourse(labels, 4)
    seen, best, accuracies = set(), {}, []
    for bits, classes in steps:
        marks = np.array([bits >> i & 1 for i in range(12)], dtype=bool)
        present = np.array([classes >> c & 1 for c in range(4)], dtype=bool)
        old = set(seen)
        new = set(np.flatnonzero(present).tolist()) - seen
        seen |= new
        found = course.add(marks, present, NOTHING)

        def on(classes, marks=marks):
            own = [marks[i] for i in range(12) if labels[i] in classes]
            return sum(own) / len(own) if own else None

        assert (found.classes, found.new_classes) == (len(seen), len(new))
        assert (found.accuracy, found.old_accuracy, found.new_accuracy) == (on(seen), on(old), on(new))
        drops = [best[c] - on({c}) for c in old if c != 3]
        assert found.forgetting == (pytest.approx(np.mean(drops)) if drops else None)
        best |= {c: max(best.get(c, 0.0), on({c})) for c in seen if c != 3}
        accuracies += [] if on(seen) is None else [on(seen)]
        assert found.average_accuracy == (pytest.approx(np.mean(accuracies)) if accuracies else None)


def test_no_test_sample_is_no_accuracy():
    found = StepCourse(np.zeros(0, np.int64), 2).add(right(), right(1, 1), NOTHING)
    assert found.accuracy is found.new_accuracy is found.average_accuracy is found.forgetting is None


def test_files_without_steps_and_with_them_are_read(tmp_path):
    plain = RunResult("fedcof", 0, 0.5, 1, 1, 1, 0, 1.0, {"seed": 0})
    append_result(tmp_path, plain)
    path = tmp_path / "results.json"
    before = path.read_text()
    # As earlier versions wrote it.
    path.write_text(before.replace('"steps": [],', ""))
    assert path.read_text() != before
    assert load_results(tmp_path)[0].steps == []
    path.write_text(before.replace('"steps": []', '"steps": [{"step": "one"}]'))
    with pytest.raises(Exception, match="is not a results file"):
        load_results(tmp_path)
