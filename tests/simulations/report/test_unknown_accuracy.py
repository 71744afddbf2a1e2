"""Runs whose accuracy nobody may know: a dash, an empty cell, left out of pictures, never the best."""

import csv
import io
from dataclasses import replace

import pytest

from fedcof import UserError
from fedcof.run.results import RoundResult, append_result
from simulations.display import comparison_table, results_table
from simulations.prediction import best_run
from simulations.report.learning_curves import how_soon
from simulations.report.methods_and_keys import method_place, method_styles
from simulations.report.plot_accuracy import accuracy_against_bytes, accuracy_over_rounds, best_for_their_bytes
from simulations.report.seed_averages import averages_over_seeds, most_accurate_of_each_method
from simulations.report.sentences import reading
from simulations.report.writing import settings_in, write_report
from tests.simulations.report.test_report import NEVER, page_rows, run


def unknown(*arguments, **values):
    result = run(*arguments, **values)
    rounds = [replace(entry, accuracy=None) for entry in result.rounds]
    return replace(result, accuracy=None, class_accuracy=[None] * 10, rounds=rounds)


@pytest.mark.parametrize("seeds", [1, 2])
def test_the_report_says_a_dash_and_the_table_nothing(tmp_path, seeds):
    for seed in range(seeds):
        append_result(tmp_path, unknown(seed=seed))
        append_result(tmp_path, unknown("fedncm", seed, rounds=3))
    rows = page_rows(write_report(tmp_path).read_text())
    assert [(row["accuracy, %"], row["±"]) for row in rows] == [(NEVER, ""), (NEVER, "")]
    lines = list(csv.DictReader(io.StringIO((tmp_path / "comparison.csv").read_text())))
    assert [(line["accuracy"], line["accuracy_deviation"]) for line in lines] == [("", ""), ("", "")]
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".csv", ".html"}


@pytest.mark.parametrize(
    "results", [[unknown(), run(seed=1)], [run(), unknown(seed=1)], [unknown(), unknown(seed=1)]]
)
def test_an_average_over_an_unknown_accuracy_is_unknown(results):
    (average,) = averages_over_seeds(results)
    assert average.accuracy is average.accuracy_deviation is None
    assert next(iter(comparison_table(results, []).columns[2].cells)).plain == "-"
    cells = [cell.plain for cell in results_table(results, []).columns[2].cells]
    assert cells == ["-" if result.accuracy is None else "60.00" for result in results]


def test_the_known_ones_are_compared_drawn_and_chosen():
    results = [
        unknown(groups=2),
        run(accuracy=0.6),
        run("fedncm", accuracy=0.5),
        unknown("fed3r"),
        unknown("oracle"),
    ]
    averages = settings_in(results)
    assert [average.method for average in most_accurate_of_each_method(averages)] == ["fedncm", "fedcof"]
    assert most_accurate_of_each_method(averages)[1].values == {"groups": 1}
    assert reading(averages) == ["FedCOF is 10.0 points more accurate than FedNCM on the same upload."]
    (axes,) = accuracy_against_bytes(averages).axes
    assert len(axes.containers) == 2
    assert accuracy_over_rounds(settings_in([unknown(groups=2), run()])).axes[0].lines


def test_many_points_of_which_some_are_unknown_are_drawn():
    results = [run(groups=i, accuracy=i / 100, uplink=i * 10**6) for i in range(1, 20)]
    averages = averages_over_seeds([*results, unknown(groups=50)])
    assert len(best_for_their_bytes([a for a in averages if a.accuracy is not None])) == 19
    assert len(accuracy_against_bytes(averages).axes[0].containers) == 19


@pytest.mark.parametrize("last", [0.7, None])
def test_a_start_that_ends_unknown_is_not_among_those_compared(last):
    def trained(method, accuracies):
        phases = ["start", "train", "train"]
        rounds = [
            RoundResult(i, 5, a, 10**6, 9, phase=p) for i, (a, p) in enumerate(zip(accuracies, phases, strict=True))
        ]
        return replace(run(method, **{"continue": "linear-probe"}), rounds=rounds, accuracy=accuracies[-1])

    averages = averages_over_seeds([trained("fedncm", [0.4, None, 0.6]), trained("fedcof", [0.5, 0.6, last])])
    starts, reached = how_soon(averages)
    assert [start.method for start in starts] == (["fedncm", "fedcof"] if last else ["fedncm"])
    assert all(len(row) == len(starts) for row in reached)


def put(folder, *results):
    for number, result in enumerate(results):
        append_result(folder, replace(result, head=f"run-{number}/head.safetensors"))


@pytest.mark.parametrize("order", [slice(None), slice(None, None, -1)])
def test_an_unknown_accuracy_is_never_the_best(tmp_path, order):
    put(tmp_path, *[unknown(seed=0), run(seed=1, accuracy=0.0), unknown(seed=2)][order])
    assert best_run(tmp_path).accuracy == 0.0


def test_the_only_run_is_chosen_and_of_several_one_is_to_be_named(tmp_path):
    put(tmp_path, unknown(seed=3))
    assert best_run(tmp_path).seed == 3
    put(tmp_path, unknown(seed=3), unknown(seed=4))
    with pytest.raises(UserError, match=f"name the folder of one, {tmp_path}/run-0 or {tmp_path}/run-1"):
        best_run(tmp_path)
    chosen = best_run(tmp_path / "run-1")
    assert (chosen.seed, chosen.head) == (4, "head.safetensors")
    with pytest.raises(UserError, match="holds no finished run"):
        best_run(tmp_path / "run-2")


def test_methods_of_others_have_a_look_and_a_place_of_their_own(tmp_path):
    results = [replace(run(accuracy=0.5 + i / 100), method=name) for i, name in enumerate(("zeta", "alpha"))]
    results = [replace(result, config={**result.config, "method": result.method}) for result in results]
    append_result(tmp_path, run("oracle", uplink=0))
    for result in results:
        append_result(tmp_path, result)
    rows = page_rows(write_report(tmp_path).read_text())
    assert [row["method"] for row in rows] == ["oracle", "alpha", "zeta"]
    styles = method_styles(["zeta", "fedcof", "alpha"])
    assert len({style.colour for style in styles.values()}) == len({style.marker for style in styles.values()}) == 3
    assert styles["alpha"] == method_styles(["alpha", "zeta"])["alpha"]
    assert sorted(["zeta", "oracle", "alpha", "fedncm"], key=method_place) == ["fedncm", "oracle", "alpha", "zeta"]
