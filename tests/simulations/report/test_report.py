"""The report: its numbers are those of results.json, it stands alone, and text is never taken for markup."""

import csv
import io
import json
import os
import re
import shlex
from dataclasses import asdict, replace
from html.parser import HTMLParser

import numpy as np
import pytest

from fedcof import UserError
from fedcof.covariance.diagnostic import CovarianceDiagnostic
from fedcof.run.config import RunConfig
from fedcof.run.results import RoundResult, RunResult, append_result, load_results
from simulations.comparison import comparison_runs
from simulations.report.commands_of_runs import command_of, compare_command
from simulations.report.seed_averages import averages_over_seeds
from simulations.report.sentences import reading
from simulations.report.writing import write_report
from simulations.scenario import configure, scenario_values


def run(method="fedcof", seed=0, accuracy=0.6, uplink=17_000_000, rounds=1, classes=10, **values):
    config = RunConfig.from_mapping({"method": method, "seed": seed, "upload": "given", **values})
    history = [RoundResult(i + 1, 5, accuracy * (i + 1) / rounds, uplink // (rounds - i), 9) for i in range(rounds)]
    return RunResult(
        method,
        seed,
        accuracy,
        uplink,
        51_000,
        20,
        0,
        1.5,
        config.to_mapping(),
        class_names=[f"class {i}" for i in range(classes)],
        class_accuracy=[None, *np.linspace(0.1, 0.9, classes - 1)],
        rounds=history,
        expected_uplink_bytes=int(uplink * 0.99),
        head=f"{method}-{seed}/head.safetensors",
    )


@pytest.fixture
def folder(tmp_path):
    runs = [run(seed=seed, accuracy=0.6 + seed / 100) for seed in range(3)]
    runs += [run(seed=seed, accuracy=0.61, uplink=4_600_000, encoding="int8") for seed in range(3)]
    runs += [run("fedncm", seed, 0.53) for seed in range(3)]
    runs += [run("fed3r", seed, 0.609, 345_000_000) for seed in range(3)]
    runs += [run("oracle", seed, 0.612, 0) for seed in range(3)]
    for result in runs:
        append_result(tmp_path, result)
    (tmp_path / "fedcof-0").mkdir()
    np.savez(tmp_path / "fedcof-0" / "federation.npz", counts=np.eye(20, 10, dtype=np.int32) * 7)
    return tmp_path


NEVER = "\N{EN DASH}"


class TableReader(HTMLParser):
    def __init__(self):
        super().__init__()
        self.rows, self.in_cell = [], False

    def handle_starttag(self, tag, attributes):
        if tag == "tr":
            self.rows.append([])
        self.in_cell = tag in ("td", "th")
        if self.in_cell:
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        self.in_cell = False

    def handle_data(self, data):
        if self.in_cell:
            self.rows[-1][-1] += data


def page_rows(page, table="comparison"):
    reader = TableReader()
    reader.feed(re.search(rf'<table id="{table}">.*?</table>', page, re.DOTALL).group())
    return [dict(zip(reader.rows[0], row, strict=True)) for row in reader.rows[1:]]


def test_page_and_csv_have_the_numbers_of_the_results(folder):
    page = write_report(folder).read_text()
    lines = list(csv.DictReader(io.StringIO((folder / "comparison.csv").read_text())))
    rows = page_rows(page)
    assert len(lines) == len(rows) == 5
    runs = json.loads((folder / "results.json").read_text())
    for line, row in zip(lines, rows, strict=True):
        mine = [
            r for r in runs if r["method"] == line["method"] and line["encoding"] in ("", r["config"]["encoding"])
        ]
        accuracy = [r["accuracy"] for r in mine]
        assert float(line["accuracy"]) == pytest.approx(np.mean(accuracy))
        assert float(line["accuracy_deviation"]) == pytest.approx(np.std(accuracy, ddof=1), abs=1e-12)
        assert float(line["uplink_bytes"]) == np.mean([r["uplink_bytes"] for r in mine])
        assert row["accuracy, %"] == f"{np.mean(accuracy) * 100:.2f}"
        assert row["uplink, MB"] == f"{mine[0]['uplink_bytes'] / 1e6:.3f}"
        assert row["downlink, MB"] == f"{mine[0]['downlink_bytes'] / 1e6:.3f}"
        assert (row["clients"], row["left out"], row["seeds"]) == ("20", "0", str(len(mine)))
        assert (line["clients"], line["clients_rejected"], line["seeds"]) == ("20", "0", "3")
    assert "FedCOF is 8.0 points more accurate than FedNCM on the same upload" in page
    assert "Fed3R is 0.1 points less accurate than the best of 2 settings of FedCOF here" in page


def test_measured_bytes_stand_beside_the_formula(folder):
    rows = page_rows(write_report(folder).read_text(), "bytes")
    assert [row["method"] for row in rows] == ["fedncm", "fedcof", "fedcof", "fed3r"]
    for row in rows:
        measured = int(row["uplink measured, bytes"].replace(",", ""))
        formula = int(row["by formula, bytes"].replace(",", ""))
        assert formula == int(measured * 0.99)
        assert row["overhead, %"] == "1.01"


def test_one_seed_has_no_deviation(tmp_path):
    append_result(tmp_path, run())
    row = page_rows(write_report(tmp_path).read_text())[0]
    line = next(csv.DictReader(io.StringIO((tmp_path / "comparison.csv").read_text())))
    assert row["±"] == line["accuracy_deviation"] == ""


def test_the_page_stands_alone_and_the_pictures_lie_beside_it(folder):
    page = write_report(folder).read_text()
    assert not re.search(r'(src|href)="(?!data:)', page)
    assert "http" not in page
    assert page.count("data:image/png;base64,") == 3
    for name in ("accuracy_vs_bytes", "class_accuracy", "federation"):
        assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert not (folder / "rounds.png").exists()


@pytest.mark.parametrize("classes", [3, 100])
def test_a_single_run_over_rounds(tmp_path, classes):
    append_result(tmp_path, run(rounds=4, classes=classes))
    page = write_report(tmp_path).read_text()
    assert (tmp_path / "rounds.png").exists()
    assert "1 run on digits" in page


def test_text_is_not_markup(tmp_path):
    result = run(**{"dataset": "folder:/data/<b>x"})
    append_result(tmp_path, RunResult(**{**vars(result), "rejected": {"3": "<script>alert(1)</script>"}}))
    page = write_report(tmp_path).read_text()
    assert "<script>" not in page
    assert "<b>x" not in page
    assert "&lt;script&gt;" in page


def test_the_command_makes_the_same_configuration(tmp_path):
    result = run(alpha=0.5, dataset=f"folder:{tmp_path}/a b", **{"feature-cache": False, "shrinkage": "oas"})
    command = command_of(result)
    assert command.startswith("fedcof simulate digits ")
    words = shlex.split(command)[3:]
    assert configure("digits", words[1::2]).to_mapping() == result.config


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(UserError, match="holds no finished run"):
        write_report(tmp_path)


def test_results_come_back_as_they_were(tmp_path):
    result = run(rounds=3)
    append_result(tmp_path, result)
    assert load_results(tmp_path) == [result]
    append_result(tmp_path, RunResult(**{**asdict(result), "accuracy": 0.7, "rounds": result.rounds}))
    assert [found.accuracy for found in load_results(tmp_path)] == [0.7]


def test_settings_leave_out_what_means_nothing_to_a_method():
    settings = averages_over_seeds([run(), run(encoding="int8"), run("fed3r")])
    assert [setting.label for setting in settings] == ["fedcof, encoding float32", "fedcof, encoding int8", "fed3r"]


def test_a_key_in_which_only_methods_differ_is_a_column(tmp_path):
    append_result(tmp_path, run("fedncm", alpha=0.5))
    append_result(tmp_path, run(alpha=1.0))
    page = write_report(tmp_path).read_text()
    assert [row["alpha"] for row in page_rows(page)] == ["0.5", "1.0"]
    assert "<dt>alpha</dt>" not in page


def test_no_path_of_the_machine_is_told(tmp_path):
    result = run(dataset="parquet:/home/someone/sets/birds", weights="/home/someone/net.pt")
    reasons = {"3": "FileNotFoundError: '/home/someone/sets/birds/train.parquet'", "12": "timeout", "4": "timeout"}
    append_result(tmp_path, RunResult(**{**vars(result), "rejected": reasons, "clients_rejected": 3}))
    page = write_report(tmp_path).read_text()
    assert "/home" not in page
    assert str(tmp_path) not in page + (tmp_path / "comparison.csv").read_text()
    assert "dataset=parquet:birds" in page
    assert "Run this in the folder that holds birds, net.pt." in page
    rows = page_rows(page, "rejected")
    assert [(row["clients"], row["why"]) for row in rows] == [
        ("3", "FileNotFoundError: '…/train.parquet'"),
        ("4, 12", "timeout"),
    ]


def test_nothing_is_compared_across_federations_or_seeds():
    few, many = run("fedncm", **{"num-clients": 10}), run(**{"num-clients": 100})
    assert reading(averages_over_seeds([few, many])) == []
    assert reading(averages_over_seeds([run("fedncm", 1), run(seed=2)])) == []
    assert reading(averages_over_seeds([run("fedncm", encoding="int8"), run()])) == []
    lost = RunResult(**{**vars(run()), "clients": 15, "clients_rejected": 5})
    assert reading(averages_over_seeds([run("fedncm"), lost])) == []
    assert reading(averages_over_seeds([run("fedncm"), run(uplink=0)])) == [
        "FedCOF is as accurate (to 0.1 points) as FedNCM on the same upload."
    ]
    assert reading(averages_over_seeds([run("fed3r"), run(uplink=0)]))[0].endswith("as FedCOF.")


def test_only_the_best_of_several_oracles_is_spoken_of():
    runs = [run("oracle", accuracy=a, uplink=0, shrinkage=s) for a, s in ((0.61, 0.1), (0.63, 0.2), (0.62, 0.3))]
    assert reading(averages_over_seeds([*runs, run()])) == [
        "The oracle (shrinkage 0.2) is 3.0 points more accurate than FedCOF (shrinkage leave-one-out)."
    ]


def test_several_settings_on_one_upload_are_told_as_a_range():
    runs = [run("fedncm", accuracy=0.5), run(accuracy=0.51, head="lda"), run(accuracy=0.49)]
    assert reading(averages_over_seeds(runs))[0] == (
        "2 settings of FedCOF are -1.0 to +1.0 points from FedNCM on the same upload."
    )


def test_the_compare_command_makes_all_runs(folder):
    # A comparison leaves keys without effect at their defaults.
    forms = {("fedncm", e): {"encoding": e, "upload": "best"} for e in ("float32", "int8")}
    forms |= {("fedcof", "float32"): {}, ("fedcof", "int8"): {"encoding": "int8", "upload": "best"}}
    results = [run(method, seed, **form) for (method, _), form in forms.items() for seed in (0, 1)]
    made = runs_of_command(compare_command([*results, *(run("fed3r", s, upload="best") for s in (0, 1))]))
    assert len(made) == 10
    assert all(result.config in [config.to_mapping() for config in made.values()] for result in results)
    assert compare_command(results[:-1]) is None
    assert 'id="compare"' not in write_report(folder).read_text()


def runs_of_command(command):
    words = shlex.split(str(command))
    assert words[:3] == ["fedcof", "compare", "digits"]
    assert words[3:7:2] == ["--methods", "--seeds"]
    return comparison_runs(scenario_values("digits", words[8::2]), words[4].split(","), words[6].split(","))


def test_classes_without_test_samples_and_broken_counts_do_not_stop_the_report(tmp_path):
    result = run(classes=3)
    append_result(tmp_path, RunResult(**{**vars(result), "class_accuracy": [None] * 3, "uplink_bytes": 0}))
    (tmp_path / "fedcof-0").mkdir()
    (tmp_path / "fedcof-0" / "federation.npz").write_bytes(b"PK broken")
    page = write_report(tmp_path).read_text()
    assert "The federation" not in page
    assert not (tmp_path / "accuracy_vs_bytes.png").exists()
    assert page_rows(page, "bytes")[0]["uplink measured, bytes"] == "0"


def test_no_link_leads_the_report_out_of_its_folder(tmp_path):
    folder, elsewhere = tmp_path / "results", tmp_path / "elsewhere.npz"
    append_result(folder, run(classes=10))
    (folder / "fedcof-0").mkdir()
    counts = np.eye(20, 10, dtype=np.int32) * 7
    np.savez(folder / "fedcof-0" / "federation.npz", counts=counts)
    assert "The federation" in write_report(folder).read_text()
    np.savez(elsewhere, counts=counts)
    (folder / "fedcof-0" / "federation.npz").unlink()
    (folder / "fedcof-0" / "federation.npz").symlink_to(elsewhere)
    assert "The federation" not in write_report(folder).read_text()
    (folder / "fedcof-0" / "federation.npz").unlink()
    # To open a pipe would wait for somebody to write to it.
    os.mkfifo(folder / "fedcof-0" / "federation.npz")
    assert "The federation" not in write_report(folder).read_text()


def test_the_same_results_give_the_same_page(folder):
    first = write_report(folder).read_bytes()
    assert write_report(folder).read_bytes() == first


def test_starts_say_how_soon_they_are_as_good_as_another_ends(tmp_path):
    courses = {"random": [0.1, 0.3, 0.5], "fedncm": [0.4, 0.5, 0.6], "fedcof": [0.55, 0.6, 0.7]}
    for method, accuracies in courses.items():
        for seed in (0, 1):
            first = 0 if method == "random" else 1
            rounds = [
                RoundResult(first + i, 5, a, 10**6 * (i + first), 9, phase="train" if i else "start")
                for i, a in enumerate(accuracies)
            ]
            result = run(
                method, seed, accuracy=accuracies[-1], **{"continue": "linear-probe", "continue-rounds": 2}
            )
            append_result(tmp_path, RunResult(**{**vars(result), "rounds": rounds}))
    rows = page_rows(write_report(tmp_path).read_text(), "starts")
    assert rows == [
        {"start": "random", "50.00 % (random)": "2 (2.0 MB)", "60.00 % (fedncm)": NEVER, "70.00 % (fedcof)": NEVER},
        {
            "start": "fedncm",
            "50.00 % (random)": "1 (2.0 MB)",
            "60.00 % (fedncm)": "2 (3.0 MB)",
            "70.00 % (fedcof)": NEVER,
        },
        {
            "start": "fedcof",
            "50.00 % (random)": "0 (1.0 MB)",
            "60.00 % (fedncm)": "1 (2.0 MB)",
            "70.00 % (fedcof)": "2 (3.0 MB)",
        },
    ]
    assert (tmp_path / "rounds.png").exists()


def test_one_start_is_compared_with_nothing(folder):
    assert 'id="starts"' not in write_report(folder).read_text()


def diagnostic(**values):
    spectrum = {"ranks": [1, 2, 4], "spectrum": [3.0, 1.0, 0.0], "shrunk_spectrum": [2.9, 1.0, 0.1]}
    numbers = {"relative_error": 0.25, "shrunk_error": 0.2, "effective_rank": 12.0, "oracle_effective_rank": 14.0}
    numbers |= {"condition": 29.0, "captured": 0.9, "rows_per_class": 20.0, "oracle_accuracy": 0.61}
    return CovarianceDiagnostic(**{**numbers, **spectrum, "oracle_spectrum": [3.1, 1.1, 0.2], **values})


def test_the_covariance_has_a_section_where_runs_were_asked_for_it(tmp_path, folder):
    assert "How good the covariance is" not in write_report(folder).read_text()
    for seed, error in ((0, 0.2), (1, 0.3)):
        diagnosed = replace(run(seed=seed, diagnose=True), covariance=diagnostic(relative_error=error))
        append_result(tmp_path / "diagnosed", diagnosed)
    page = write_report(tmp_path / "diagnosed").read_text()
    (row,) = page_rows(page, "covariance")
    assert (row["setting"], row["rows per class"], row["error, %"]) == ("fedcof", "20.0", "25.0")
    assert (tmp_path / "diagnosed" / "spectra.png").stat().st_size > 10_000


def test_a_setting_of_which_one_run_has_no_diagnostic_has_none(tmp_path):
    (setting,) = averages_over_seeds([replace(run(), covariance=diagnostic()), run(seed=1)])
    assert setting.diagnostic is None
    (setting,) = averages_over_seeds([replace(run(seed=s), covariance=diagnostic(condition=None)) for s in (0, 1)])
    assert setting.diagnostic.condition is None
    assert setting.diagnostic.ranks == [1, 2, 4]
