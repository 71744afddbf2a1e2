"""``fedcof predict``: images in files, folders and patterns, on the terminal or in a file."""

import csv
import io
import json
import os
import sys

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from fedcof.data.image_paths import FoundImages
from simulations import predict_command, prediction, terminal
from simulations.prediction import best_run, predict
from tests.simulations.test_prediction import NAMES, saved_run


@pytest.fixture
def run_folder(tmp_path):
    saved_run(tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def pictures(tmp_path):
    """Five images in two folders, and one that is cut off."""
    generator = np.random.default_rng(0)
    for number in range(6):
        path = tmp_path / "pictures" / ("even", "odd, too")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (40, 30, 3), dtype=np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:200])
    return tmp_path / "pictures"


def expected_of(run_folder, paths):
    return [(str(found.image), found.classes) for found in predict(run_folder, best_run(run_folder), paths)]


def test_a_folder_is_classified_and_what_cannot_be_read_is_listed(fedcof, capsys, run_folder, pictures):
    (pictures / "notes.txt").write_text("notes")
    predict_command.show_predictions(run_folder, [pictures])
    first, left_out, *lines = capsys.readouterr().out.splitlines()
    assert "50.00% accurate" in first
    assert "1 no image" in left_out
    assert "notes.txt" in left_out
    assert len(lines) == 6
    for (image, classes), line in zip(expected_of(run_folder, sorted(pictures.rglob("*.png"))), lines, strict=True):
        if classes:
            assert line == f"{image}: {', '.join(f'{name} ({score:.3f})' for name, score in classes)}"
        else:
            assert "5.png cannot be read (" in line
    assert fedcof("predict", run_folder, pictures) == (0, "")
    assert fedcof("predict", run_folder, f"{pictures}/**/*.png") == (0, "")


def test_an_image_that_was_asked_for_and_cannot_be_read_is_an_error_in_the_end(
    fedcof, capsys, run_folder, pictures
):
    bad, good = pictures / "odd, too" / "5.png", pictures / "even" / "0.png"
    status, message = fedcof("predict", run_folder, bad)
    assert status == 2
    assert "5.png cannot be read (" in message
    assert message.count("\n") == 1
    output = run_folder / "all.csv"
    status, message = fedcof("predict", run_folder, bad, good, "--output", output)
    assert status == 2
    assert message.startswith(f"fedcof: The image {bad} cannot be read (")
    assert str(good) in output.read_text()
    (pictures / "notes.txt").write_text("notes")
    status, message = fedcof("predict", run_folder, bad, pictures / "notes.txt", pictures)
    assert status == 2
    assert "2 images cannot be read; the first: The image" in message


def test_nothing_that_can_be_read_is_an_error(fedcof, run_folder, pictures):
    for path in pictures.rglob("*.png"):
        path.write_bytes(path.read_bytes()[:200])
    status, message = fedcof("predict", run_folder, pictures)
    assert status == 2
    assert "6 images cannot be read; the first: The image" in message
    assert fedcof("predict", run_folder, pictures / "nowhere")[0] == 2


def test_csv_holds_a_line_an_image(fedcof, capsys, run_folder, pictures):
    predict_command.show_predictions(run_folder, [pictures], run_folder / "new" / "all.CSV")
    printed = capsys.readouterr().out
    assert "5 of 6 images are classified, 1 cannot be read (the file says why)" in printed
    assert len(printed.splitlines()) == 2
    with (run_folder / "new" / "all.CSV").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert list(lines[0])[:5] == ["image", "class_1", "score_1", "class_2", "score_2"]
    for (image, classes), line in zip(expected_of(run_folder, sorted(pictures.rglob("*.png"))), lines, strict=True):
        assert line["image"] == image
        found = [(line[f"class_{n}"], float(line[f"score_{n}"])) for n in range(1, 6) if line[f"class_{n}"]]
        assert [name for name, _ in found] == [name for name, _ in classes]
        assert dict(found) == pytest.approx(dict(classes), rel=1e-4)
        assert len(found) == (0 if line["problem"] else len(NAMES))
    assert sum("cannot be read" in line["problem"] for line in lines) == 1


