"""Tables on terminals of any width: what is left out is said, and method and accuracy are always whole."""

import io
import os
import subprocess
import sys

import pytest
from rich.console import Console

from fedcof.run.config import RunConfig
from fedcof.run.results import RunResult
from simulations import terminal
from simulations.display import comparison_table, results_table
from simulations.terminal import TextTable
from tests.environments import ROOT, accuracies


def result(method="fedcof", accuracy=0.8833, **values):
    config = RunConfig(method=method, **values)
    return RunResult(method, config.data.seed, accuracy, 590_000, 1_100_000, 20, 0, 1.6, config.to_mapping())


def drawn(table, width, encoding="utf-8"):
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="replace")
    Console(file=file, width=width, markup=False, emoji=False).print(table)
    file.flush()
    return file.buffer.getvalue().decode(encoding)


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
@pytest.mark.parametrize("width", [30, 40, 60, 80, 200])
def test_method_and_accuracy_are_whole_at_any_width(width, encoding):
    text = drawn(results_table([result("fedncm", 0.7861), result()], []), width, encoding)
    assert accuracies(text) == {"fedncm": "78.61", "fedcof": "88.33"}
    assert all(len(line) <= width for line in text.splitlines())
    assert "…" not in text
    shown, _, left_out = text.partition("No room for")
    shown, left_out = shown.replace("seeds", ""), " ".join(left_out.split())
    for heading in ("time s", "clients", "downlink MB", "seed", "uplink MB"):
        assert (heading in shown) is (heading not in left_out), heading


def test_the_least_important_columns_go_first():
    runs = [result("fedncm"), result()]
    shown = {width: drawn(results_table(runs, []), width).split("No room for")[0] for width in (75, 74, 60, 40)}
    assert "time s" in shown[75]
    assert "time s" not in shown[74]
    assert "clients" in shown[74]
    assert "uplink MB" in shown[60].replace("downlink MB", "")
    assert "clients" not in shown[60]
    assert "downlink MB" not in shown[40]


@pytest.mark.parametrize("width", [40, 60, 80])
def test_long_values_are_wrapped_and_the_method_is_not(width):
    runs = [
        result(seed=seed, dataset=f"folder:/data/{'x' * 60}/{seed % 2}", alpha=0.5 + seed % 2) for seed in range(4)
    ]
    text = drawn(comparison_table(runs, ["dataset", "alpha"]), width)
    assert accuracies(text) == {"fedcof": "88.33 ± 0.00"}
    assert all(len(line) <= width for line in text.splitlines())
    assert text.count("x") >= 2 * 60
    assert "…" not in text


def test_a_table_is_drawn_the_same_again():
    table = results_table([result()], [])
    assert drawn(table, 40) == drawn(table, 40)
    assert "time s" in drawn(table, 200)


@pytest.mark.parametrize("width", [40, 60, 80])
def test_how_far_it_is_is_whole_at_any_width(width, monkeypatch):
    file = io.StringIO()
    monkeypatch.setattr(
        terminal, "console", Console(file=file, width=width, force_terminal=True, color_system=None)
    )
    with terminal.progress_bars() as bars:
        bars.update(bars.add_task("Embed train images", total=1437), advance=700)
    assert "Embed train images" in file.getvalue()
    assert "700/1437" in file.getvalue()
    assert "0:00:0" in file.getvalue()
    assert "…" not in file.getvalue()


def test_wide_letters_take_their_room():
    table = TextTable(["method", "name"], ["accuracy %"])
    table.add_texts("方法の名前", "値" * 30, "1.00")
    text = drawn(table, 44)
    assert "方法の名前" in text
    assert text.count("値") == 30


@pytest.mark.parametrize(("columns", "width"), [("40", 40), ("0", 160), ("wide", 160), ("", 160), (None, 160)])
def test_what_a_terminal_says_of_its_width(columns, width):
    variables = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    variables |= {} if columns is None else {"COLUMNS": columns}
    code = "from simulations.terminal import console; print(console.width)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=variables,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=True,
    )
    assert int(done.stdout) == width
