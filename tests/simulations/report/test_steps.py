"""Steps in the table of the terminal, and in the report's table and picture."""

from dataclasses import replace

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from fedcof.run.results import append_result
from fedcof.run.steps import StepResult
from simulations.report.plot_steps import accuracy_over_steps
from simulations.report.seed_averages import averages_over_seeds
from simulations.report.step_averages import step_averages
from simulations.report.writing import write_report
from simulations.steps_table import steps_table
from tests.simulations.report.test_report import page_rows, run

STEPS = [
    StepResult(1, 20, 20, 0, 5, 5, 0.9, None, 0.9, 0.9, None, 1_000_000, 100_000),
    StepResult(2, 19, 18, 1, 10, 5, 0.7, 0.6, 0.8, 0.8, 0.125, 2_500_000, 200_000),
]


def in_steps(seed=0, steps=tuple(STEPS), **values):
    return replace(run(seed=seed, rounds=len(steps), **{"class-steps": 2}, **values), steps=list(steps))


def test_the_terminal_has_a_row_a_step():
    table = steps_table(STEPS)
    rows = list(zip(*([str(cell) for cell in column.cells] for column in table.columns), strict=True))
    assert rows[0] == ("1", "20", "20", "0", "5", "90.00", "-", "90.00", "90.00", "-", "1.00", "0.10")
    assert rows[1] == ("2", "19", "18", "1", "10", "70.00", "60.00", "80.00", "80.00", "12.50", "2.50", "0.20")


def test_seeds_are_averaged_as_far_as_all_went():
    other = [replace(STEPS[0], accuracy=0.8), replace(STEPS[1], forgetting=None, uploads=17), STEPS[1]]
    (average,) = averages_over_seeds([in_steps(0), in_steps(1, other)])
    first, second = step_averages(average)
    assert (first.accuracy, first.forgetting, second.uploads) == (pytest.approx(0.85), None, 17.5)
    # An average of which one is unknown is unknown.
    assert second.forgetting is None
    assert step_averages(averages_over_seeds([run()])[0]) == []


def test_the_report_has_a_section_a_picture_and_an_unchanged_csv(tmp_path):
    append_result(tmp_path, in_steps(0))
    append_result(tmp_path, in_steps(1, head="ridge"))
    append_result(tmp_path, run("fed3r", accuracy=0.5))
    page = write_report(tmp_path).read_text()
    rows = page_rows(page, "steps")
    assert [row["step"] for row in rows] == ["1", "2", "1", "2"]
    assert rows[1]["forgetting, points"] == "12.50"
    assert rows[1]["old classes, %"] == "60.00"
    assert rows[0]["old classes, %"] == "\N{EN DASH}"
    assert rows[1]["uplink, MB"] == "2.500"
    assert (tmp_path / "steps.png").is_file()
    assert not (tmp_path / "rounds.png").exists()
    assert "forgetting" not in (tmp_path / "comparison.csv").read_text()


def test_a_report_without_steps_has_no_such_section(tmp_path):
    append_result(tmp_path, run())
    page = write_report(tmp_path).read_text()
    assert "Over the steps" not in page
    assert not (tmp_path / "steps.png").exists()


def test_the_picture_has_a_line_a_setting():
    averages = averages_over_seeds([in_steps(), in_steps(head="ridge")])
    figure = accuracy_over_steps(averages)
    FigureCanvasAgg(figure).draw()
    accuracy, forgetting = figure.axes
    assert [line.get_ydata().tolist() for line in accuracy.lines] == [[90.0, 70.0]] * 2
    assert [line.get_ydata().tolist()[1] for line in forgetting.lines] == [12.5] * 2
    assert len({line.get_linestyle() for line in accuracy.lines}) == 2
