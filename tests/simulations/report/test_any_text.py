"""Names, reasons and values of others: in tables, lines, page and pictures they are as they were given."""

import io
import re
import warnings
from dataclasses import replace
from html import unescape
from itertools import cycle
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from rich.console import Console

from fedcof.printable import printable
from fedcof.run.results import NodeResult, append_result
from simulations import commands, display, predict_command
from simulations import terminal as terminal_module
from simulations.prediction import Prediction
from simulations.report import writing
from simulations.report.figure_style import drawn_quietly, plain_label
from simulations.report.plot_accuracy import accuracy_against_bytes, accuracy_over_rounds
from simulations.report.plot_classes import class_accuracy
from simulations.report.plot_data import federation, spectra
from simulations.report.seed_averages import averages_over_seeds
from tests.simulations.report.test_report import diagnostic, run

PICTURE = Path(__file__).parents[3] / "docs" / "frontier-cifar100.png"
ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=30)
HOSTILE = [
    "[/data/x.png]",
    "[batch, d]",
    "[red]a[/]",
    ":smile:",
    "\x1b[2J\x1b[31m",
    "a\r\nb\tc",
    "$\\broken$",
    "$",
    "_a",
]
HOSTILE += [
    "</td><script>alert(1)</script>",
    "{{ 7 * 7 }}",
    "\ud800",
    "\u202eabc",
    "日本語",
    "[link=http://x]y[/link]",
]
# A picture takes a second, and a smaller one that fails too is not worth many of them.
FIRST_FAILURE = [Phase.explicit, Phase.generate]


def any_text(test):
    """Try a test with every hostile text, and with texts that hypothesis makes up."""
    for text in HOSTILE:
        test = example(text=text)(test)
    quick = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    return quick(given(text=ANY_TEXT)(test))


def squeezed(text):
    return " ".join(text.split())


def terminal(*things):
    """Print to a wide terminal; what comes out, without the frames of tables."""
    console = Console(file=io.StringIO(), width=3000, force_terminal=True, color_system=None)
    for thing in things:
        console.print(thing)
    return plain_lines(console.file.getvalue())


def plain_lines(text):
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\ud800-\udfff]", text)
    return [squeezed(line) for line in text.split("\n")]


def printed_with(monkeypatch, function, *arguments):
    console = Console(file=io.StringIO(), width=3000, force_terminal=True, color_system=None)
    for module in (terminal_module, commands, predict_command):
        monkeypatch.setattr(module, "console", console)
    function(*arguments)
    return plain_lines(console.file.getvalue())


def says(lines, text):
    return any(squeezed(printable(text)) in line for line in lines)


@any_text
def test_tables_show_any_text(text):
    node = NodeResult(text, f"left out: {text}.")
    assert says(terminal(display.nodes_table([node])), f"left out: {text}.")
    runs = [replace(run(dataset=f"features:{i}"), method=text) for i in (0, 1)]
    runs = [replace(r, config={**r.config, "dataset": f"{i}{text}."}) for i, r in enumerate(runs)]
    for table in (display.results_table(runs, ["dataset"]), display.comparison_table(runs, ["dataset"])):
        lines = terminal(table)
        assert all(says(lines, f"{i}{text}.") for i in (0, 1))
        assert sum(says([line], text) for line in lines) >= 2


@any_text
def test_lines_show_any_text(monkeypatch, tmp_path, text):
    result = replace(run(), rejected={text: f"because {text}."}, config={**run().config, "backbone": f"b{text}."})
    lines = printed_with(monkeypatch, commands.show_results, [result], tmp_path)
    assert says(lines, f"left out: because {text}.")
    assert says(lines, f"b{text}. at 64 px")


@any_text
def test_predictions_show_any_text(monkeypatch, tmp_path, text):
    monkeypatch.setattr(predict_command, "best_run", lambda folder: replace(run(), accuracy=None))
    predictions = [Prediction(text, [(f"class {text}.", 0.5)]), Prediction(text, [], f"{text} cannot be read.")]
    monkeypatch.setattr(predict_command, "predict", lambda *_: predictions)
    lines = printed_with(monkeypatch, predict_command.show_predictions, tmp_path, [Path(__file__), PICTURE])
    assert says(lines, f": class {text}. (0.500)")
    assert says(lines, f"{text} cannot be read.")
    assert says(lines, "its accuracy unknown")


def test_text_wraps_where_there_is_no_room():
    console = Console(file=io.StringIO(), width=60)
    console.print(display.nodes_table([NodeResult("Q" * 100, "X" * 100)]))
    printed = console.file.getvalue()
    assert (printed.count("Q"), printed.count("X")) == (100, 100)


def drawn_texts(figure):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with drawn_quietly():
            FigureCanvasAgg(figure).draw()


@given(texts=st.lists(ANY_TEXT, min_size=3, max_size=3, unique=True))
@settings(max_examples=8, deadline=None, phases=FIRST_FAILURE)
def test_pictures_draw_any_text(texts):
    names = [*texts, *HOSTILE[:6]]
    for name in [*texts, *HOSTILE]:
        shown = plain_label(name, 60)
        assert shown.count("$") == shown.count(r"\$")
        assert not shown.startswith("_")
    supply = cycle(texts)
    runs = [
        replace(run(seed=0, rounds=2, classes=9), covariance=diagnostic(), method=f"m{next(supply)}")
        for _ in range(2)
    ]
    runs = [
        replace(r, config={**r.config, "weights": f"{n}{next(supply)}", "method": r.method})
        for n, r in enumerate(runs)
    ]
    averages = averages_over_seeds(runs)
    drawn_texts(accuracy_against_bytes(averages))
    drawn_texts(accuracy_over_rounds(averages))
    drawn_texts(spectra(averages))
    drawn_texts(class_accuracy(averages, names))
    drawn_texts(federation(np.ones((4, 9), np.int32), names, names[0]))


def test_pictures_show_text_as_it_is():
    for name, shown in (("$a$", "$a$"), (r"\$", r"\$"), ("$x", "$x"), ("[b]", "[b]"), ("_a", "\u200b_a")):
        figure = federation(np.ones((2, 2), np.int32), [name, "other"])
        label = figure.axes[0].get_yticklabels()[0]
        assert label._preprocess_math(label.get_text()) == (shown, False)


def test_every_method_is_in_the_legend_whatever_its_name():
    runs = [
        replace(run(uplink=10**number), method=name)
        for number, name in enumerate(["_a", "$", "", "fedcof", "zeta"], 5)
    ]
    figure = accuracy_against_bytes(averages_over_seeds(runs))
    assert len(figure.legends[0].get_texts()) >= 4


@given(texts=st.lists(ANY_TEXT, min_size=3, max_size=3))
@settings(max_examples=3, deadline=None, phases=FIRST_FAILURE)
def test_the_page_shows_any_text(tmp_path_factory, texts):
    folder = tmp_path_factory.mktemp("report")
    said = [f"<{text}>." for text in (*texts, *HOSTILE)]
    nodes = [NodeResult(text, text) for text in said]
    rejected = {str(number): text for number, text in enumerate(said)}
    values = [replace(run(), config={**run().config, "partition": text}) for text in said]
    for result in values:
        append_result(folder, replace(result, nodes=nodes, rejected=rejected, class_names=said[:10]))
    page = writing.write_report(folder).read_text()
    assert "<script>alert" not in page
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f]", page)
    shown = squeezed(unescape(re.sub(r"<[^>]*>", " | ", page)))
    for text in said:
        assert shown.count(squeezed(printable(text))) >= 3, text
