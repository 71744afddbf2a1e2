"""The page: what failed is on it, what was not used is not, and a window of 1,200 pixels shows every column."""

import re
import shutil
import subprocess
from dataclasses import replace

import pytest

from fedcof import UserError
from fedcof.run.client_accuracy import ClientAccuracy, Spread
from fedcof.run.config import RunConfig
from fedcof.run.failures import RunFailure, note_failure
from fedcof.run.results import NodeResult, append_result
from fedcof.run.sample_groups import AccuracyBySamples, GroupAccuracy
from simulations.display import alike_sentence, clients_sentence, samples_sentence
from simulations.report.commands_of_runs import compare_command
from simulations.report.writing import write_report
from tests.simulations.report.test_report import page_rows, run

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def test_runs_that_failed_stand_on_the_page_with_their_sentence(tmp_path):
    append_result(tmp_path, run())
    for seed in (0, 1):
        config = RunConfig(num_clients=5000, seed=seed, upload="given")
        note_failure(tmp_path, RunFailure.of(config, "No <b>samples</b> in /home/someone/birds."))
    note_failure(tmp_path, RunFailure.of(RunConfig(method="fedncm"), "Too few."))
    page = write_report(tmp_path).read_text()
    assert page_rows(page, "failed") == [
        {"setting": "fedncm, num-clients 20", "seeds": "0", "why": "Too few."},
        {"setting": "fedcof, num-clients 5000", "seeds": "0, 1", "why": "No <b>samples</b> in …/birds."},
    ]
    assert "<b>" not in page
    assert [row["method"] for row in page_rows(page)] == ["fedcof"]
    assert "num-clients" not in page_rows(page)[0]
    assert "1 run on digits" in page


def test_what_the_clients_get_is_on_the_page_and_in_a_line(tmp_path):
    for seed, gain in ((0, 0.0), (1, 0.02)):
        spreads = [Spread(mean + gain, worst) for mean, worst in ((0.5, 0.1), (0.7, 0.25), (0.75, 0.3))]
        append_result(tmp_path, replace(run(seed=seed), client_accuracy=ClientAccuracy(20, *spreads)))
    append_result(tmp_path, run("fedncm"))
    page = write_report(tmp_path).read_text()
    (row,) = page_rows(page, "clients")
    assert row.pop("worst tenth, %") == "30.00"
    assert row == {
        "setting": "fedcof",
        "all classes, %": "51.00",
        "classes held, %": "71.00",
        "own prior, %": "76.00",
    }
    assert clients_sentence(ClientAccuracy(20, *spreads)).startswith(
        "A client gets 52.00 % (worst tenth 10.00 %) of its own kind of samples right, 72.00 % (worst tenth 25"
    )
    append_result(tmp_path / "earlier", run("fedncm"))
    assert "What the clients get" not in write_report(tmp_path / "earlier").read_text()


def test_classes_with_few_samples_are_on_the_page_and_in_a_line_where_others_have_more(tmp_path):
    few, many = GroupAccuracy(3, 0.4), GroupAccuracy(7, 0.8)
    for seed, none in ((0, 0.0), (1, 0.02)):
        found = AccuracyBySamples(GroupAccuracy(2, none), few, many)
        append_result(tmp_path, replace(run(seed=seed), accuracy_by_samples=found))
    alone = AccuracyBySamples(GroupAccuracy(0, None), GroupAccuracy(0, None), GroupAccuracy(10, 0.6))
    append_result(tmp_path, replace(run("fedncm"), accuracy_by_samples=alone))
    (row,) = page_rows(write_report(tmp_path).read_text(), "by-samples")
    assert row == {
        "setting": "fedcof",
        "without samples": "2",
        "accuracy without, %": "1.00",
        "with few": "3",
        "accuracy with few, %": "40.00",
        "with many": "7",
        "accuracy with many, %": "80.00",
    }
    assert samples_sentence(found) == (
        "Of the test samples of classes with no training sample (2) 2.00 %, with 1 to 20 (3) 40.00 %, with more "
        "than 20 (7) 80.00 % are right."
    )
    append_result(tmp_path / "plain", replace(run("fedncm"), accuracy_by_samples=alone))
    assert "few samples" not in write_report(tmp_path / "plain").read_text()