def test_json_holds_an_object_an_image(fedcof, run_folder, pictures):
    output = run_folder / "all.json"
    assert fedcof("predict", run_folder, pictures, "-o", output) == (0, "")
    found = json.loads(output.read_text())
    expected = expected_of(run_folder, sorted(pictures.rglob("*.png")))
    assert [each["image"] for each in found] == [image for image, _ in expected]
    assert [[c["class"] for c in each["classes"]] for each in found] == [[n for n, _ in c] for _, c in expected]
    assert [bool(each["problem"]) for each in found] == [False] * 5 + [True]


@pytest.mark.parametrize("suffix", ["csv", "json"])
@pytest.mark.parametrize("name", ["line\nend", 'quo"te, comma', "umlaut ü", os.fsdecode(b"no utf-8 \xff"), "=1+1"])
def test_names_of_any_kind_are_written(fedcof, run_folder, pictures, name, suffix):
    path, output = pictures / f"{name}.png", run_folder / f"all.{suffix}"
    (pictures / "even" / "0.png").rename(path)
    assert fedcof("predict", run_folder, path, "-o", output) == (0, "")
    text = output.read_text(encoding="utf-8")
    (line,) = csv.DictReader(io.StringIO(text, newline="")) if suffix == "csv" else json.loads(text)
    as_text = str(path) if suffix == "json" else str(path).encode(errors="backslashreplace").decode()
    assert line["image"] == as_text


@pytest.mark.parametrize(
    ("output", "sentence"),
    [
        ("all.txt", "does not say how to write predictions: name a file that ends in .csv or .json"),
        ("all", "does not say how to write predictions"),
        ("folder.csv", "which is a folder"),
        ("file/all.csv", "cannot be written to"),
        ("/proc/all.json", "cannot be written to"),
    ],
)
def test_an_output_that_cannot_be_written_is_refused_before_anything_is_computed(
    fedcof, run_folder, pictures, monkeypatch, tmp_path, output, sentence
):
    monkeypatch.setattr(prediction, "decode_image", lambda _: pytest.fail("computed"))
    monkeypatch.setattr(prediction, "backbone_of_run", lambda *_: pytest.fail("computed"))
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "file").write_text("old")
    status, message = fedcof("predict", run_folder, pictures, "--output", tmp_path / output)
    assert status == 2
    assert sentence in message
    assert message.count("\n") == 1
    assert {path.name for path in tmp_path.iterdir()} == {"run", "pictures", "folder.csv", "file"}


def test_what_is_interrupted_leaves_the_old_file(fedcof, run_folder, pictures, monkeypatch):
    output = run_folder / "all.csv"
    output.write_text("old")
    before = set(run_folder.iterdir())

    def interrupted(*_):
        yield prediction.Prediction(pictures, [("ant", 1.0)])
        raise KeyboardInterrupt

    monkeypatch.setattr(predict_command, "predict", interrupted)
    with pytest.raises(KeyboardInterrupt):
        predict_command.show_predictions(run_folder, [pictures], output)
    assert output.read_text() == "old"
    assert set(run_folder.iterdir()) == before


def test_a_bar_counts_many_images_where_somebody_watches(run_folder, pictures, monkeypatch):
    def shown_for(number):
        console = Console(file=io.StringIO(), width=200, force_terminal=True, color_system=None)
        for module in (terminal, predict_command):
            monkeypatch.setattr(module, "console", console)
        made_up = [prediction.Prediction(pictures, [("ant", 1.0)])] * number
        monkeypatch.setattr(predict_command, "predict", lambda *_: made_up)
        found = FoundImages([pictures] * number)
        monkeypatch.setattr(predict_command, "find_images", lambda _: found)
        predict_command.show_predictions(run_folder, [pictures])
        return console.file.getvalue()

    assert "20/20" in shown_for(20)
    assert "1/1" not in shown_for(1)


def test_a_closed_pipe_ends_it_quietly(fedcof, run_folder, pictures, monkeypatch):
    read, write = os.pipe()
    os.close(read)
    # Rich says nothing more once a pipe was closed: right for a command, wrong for the tests after this one.
    monkeypatch.setattr(terminal.console, "quiet", False)
    with os.fdopen(write, "w") as closed:
        monkeypatch.setattr(sys, "stdout", closed)
        assert fedcof("predict", run_folder, pictures) == (1, "")
