"""The plots: they show the data they were given, nothing is cut off, and names do not cover one another."""

import io
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Annotation

from fedcof.run.config import RunConfig
from fedcof.run.results import RoundResult, RunResult
from simulations.report.plot_accuracy import accuracy_against_bytes, accuracy_over_rounds, best_for_their_bytes
from simulations.report.plot_classes import class_accuracy, mean_class_accuracy
from simulations.report.plot_data import federation
from simulations.report.seed_averages import averages_over_seeds


def run(method="fedcof", seed=0, accuracy=0.6, uplink=17_000_000, class_accuracy=(), rounds=(), **values):
    values = {"upload": "given", **values}
    config = RunConfig.from_mapping({"method": method, "seed": seed, **values}).to_mapping()
    names = [f"class {i}" for i in range(len(class_accuracy))]
    return RunResult(
        method,
        seed,
        accuracy,
        uplink,
        9,
        20,
        0,
        1.0,
        config,
        class_names=names,
        class_accuracy=list(class_accuracy),
        rounds=[RoundResult(i + 1, 5, a, sent, 9) for i, (a, sent) in enumerate(rounds)],
    )


def drawn(figure):
    FigureCanvasAgg(figure).draw()
    return figure


def png_size(figure):
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi="figure")
    return np.frombuffer(buffer.getvalue()[16:24], ">u4").tolist()


@pytest.fixture
def crowded():
    runs = [
        run(
            seed=seed,
            accuracy=0.6 + groups / 400 + seed / 1000,
            uplink=groups * size,
            groups=groups,
            encoding=encoding,
        )
        for groups in (1, 2, 4)
        for encoding, size in (("float32", 17_000_000), ("float16", 8_500_000), ("int8", 4_600_000))
        for seed in (0, 1)
    ]
    return averages_over_seeds(
        [*runs, run("fed3r", accuracy=0.61, uplink=345_000_000), run("oracle", accuracy=0.609, uplink=0)]
    )


def names_of_points(axes):
    return [text for text in axes.texts if isinstance(text, Annotation) and text.anncoords == "offset points"]


def test_names_of_points_cover_neither_one_another_nor_the_frame(crowded):
    axes = drawn(accuracy_against_bytes(crowded)).axes[0]
    names = names_of_points(axes)
    assert len(names) == 9
    assert {text.get_text() for text in names} >= {"groups 1 float32", "groups 4 int8"}
    plain = [name.get_text() for name in names]
    assert len(set(plain)) == 9
    # An annotation's own extent takes in its line to the point, so the text's is asked.
    boxes = [super(Annotation, name).get_window_extent() for name in names]
    assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))
    frame = axes.get_window_extent()
    assert all(frame.x0 <= box.x0 and box.x1 <= frame.x1 for box in boxes)


def test_points_are_where_the_numbers_are(crowded):
    axes = accuracy_against_bytes(crowded).axes[0]
    points = {(float(line.get_xdata()[0]), round(float(line.get_ydata()[0]), 6)) for line in axes.lines}
    for setting in crowded:
        if setting.method != "oracle":
            assert (setting.average_of("uplink_bytes") / 1e6, round(setting.accuracy * 100, 6)) in points


def test_of_many_points_only_those_are_named_that_nothing_beats():
    places = list(zip(np.geomspace(1e5, 1e8, 20), np.linspace(0.3, 0.6, 20), strict=True))
    runs = [run(uplink=int(size), accuracy=a, groups=i + 1) for i, (size, a) in enumerate(places)]
    beaten = [run(uplink=int(size), accuracy=a - 0.01, groups=i + 101) for i, (size, a) in enumerate(places)]
    settings = averages_over_seeds([*runs, *beaten])
    best = best_for_their_bytes(settings)
    assert [s.values["groups"] for s in best] == list(range(1, 21))
    (axes,) = drawn(accuracy_against_bytes(settings)).axes
    assert {text.get_text() for text in axes.texts} == {f"groups {i}" for i in range(1, 21)}
    assert len(axes.containers) == 40


def test_of_equally_good_points_the_shorter_upload_is_the_better():
    settings = averages_over_seeds(
        [run(uplink=5, groups=1), run(uplink=4, groups=2), run(uplink=4, accuracy=0.5, groups=3)]
    )
    assert [s.values["groups"] for s in best_for_their_bytes(settings)] == [2]


def test_what_sent_nothing_is_a_line_with_a_name():
    settings = averages_over_seeds(
        [run(), run("oracle", accuracy=0.7, uplink=0), run("fedncm", accuracy=0.5, uplink=0)]
    )
    axes = drawn(accuracy_against_bytes(settings)).axes[0]
    assert {text.get_text() for text in axes.texts} >= {"oracle 70.00", "fedncm 50.00"}
    assert axes.get_xscale() == "log"
    low, high = axes.get_xlim()
    assert 0 < low < 17 < high


def test_names_of_lines_are_moved_apart():
    oracles = [run("oracle", accuracy=0.6 + i / 1e4, uplink=0, shrinkage=i / 10) for i in range(1, 7)]
    axes = drawn(accuracy_against_bytes(averages_over_seeds([*oracles, run(accuracy=0.58)]))).axes[0]
    boxes = [super(Annotation, text).get_window_extent() for text in axes.texts if text.get_text()[:6] == "oracle"]
    assert len(boxes) == 6
    assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))


