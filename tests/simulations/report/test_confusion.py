"""The report beyond accuracy: its metrics are those of the results, and who is taken for whom can be read."""

import csv
import io
from dataclasses import replace

import numpy as np
import pytest

from fedcof.run.confusion import Confusion
from fedcof.run.results import append_result, load_results
from simulations.report.plot_confusion import MOST_CELLS, confusion
from simulations.report.writing import write_report
from tests.simulations.report.test_report import page_rows, run


def matrix_of(classes, seed=0, count=4000):
    """Samples of which three in four are right, and one in eight of class 1 is taken for the last."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, classes, count)
    predicted = np.where(generator.random(count) < 0.75, labels, (labels + 1) % classes)
    predicted[(labels == 1) & (generator.random(count) < 0.125)] = classes - 1
    return Confusion.of(labels, predicted, classes)


def folder_of(tmp_path, classes, **metrics):
    for method, accuracy in (("fedncm", 0.5), ("fedcof", 0.6)):
        for seed in range(2):
            result = replace(run(method, seed, accuracy, classes=classes), **metrics)
            append_result(tmp_path, result)
            (tmp_path / f"{method}-{seed}").mkdir()
            matrix_of(classes, seed).save(tmp_path / f"{method}-{seed}")
    return tmp_path


def test_metrics_and_the_most_confused_classes_are_those_of_the_results(tmp_path):
    folder = folder_of(tmp_path, 6, balanced_accuracy=0.51, macro_f1=0.52, calibration_error=0.03)
    page = write_report(folder).read_text()
    lines = list(csv.DictReader(io.StringIO((folder / "comparison.csv").read_text())))
    for row, line in zip(page_rows(page, "quality"), lines, strict=True):
        assert (row["balanced accuracy, %"], row["macro-F1, %"]) == ("51.00", "52.00")
        assert row["calibration error, %"] == "3.00"
        assert float(line["balanced_accuracy"]) == pytest.approx(0.51)
        assert (float(line["macro_f1"]), float(line["calibration_error"])) == pytest.approx((0.52, 0.03))
    whole = matrix_of(6, 0).with_counts_of(matrix_of(6, 1))
    rows = page_rows(page, "confused")
    true, taken, count = whole.most_confused(1)[0]
    assert (rows[0]["class"], rows[0]["taken for"]) == (f"class {true}", f"class {taken}")
    assert float(rows[0]["samples"]) == pytest.approx(count / 2, abs=0.05)
    assert rows[0]["of the class, %"] == f"{100 * count / whole.samples[true]:.1f}"
    assert (folder / "confusion.png").exists()
    assert "most accurate setting (fedcof)" in page


def test_results_of_earlier_versions_have_neither(tmp_path):
    append_result(tmp_path, run())
    assert load_results(tmp_path)[0].macro_f1 is None
    page = write_report(tmp_path).read_text()
    assert 'id="quality"' not in page
    assert 'id="confused"' not in page
    assert not (tmp_path / "confusion.png").exists()


@pytest.mark.parametrize("classes", [2, 10, 20, 21, 100, 1000, 1203])
def test_the_picture_has_few_enough_cells_for_any_number_of_classes(classes):
    figure = confusion(matrix_of(classes), [f"class {number}" for number in range(classes)])
    (axes, _) = figure.axes
    (image,) = axes.images
    shown = image.get_array()
    assert len(shown) == shown.shape[1] <= MOST_CELLS
    np.testing.assert_allclose(shown.sum(axis=1).compressed(), 100)
    written = [text.get_text() for text in axes.texts]
    assert bool(written) == (classes <= 20)
    if written:
        assert f"{shown[0, 0]:.0f}" in written
