"""Metrics beyond accuracy: those of scikit-learn, and a calibration error by hand."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score, confusion_matrix, f1_score

from fedcof import LinearClassifier
from fedcof.heads.temperature import softmax_scale, softmax_start
from fedcof.run.confusion import CONFUSION_FILE_NAME, Confusion
from server.quality import CONFIDENCE_BINS, Predictions


def predictions(seed=0, count=500, classes=7):
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, classes - 1, count)
    predicted = np.where(generator.random(count) < 0.6, labels, generator.integers(0, classes, count))
    confidence = torch.from_numpy(generator.random(count)).float()
    return Predictions(torch.from_numpy(labels), torch.from_numpy(predicted), confidence, classes)


@pytest.mark.filterwarnings("ignore:y_pred contains classes")
@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 60))
def test_they_are_those_of_scikit_learn(seed, count):
    made = predictions(seed, count)
    labels, predicted = made.labels.numpy(), made.predicted.numpy()
    assert made.accuracy == pytest.approx((labels == predicted).mean())
    assert made.balanced_accuracy() == pytest.approx(balanced_accuracy_score(labels, predicted))
    assert made.macro_f1() == pytest.approx(f1_score(labels, predicted, average="macro", zero_division=0.0))


@given(st.integers(0, 1000), st.lists(st.integers(0, 42), min_size=7, max_size=7))
def test_classes_with_no_few_and_many_training_samples_are_told_apart(seed, samples):
    made = predictions(seed)
    found = made.accuracy_by_samples(np.array(samples))
    limits = {"none": range(1), "few": range(1, 21), "many": range(21, 99)}
    weighted = 0.0
    for name, limit in limits.items():
        group = getattr(found, name)
        tested = [i for i, label in enumerate(made.labels.tolist()) if samples[label] in limit]
        assert group.classes == sum(count in limit for count in samples)
        assert group.accuracy == (pytest.approx(made.right[tested].double().mean()) if tested else None)
        weighted += len(tested) * (group.accuracy or 0.0)
    assert weighted / len(made.labels) == pytest.approx(made.accuracy)


def test_the_calibration_error_is_the_formulas():
    made = predictions()
    confidence, right = made.confidence.numpy().astype(float), made.right.numpy()
    total = 0.0
    for number in range(CONFIDENCE_BINS):
        low, high = number / CONFIDENCE_BINS, (number + 1) / CONFIDENCE_BINS
        inside = (confidence > low) & (confidence <= high)
        if inside.any():
            total += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    assert made.calibration_error() == pytest.approx(total)


@pytest.mark.parametrize(
    ("confidence", "share_right", "error"), [(1.0, 1.0, 0.0), (1.0, 0.5, 0.5), (0.25, 0.5, 0.25)]
)
def test_the_calibration_error_of_a_constant_is_how_far_it_is_off(confidence, share_right, error):
    labels = torch.zeros(100, dtype=torch.int64)
    predicted = (torch.arange(100) >= 100 * share_right).long()
    made = Predictions(labels, predicted, torch.full((100,), confidence), 2)
    assert made.calibration_error() == pytest.approx(error)


def test_without_a_sample_nothing_is_known():
    none = torch.zeros(0, dtype=torch.int64)
    made = Predictions(none, none, torch.zeros(0), 3)
    known = [made.accuracy, made.balanced_accuracy(), made.macro_f1(), made.calibration_error()]
    assert known == [None] * 4
    assert made.accuracy_by_class() == [None] * 3


def test_the_scale_of_scores_is_that_of_the_start_of_training():
    generator = torch.Generator().manual_seed(0)
    means = torch.randn(5, 7, generator=generator)
    present = torch.tensor([True, True, False, True, True])
    head = LinearClassifier(means * present[:, None], torch.zeros(5), present)
    start = softmax_start(head, means)
    torch.testing.assert_close(start.weight, head.weight * softmax_scale(head, means))


@pytest.mark.parametrize(("seed", "classes"), [(0, 2), (1, 5), (2, 30)])
def test_the_confusion_is_scikit_learns_and_keeps(seed, classes, tmp_path):
    made = predictions(seed, classes=classes)
    labels, predicted = made.labels.numpy(), made.predicted.numpy()
    matrix = confusion_matrix(labels, predicted, labels=np.arange(classes))
    Confusion.of(labels, predicted, classes).save(tmp_path)
    kept = Confusion.load(tmp_path)
    assert np.array_equal(kept.blocks(classes), matrix)
    assert np.array_equal(kept.samples, matrix.sum(axis=1))
    assert np.array_equal(kept.with_counts_of(kept).blocks(classes), 2 * matrix)
    blocks = kept.blocks(4)
    assert len(blocks) <= 4
    assert blocks.sum() == len(labels)
    wrong = matrix - np.diag(np.diag(matrix))
    assert [count for _, _, count in kept.most_confused(3)] == sorted(wrong[wrong > 0], reverse=True)[:3]
    for true, taken, count in kept.most_confused(3):
        assert wrong[true, taken] == count


@pytest.mark.parametrize(
    "arrays",
    [
        {"counts": [1], "classes": 2},
        {"pairs": [[0], [5]], "counts": [1], "classes": 2},
        {"pairs": [[-1], [0]], "counts": [1], "classes": 2},
        {"pairs": [[0], [1]], "counts": [1, 2], "classes": 2},
        {"pairs": [0, 1], "counts": [1], "classes": 2},
        {"pairs": [[0.0], [1.0]], "counts": [1], "classes": 2},
        {"pairs": [[], []], "counts": [], "classes": 2},
    ],
)
def test_of_a_file_that_is_none_nothing_is_read(arrays, tmp_path):
    np.savez(tmp_path / CONFUSION_FILE_NAME, **arrays)
    assert Confusion.load(tmp_path) is None
    (tmp_path / CONFUSION_FILE_NAME).write_bytes(b"PK\x03\x04")
    assert Confusion.load(tmp_path) is None
    assert Confusion.load(tmp_path / "nowhere") is None
