"""Labels of pictures: without keys that move nothing, and in every script that an installed font has."""

import re
import warnings
from dataclasses import replace
from html import unescape

import matplotlib
import numpy as np
import pytest

from fedcof.run.results import append_result
from simulations.report import fonts
from simulations.report.class_labels import class_labels, names_behind
from simulations.report.fonts import can_draw, fonts_for
from simulations.report.plot_accuracy import accuracy_against_bytes
from simulations.report.plot_classes import class_accuracy, named_classes
from simulations.report.seed_averages import averages_over_seeds, told_apart
from simulations.report.writing import write_report
from tests.simulations.report.test_report import page_rows, run

SCRIPTS = ["cat", "猫", "кошка", "γάτα", "고양이", "कुत्ता", "🐈", "ねこ", "แมว", "e\u0301te\u0301"]


@pytest.fixture
def no_font_but_the_usual(monkeypatch):
    """Only those that come with matplotlib, in which Chinese is boxes."""
    for cached in (fonts._family_with, fonts._families):
        cached.cache_clear()
    manager = fonts.font_manager.fontManager
    own = [entry for entry in manager.ttflist if entry.fname.startswith(matplotlib.get_data_path())]
    assert own
    monkeypatch.setattr(manager, "ttflist", own)
    yield
    for cached in (fonts._family_with, fonts._families):
        cached.cache_clear()


def texts_of(figure):
    return {text.get_text() for text in figure.findobj(matplotlib.text.Text)}


def test_a_name_that_no_font_can_draw_is_a_number_in_the_picture_and_itself_on_the_page(
    tmp_path, no_font_but_the_usual
):
    names = [*SCRIPTS, "dog"]
    result = replace(run(classes=len(names)), class_names=names)
    append_result(tmp_path, result)
    (tmp_path / "fedcof-0").mkdir()
    np.savez(tmp_path / "fedcof-0" / "federation.npz", counts=np.eye(20, len(names), dtype=np.int32) + 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        page = unescape(write_report(tmp_path).read_text())
    captions = re.findall("<figcaption>(.*?)</figcaption>", page)
    for caption in captions[1:]:
        assert "class 1 is 猫" in caption
        assert "class 6 is 🐈" in caption
        assert "кошка" not in caption
    assert "no font could draw" not in captions[0]
    drawn = texts_of(class_accuracy(averages_over_seeds([result]), class_labels(names)))
    assert {"cat", "class 1", "кошка", "γάτα", "class 6", "été", "dog"} <= drawn


def test_of_many_classes_only_those_in_the_picture_are_explained(no_font_but_the_usual):
    names = [f"猫{i}" for i in range(100)]
    averages = averages_over_seeds([replace(run(classes=100), class_names=names)])
    shown = named_classes(averages, names)
    assert shown == {1, 99}
    assert names_behind(class_labels(names), names, shown) == (
        " Names that no font could draw: class 1 is 猫1, class 99 is 猫99."
    )
    (legend,) = class_accuracy(averages, class_labels(names)).legends
    assert "best class 99 90 %, worst class 1 10 %" in legend.get_texts()[0].get_text()


def test_a_font_that_has_the_characters_is_drawn_with(monkeypatch):
    """A family that has only what the usual one has stands for one that has more."""
    usual = matplotlib.font_manager.findfont(matplotlib.font_manager.FontProperties())
    monkeypatch.setattr(fonts, "_family_with", lambda character: "DejaVu Serif" if character == "x" else "")
    before = matplotlib.rcParams["font.family"]
    with fonts_for(["ax", "b"]):
        assert matplotlib.rcParams["font.family"] == [*before, "DejaVu Serif"]
    with fonts_for(["ab"]):
        assert matplotlib.rcParams["font.family"] == before
    assert fonts._draws(usual, "a")
    assert not fonts._draws(usual, "猫")
    assert ("DejaVu Serif" in dict(fonts._families())) == bool(dict(fonts._families()))


def test_scripts_whose_letters_are_joined_are_drawn_only_where_they_are_joined(monkeypatch):
    monkeypatch.setattr(fonts, "SHAPES_TEXT", False)
    assert not can_draw("قطة")
    assert can_draw("e\u0301te\u0301")
    monkeypatch.setattr(fonts, "SHAPES_TEXT", True)
    assert can_draw("قطة")


def test_keys_that_move_neither_accuracy_nor_upload_are_in_no_label(tmp_path):
    runs = [
        run(encoding=encoding, broadcast=broadcast, quorum=quorum, seed=seed)
        for encoding in ("float32", "int8")
        for broadcast, quorum in ((True, 0.8), (False, 0.5))
        for seed in (0, 1)
    ]
    averages = averages_over_seeds(runs)
    assert {average.label for average in averages} == {"fedcof, encoding float32", "fedcof, encoding int8"}
    assert len(averages) == 4
    assert [average.values["broadcast"] for average in told_apart(averages)] == [True, True]
    for result in runs:
        append_result(tmp_path, result)
    rows = page_rows(write_report(tmp_path).read_text())
    assert [(row["encoding"], row["broadcast"], row["quorum"]) for row in rows] == [
        (encoding, *rest) for encoding in ("float32", "int8") for rest in (("True", "0.8"), ("False", "0.5"))
    ]
    names = texts_of(accuracy_against_bytes(told_apart(averages)))
    assert {"float32", "int8"} <= names
    assert not any("broadcast" in name or "quorum" in name for name in names)


def test_of_equal_labels_the_one_of_most_seeds_is_drawn():
    few, many = run(broadcast=True), [run(broadcast=False, seed=seed) for seed in (0, 1)]
    (drawn,) = told_apart(averages_over_seeds([few, *many]))
    assert len(drawn.runs) == 2
    unknown, known = replace(run(broadcast=True), accuracy=None), run(broadcast=False)
    (drawn,) = told_apart(averages_over_seeds([unknown, known]))
    assert drawn.accuracy == known.accuracy