def test_a_covariance_that_nothing_shows_is_said():
    seen, unseen, given_one = run(), replace(run(), shrinkage=1.0), replace(run(), shrinkage=1.0)
    given_one.config["shrinkage"] = 1.0
    unseen = replace(unseen, config={**unseen.config, "shrinkage": "leave-one-out"})
    assert alike_sentence([replace(seen, shrinkage=0.5), given_one, replace(seen, shrinkage=None)]) == ""
    assert alike_sentence([seen, unseen]).startswith("In 1 of 2 runs (fedcof) nothing shows how samples of a class")


def test_without_failures_nothing_is_said_of_any(tmp_path):
    append_result(tmp_path, run())
    assert "failed" not in write_report(tmp_path).read_text()


def test_a_folder_of_failures_alone_has_no_report(tmp_path):
    note_failure(tmp_path, RunFailure.of(RunConfig(), "Too few."))
    with pytest.raises(UserError, match=r"holds no finished run but 1 that failed \(Too few\)"):
        write_report(tmp_path)


def test_features_computed_elsewhere_have_no_backbone_on_the_page(tmp_path):
    append_result(tmp_path, run(dataset="features:/data/birds"))
    page = write_report(tmp_path).read_text()
    assert "backbone" not in page
    assert "lite0" not in page
    append_result(tmp_path / "images", run())
    assert "The backbone is not counted" in write_report(tmp_path / "images").read_text()


SHORT = {"alpha": 0.5, "encoding": "float16", "estimator": "pooled", "head": "lda", "image-size": 224}
MANY = {"dataset": "folder:/data/" + "wide-" * 12, "weights": "/models/" + "a-very-long-name-of-weights-" * 3}
MANY |= {"backbone": "vit_base_patch16_clip_quickgelu_224.some_long_tag_ft_in1k", "partition": "dirichlet", **SHORT}
MANY |= {"groups": 4, "client-test-share": 0.25, "bytes-per-class": 0, "rounding-noise": 0.1, "fraction": 0.5}
MANY |= {"shrinkage": "ledoit-wolf", "init-rounds": 2, "broadcast": False, "quorum": 0.123456789}
MANY |= {"backbone-learning-rate": 0.12345678, "continue-rounds": 9, "reply-timeout": 123456.0}
MANY |= {"learning-rate-schedule": "cosine", "continue-strategy": "fedavgm"}


def test_a_million_combinations_are_not_laid_out_for_a_command(tmp_path):
    values = RunConfig.defaults() | MANY
    results = [run(), replace(run(), config=values)]
    assert compare_command(results) is None


@pytest.mark.skipif(not BROWSER, reason="needs a browser")
@pytest.mark.parametrize("values", [SHORT, MANY], ids=["short", "many"])
def test_a_window_of_1200_pixels_shows_every_column(values, tmp_path):
    folder = tmp_path / "run"
    defaults = RunConfig.defaults()
    other = {key: value if value == defaults[key] else defaults[key] for key, value in values.items()}
    nodes = [NodeResult("hospital-" + "x" * 60, "left out: " + "because " * 30, 123456, 123, 1)]
    for number, chosen in enumerate((values, other)):
        result = run(seed=number, accuracy=0.5 + number / 10)
        config = {**result.config, **chosen, "seed": 0}
        result = replace(result, config=config, seed=0, nodes=nodes, uplink_bytes=10**12, shrinkage=0.00123456)
        append_result(folder, replace(result, rejected={"3": "its " + "y" * 100}, clients_rejected=1))
        note_failure(folder, RunFailure("fedcof", number, "A sentence " + "z" * 300, {**config, "seed": number}))
    page = write_report(folder).read_text()
    assert ("alpha" in page_rows(page)[0]) == (values is SHORT)
    script = """<script>document.title = [...document.querySelectorAll("table")].map(
        (t) => [t.id, document.documentElement.clientWidth, Math.ceil(t.getBoundingClientRect().right),
            t.parentElement.scrollWidth - t.parentElement.clientWidth].join(" ")).join(";")</script>"""
    (tmp_path / "page.html").write_text(page.replace("</body>", f"{script}</body>"))
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
    options += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    options += [f"--user-data-dir={tmp_path / 'browser'}", "--window-size=1200,2600", "--dump-dom"]
    ended = subprocess.run(
        [BROWSER, *options, f"file://{tmp_path / 'page.html'}"],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    measured = [line.split() for line in re.search("<title>(.*?)</title>", ended.stdout)[1].split(";")]
    assert {"comparison", "nodes", "rejected", "failed", "bytes"} <= {name for name, *_ in measured}
    for name, width, right, hidden in measured:
        assert int(right) <= int(width), name
        assert int(hidden) <= 0, name
