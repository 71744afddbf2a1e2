"""Comparisons of the forms of methods, the papers' and this package's: what they are called, and made again by."""

import csv
import io
from dataclasses import replace

from fedcof.run.results import append_result
from simulations.comparison import comparison_runs
from simulations.report.commands_of_runs import compare_command
from simulations.report.plot_accuracy import accuracy_against_bytes
from simulations.report.seed_averages import averages_over_seeds
from simulations.report.sentences import reading
from simulations.report.writing import comparison_csv, write_report
from simulations.scenario import scenario_values
from tests.simulations.report.test_report import page_rows, run, runs_of_command


def as_compared(methods, accuracies, settings=()):
    """Make the runs of a comparison of digits, of these accuracies."""
    made = comparison_runs(scenario_values("digits", list(settings)), methods, ["0"]).values()
    return [
        replace(run(config.method.name, accuracy=a), config=config.to_mapping())
        for config, a in zip(made, accuracies, strict=True)
    ]


def test_what_everybody_compares_is_labelled_by_the_forms_of_the_methods(tmp_path):
    results = as_compared(["fedncm:paper", "fed3r:paper", "fedcof:paper", "fedcof"], [0.5, 0.61, 0.6, 0.63])
    averages = averages_over_seeds(results)
    assert [average.label for average in averages] == [
        "fedncm, paper's form",
        "fed3r, paper's form",
        "fedcof, paper's form",
        "fedcof, default form",
    ]
    assert reading(averages)[0] == (
        "FedCOF is 10.0 points more accurate than FedNCM on the same upload (fedncm, paper's form)."
    )
    names = {text.get_text() for text in accuracy_against_bytes(averages).axes[0].texts}
    assert names == {"paper's form", "default form"}
    for result in results:
        append_result(tmp_path, result)
    rows = page_rows(write_report(tmp_path).read_text())
    assert [(row["head"], row["upload"]) for row in rows if row["method"] == "fedcof"] == [
        ("ridge", "paper"),
        ("quadratic", "best"),
    ]
    assert [config.to_mapping() for config in runs_of_command(compare_command(results)).values()] == [
        result.config for result in results
    ]


def test_between_the_forms_each_key_is_said():
    results = as_compared(["fedcof:paper", "fedcof"], [0.6, 0.63]) + as_compared(["fedcof"], [0.62], ["head=ridge"])
    assert [average.label for average in averages_over_seeds(results)] == [
        "fedcof, paper's form",
        "fedcof, default form",
        "fedcof, feature-transform power, head ridge, upload best",
    ]
    assert [average.label for average in averages_over_seeds(results[1:])] == [
        "fedcof, head quadratic",
        "fedcof, head ridge",
    ]


def test_that_an_encoding_is_given_goes_without_saying_where_it_is_said():
    results = as_compared(["fedcof"], [0.6, 0.61], ["encoding=[float32,int8]"])
    assert [average.label for average in averages_over_seeds(results)] == [
        "fedcof, encoding float32",
        "fedcof, encoding int8",
    ]


def test_the_table_tells_whose_uploads_were_left_out():
    whole = run()
    less = replace(whole, without={"ward-3": "--without", "ward-5": "--without"})
    lines = list(csv.DictReader(io.StringIO(comparison_csv(averages_over_seeds([whole, less])))))
    assert [line["without"] for line in lines] == ["", "ward-3;ward-5"]
