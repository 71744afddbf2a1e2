"""Classifiers: scores, some classes only, priors, files, and files that are none."""

import pytest
import torch
from safetensors.torch import save_file

from fedcof import LinearClassifier, UserError
from fedcof.heads.classifiers import load_classifier
from fedcof.heads.quadratic import QuadraticClassifier


@pytest.fixture
def classifier():
    return LinearClassifier(
        weight=torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]),
        bias=torch.tensor([0.0, 0.5, 0.0]),
        present=torch.tensor([True, True, False]),
        class_names=("cat", "dog", "emu"),
    )


def test_scores_are_linear_and_absent_classes_score_minus_infinity(classifier):
    scores = classifier.scores(torch.tensor([[2.0, 1.0], [-5.0, -6.0]]))
    assert scores.tolist() == [[2.0, 1.5, float("-inf")], [-5.0, -5.5, float("-inf")]]
    assert classifier.predict(torch.tensor([[2.0, 1.0], [0.0, 1.0]])).tolist() == [0, 1]


def test_a_saved_classifier_comes_back_to_the_last_bit(classifier, tmp_path):
    classifier.save(tmp_path / "head.safetensors")
    loaded = LinearClassifier.load(tmp_path / "head.safetensors")
    assert torch.equal(loaded.weight, classifier.weight)
    assert torch.equal(loaded.bias, classifier.bias)
    assert torch.equal(loaded.present, classifier.present)
    assert loaded.class_names == ("cat", "dog", "emu")


def test_files_that_are_no_classifier_are_refused(classifier, tmp_path):
    with pytest.raises(UserError, match="no classifier at"):
        LinearClassifier.load(tmp_path / "absent.safetensors")
    save_file({"weight": torch.zeros(2, 2)}, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match="not a classifier"):
        LinearClassifier.load(tmp_path / "other.safetensors")
    classifier.save(tmp_path / "head.safetensors")
    whole = (tmp_path / "head.safetensors").read_bytes()
    (tmp_path / "head.safetensors").write_bytes(whole[:-4])
    with pytest.raises(UserError, match="cannot be read"):
        LinearClassifier.load(tmp_path / "head.safetensors")


WHOLE = {"weight": torch.zeros(2, 3), "bias": torch.zeros(2), "present": torch.ones(2, dtype=torch.bool)}
MALFORMED = {
    "no bias": ({key: WHOLE[key] for key in ("weight", "present")}, '["a", "b"]'),
    "a bias too long": ({**WHOLE, "bias": torch.zeros(3)}, '["a", "b"]'),
    "a weight of one dimension": ({**WHOLE, "weight": torch.zeros(2)}, '["a", "b"]'),
    "whole numbers": ({**WHOLE, "weight": torch.zeros(2, 3, dtype=torch.int64)}, '["a", "b"]'),
    "presence in floats": ({**WHOLE, "present": torch.ones(2)}, '["a", "b"]'),
    "no names": (WHOLE, None),
    "names that are none": (WHOLE, '{"a": 1, "b": 2}'),
    "names that are numbers": (WHOLE, "[1, 2]"),
    "names that are no JSON": (WHOLE, "["),
    "a name too few": (WHOLE, '["a"]'),
}


@pytest.mark.parametrize("what", MALFORMED)
def test_a_malformed_classifier_is_one_sentence(tmp_path, what):
    tensors, names = MALFORMED[what]
    metadata = {"format": LinearClassifier.file_format()} | ({} if names is None else {"class_names": names})
    save_file(tensors, tmp_path / "head.safetensors", metadata)
    with pytest.raises(UserError, match="cannot be read|is made of|needs a bias"):
        LinearClassifier.load(tmp_path / "head.safetensors")


def test_features_and_shapes_must_fit(classifier):
    with pytest.raises(UserError, match="takes \\(n, 2\\)"):
        classifier.predict(torch.zeros(4, 3))
    with pytest.raises(UserError, match="one of each per class"):
        LinearClassifier(torch.zeros(3, 2), torch.zeros(2), torch.ones(3, dtype=torch.bool))


def quadratic(generator):
    """Make a random quadratic classifier of four classes, nobody having the last."""
    drawn = {"weight": (4, 5), "bias": (4,), "directions": (4, 2, 5), "offsets": (4, 2), "curvature": (4,)}
    tensors = {name: torch.randn(shape, generator=generator) for name, shape in drawn.items()}
    present = torch.tensor([True, True, True, False])
    return QuadraticClassifier(**tensors, whitening=torch.zeros(5, 0), centre=torch.zeros(5), present=present)


def linear(generator):
    weight, bias = torch.randn(4, 5, generator=generator), torch.randn(4, generator=generator)
    return LinearClassifier(weight, bias, torch.tensor([True, True, True, False]))


@pytest.mark.parametrize("made", [linear, quadratic])
def test_a_prior_adds_its_logarithm_to_the_scores_in_nats(made):
    generator = torch.Generator().manual_seed(0)
    classifier, features = made(generator), torch.randn(50, 5, generator=generator)
    # Class 1 has no sample there, and class 3 nobody has.
    with_prior = classifier.with_prior([3, 0, 1, 4], nats=2.5)
    nats = 2.5 * classifier.scores(features).double()
    expected = nats + torch.tensor([3 / 8, 0, 1 / 8, 4 / 8], dtype=torch.float64).log()
    torch.testing.assert_close(2.5 * with_prior.scores(features).double(), expected, rtol=1e-5, atol=1e-5)
    assert set(with_prior.predict(features).tolist()) == {0, 2}


@pytest.mark.parametrize("made", [linear, quadratic])
def test_only_some_classes_are_predicted_and_score_as_before(made, tmp_path):
    generator = torch.Generator().manual_seed(1)
    classifier, features = made(generator), torch.randn(50, 5, generator=generator)
    classifier.only([2, 0, 3]).save(tmp_path / "head.safetensors")
    narrowed = load_classifier(tmp_path / "head.safetensors")
    assert torch.equal(narrowed.scores(features)[:, [0, 2]], classifier.scores(features)[:, [0, 2]])
    assert narrowed.scores(features)[:, [1, 3]].isneginf().all()


def test_classes_and_frequencies_that_leave_nothing_are_refused(classifier):
    for classes in ([], [2]):
        with pytest.raises(UserError, match="nobody had a sample of any"):
            classifier.only(classes)
    with pytest.raises(UserError, match="no class 3: give numbers from 0 to 2"):
        classifier.only([3])
    for frequencies in ([0, 0, 0], [1, 2], [1, -1, 1], [1, float("nan"), 1]):
        with pytest.raises(UserError, match="one number for each class, some of them above 0"):
            classifier.with_prior(frequencies, 1.0)
