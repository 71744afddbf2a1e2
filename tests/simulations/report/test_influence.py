"""What single clients have done: kept in results.json, and in the report, the most first."""

from dataclasses import replace

from fedcof.run.influence import ClientInfluence
from fedcof.run.results import append_result, load_results
from simulations.report.writing import write_report
from tests.simulations.report.test_report import page_rows, run

FOUND = [ClientInfluence("site-3", 0.25, 0.0125, 0.03), ClientInfluence("<site-1>", 0.01, None, None)]


def test_it_is_read_as_it_was_written_and_the_report_says_it(tmp_path):
    append_result(tmp_path, replace(run(), influence=FOUND))
    append_result(tmp_path, run("fedncm"))
    assert [result.influence for result in load_results(tmp_path)] == [FOUND, []]
    rows = page_rows(write_report(tmp_path).read_text(), "influence")
    assert [row["client"] for row in rows] == ["site-3", "<site-1>"]
    assert [row["weights change by, %"] for row in rows] == ["25.00", "1.00"]
    assert [row["others' class means gain, points"] for row in rows] == ["+1.25", "\N{EN DASH}"]
    assert [row["test samples gain, points"] for row in rows] == ["+3.00", "\N{EN DASH}"]


def test_a_report_without_it_does_not_mention_it(tmp_path):
    append_result(tmp_path, run())
    assert "single clients" not in write_report(tmp_path).read_text()