def test_one_point_has_a_tick_to_be_read_by():
    axes = drawn(accuracy_against_bytes(averages_over_seeds([run(uplink=11_000_000)]))).axes[0]
    low, high = axes.get_xlim()
    assert any(low <= tick <= high for tick in axes.get_xticks())


def test_bars_only_for_several_seeds():
    settings = averages_over_seeds([run(seed=0, accuracy=0.5), run(seed=1, accuracy=0.6), run("fedncm")])
    bars = [c.has_yerr for c in accuracy_against_bytes(settings).axes[0].containers]
    assert bars == [True, False]


@pytest.mark.parametrize("shape", [(1, 1), (20, 10), (100, 100), (1000, 100)])
def test_federation_shows_every_sample(shape):
    counts = np.random.default_rng(0).integers(0, 60, shape, dtype=np.int32) // 20
    figure = federation(counts, [f"name {i}" for i in range(shape[1])], "seed 0")
    shown = figure.axes[0].images[0].get_array().filled(0)
    assert sorted(map(tuple, shown.T)) == sorted(map(tuple, counts))
    assert png_size(figure)[0] > shape[0]
    assert figure.axes[0].get_title() == "seed 0"
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()][:1] == ["name 0"] or shape[1] > 20


def test_a_federation_without_samples_is_drawn():
    png_size(federation(np.zeros((3, 2), np.int32)))


def test_few_classes_are_rows_with_the_best_first():
    settings = averages_over_seeds(
        [run(class_accuracy=[0.2, None, 0.9]), run("fedncm", class_accuracy=[0.3, None, 0.7])]
    )
    axes = drawn(class_accuracy(settings, ["bad", "unseen", "good"])).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["good", "bad", "unseen"]
    assert axes.lines[0].get_xdata()[:2].tolist() == [90, 20]


def test_many_classes_are_curves_that_name_their_ends():
    accuracies = [*np.linspace(0.1, 0.9, 30), None]
    runs = [run(class_accuracy=accuracies), run("oracle", class_accuracy=[None] * 31)]
    figure = class_accuracy(averages_over_seeds(runs), [f"class {i}" for i in range(31)])
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["fedcof: best class 29 90 %, worst class 0 10 %"]
    assert np.all(np.diff(figure.axes[0].lines[0].get_ydata()) <= 0)


def test_class_accuracy_is_averaged_over_seeds_as_far_as_it_is_known():
    (setting,) = averages_over_seeds(
        [run(class_accuracy=[0.2, None, None]), run(seed=1, class_accuracy=[0.4, 0.5, None])]
    )
    assert mean_class_accuracy(setting) == pytest.approx([0.3, 0.5, np.nan], nan_ok=True)


def test_rounds_are_means_over_seeds_one_line_a_setting():
    runs = [run(seed=s, rounds=[(0.2 + s / 10, 0), (0.4 + s / 10, 2_000_000)]) for s in (0, 1)]
    figure = drawn(accuracy_over_rounds(averages_over_seeds([*runs, run("oracle", accuracy=0.8)])))
    by_round, by_bytes = figure.axes
    assert by_round.lines[0].get_xdata().tolist() == [1, 2]
    assert by_round.lines[0].get_ydata() == pytest.approx([25, 45])
    # Nothing had been sent after the first round, and a logarithmic axis has no nought.
    assert by_bytes.lines[0].get_xdata().tolist() == [2]
    assert by_round.lines[1].get_linestyle() == "--"


@pytest.mark.parametrize("name", [r"$\broken$", "$", "a\nb"])
def test_names_are_never_read_as_formulas(name):
    settings = averages_over_seeds([run(class_accuracy=[0.2, 0.9])])
    png_size(class_accuracy(settings, [name, "other"]))
    png_size(federation(np.ones((2, 2), np.int32), [name, "other"], name))


def test_long_names_are_cut():
    figure = federation(np.ones((2, 2), np.int32), ["x" * 80, "other"])
    assert figure.axes[0].get_yticklabels()[0].get_text() == "x" * 23 + "…"


def test_rounds_of_training_count_from_the_start():
    def trained(method, accuracies, first):
        rounds = [(a, 10**6 * (i + first)) for i, a in enumerate(accuracies)]
        result = run(method, rounds=rounds, **{"continue": "linear-probe"})
        phases = ["start"] + ["train"] * (len(accuracies) - 1)
        entries = [
            replace(e, round=i + first, phase=p) for i, (e, p) in enumerate(zip(result.rounds, phases, strict=True))
        ]
        return replace(result, rounds=entries)

    settings = averages_over_seeds([trained("random", [0.1, 0.2, 0.3], 0), trained("fedcof", [0.5, 0.6, 0.7], 1)])
    by_round, by_bytes = drawn(accuracy_over_rounds(settings)).axes
    assert by_round.get_xlabel() == "rounds of training"
    assert [line.get_xdata().tolist() for line in by_round.lines] == [[0, 1, 2], [0, 1, 2]]
    assert [line.get_xdata().tolist() for line in by_bytes.lines] == [[1, 2], [1, 2, 3]]
