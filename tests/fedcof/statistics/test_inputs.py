"""Samples as users have them: arrays, lists, any type, any device; and labels that are none."""

import numpy as np
import pytest
import torch

import fedcof
from fedcof import (
    ClassMeans,
    FeatureMoments,
    LinearClassifier,
    Oracle,
    UserError,
    class_means,
    feature_moments,
)
from fedcof.privacy.mechanism import Privacy
from fedcof.privacy.noise import SeededNoise
from fedcof.privacy.release import private_class_means, private_feature_moments

FEATURES = torch.randn(40, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
LABELS = torch.arange(40) % 3

FORMS = {
    "tensors": (FEATURES, LABELS),
    "arrays": (FEATURES.numpy(), LABELS.numpy()),
    "lists": (FEATURES.tolist(), LABELS.tolist()),
    "tuples of arrays": (tuple(FEATURES.numpy()), tuple(LABELS.numpy())),
    "lists of tensors": (list(FEATURES), list(LABELS)),
    "backwards": (FEATURES.flip(0).numpy()[::-1], LABELS.flip(0).numpy()[::-1]),
    "by column": (np.asfortranarray(FEATURES.numpy()), LABELS.numpy()),
    "other bytes": (FEATURES.numpy().astype(">f8"), LABELS.numpy().astype(">i4")),
    "long": (FEATURES.numpy().astype(np.longdouble), LABELS.numpy().astype(np.uint64)),
    "small": (FEATURES.numpy(), LABELS.numpy().astype(np.uint8)),
    "floats that are whole": (FEATURES, LABELS.double()),
    "with a gradient": (FEATURES.clone().requires_grad_(), LABELS),
}


def private(measure):
    def measured(features, labels):
        promise = Privacy(1.0, 1e-5, 3.0, with_gram=measure is private_feature_moments)
        return measure(features, labels, 3, promise, SeededNoise(7, 0))

    return measured


MEASURES = {
    "class_means": class_means,
    "groups": lambda features, labels: class_means(features, labels, 2),
    "feature_moments": feature_moments,
    "private_class_means": private(private_class_means),
    "private_feature_moments": private(private_feature_moments),
}


def tensors_of(statistics):
    names = ("class_ids", "counts", "means", "noise", "sums", "gram")
    return {name: value for name in names if isinstance(value := getattr(statistics, name, None), torch.Tensor)}


def read_only(array):
    array = array.copy()
    array.flags.writeable = False
    return array


@pytest.mark.parametrize("measure", MEASURES.values(), ids=MEASURES)
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_what_is_measured_does_not_depend_on_the_form(measure, form):
    expected, found = tensors_of(measure(FEATURES, LABELS)), tensors_of(measure(*form))
    assert expected.keys() == found.keys()
    for name, tensor in expected.items():
        # How a matrix lies in memory decides in which order its products are added up.
        tolerance = 1e-6 if name == "gram" else 0.0
        torch.testing.assert_close(found[name], tensor, rtol=tolerance, atol=tolerance)
        assert not found[name].requires_grad


@pytest.mark.filterwarnings("error")
def test_arrays_that_must_not_be_written_to_are_read():
    features, labels = read_only(FEATURES.numpy()), read_only(LABELS.numpy())
    assert torch.equal(class_means(features, labels).means, class_means(FEATURES, LABELS).means)


def test_float64_stays_and_all_else_is_float32_but_whole_numbers():
    assert class_means(FEATURES, LABELS).means.dtype == torch.float64
    assert class_means(FEATURES.float().numpy(), LABELS).means.dtype == torch.float32
    assert class_means(FEATURES.numpy().astype(np.float16), LABELS).means.dtype == torch.float32
    whole = class_means([[2**30, 1], [2**30 + 1, 0]], [0, 0])
    assert whole.means.tolist() == [[2**30 + 0.5, 0.5]]


@pytest.mark.parametrize("form", ["tensors", "arrays", "lists", "long", "with a gradient"])
def test_statistics_take_arrays_and_lists(form):
    means, moments = class_means(FEATURES, LABELS), feature_moments(FEATURES, LABELS)

    def in_form(tensor):
        if form == "lists":
            return tensor.tolist()
        if form == "long":
            return tensor.numpy().astype(np.longdouble if tensor.is_floating_point() else np.uint16)
        if form == "with a gradient" and tensor.is_floating_point():
            return tensor.clone().requires_grad_()
        return tensor.numpy() if form == "arrays" else tensor

    for kind, statistics in ((ClassMeans, means), (FeatureMoments, moments)):
        fields = tensors_of(statistics)
        found = tensors_of(kind(**{name: in_form(tensor) for name, tensor in fields.items()}))
        for name, tensor in fields.items():
            assert torch.equal(found[name], tensor), name
            assert not found[name].requires_grad
    noisy = ClassMeans([0, 1], [3, 4], [[1.0, 2.0], [3.0, 4.0]], [0.5, 0.25])
    assert noisy.noise.tolist() == [0.5, 0.25]


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_oracle_and_classifier_take_them_too(form):
    oracles = Oracle(3, 5, 0.1), Oracle(3, 5, 0.1)
    oracles[0].add_samples(FEATURES, LABELS)
    oracles[1].add_samples(*form)
    classifier = oracles[0].solve()
    assert torch.equal(classifier.weight, oracles[1].solve().weight)
    assert torch.equal(classifier.predict(form[0]), classifier.predict(FEATURES))
    assert torch.equal(classifier.scores(form[0]), classifier.scores(FEATURES))


BROKEN_LABELS = [
    ([0.0, 0.9, 1.9], "whole numbers, but has 0.9"),
    (np.array([0, 1.5, 1]), "whole numbers, but has 1.5"),
    (torch.tensor([0.0, 1.0, float("nan")]), "whole numbers, but has nan"),
    (torch.tensor([0.0, 1.0, float("inf")]), "whole numbers, but has inf"),
    ([0, -1, 2], "classes from 0 .*, but has -1"),
    ([0.0, -2.0, 2.0], "classes from 0 .*, but has -2"),
    (np.array([0, 1, 2**63], dtype=np.uint64), "classes from 0"),
    ([0, 1, 2**40], "classes from 0 .*, but has 1099511627776"),
    (["ant", "bee", "cow"], "numbers, but has type <U3"),
    ([None, 1, 2], "numbers, but has type object"),
    ([0, 1j, 2], "numbers, but has type complex128"),
    ([[0], [1], [2]], "one label per sample"),
    ([0, 1], "one label per sample"),
]


def add_to_an_oracle(features, labels):
    Oracle(3, 2).add_samples(features, labels)


@pytest.mark.parametrize(("labels", "sentence"), BROKEN_LABELS)
@pytest.mark.parametrize("measure", [*MEASURES.values(), add_to_an_oracle], ids=[*MEASURES, "the oracle"])
def test_labels_that_are_no_classes_are_refused_in_a_sentence(measure, labels, sentence):
    with pytest.raises(UserError, match=f"labels must have {sentence}") as error:
        measure(torch.ones(3, 2), labels)
    assert str(error.value).count("\n") == 0


def test_labels_that_are_true_and_false_are_classes():
    assert class_means(FEATURES, LABELS == 1).class_ids.tolist() == [0, 1]
    assert class_means(FEATURES, (LABELS == 1).numpy()).counts.tolist() == [27, 13]


@pytest.mark.parametrize(
    ("features", "sentence"),
    [
        ([[1.0, 2.0], [3.0], [4.0, 5.0]], "rows of unequal length"),
        ([["a", "b"]] * 3, "type <U1"),
        (np.ones((3, 2), dtype=complex), "type complex128"),
        (torch.ones(3, 2, dtype=torch.complex64), "real numbers"),
        (torch.ones(3), "samples, feature dimension"),
        (None, "type object"),
    ],
)
@pytest.mark.parametrize("measure", MEASURES.values(), ids=MEASURES)
def test_features_that_are_no_vectors_are_refused_in_a_sentence(measure, features, sentence):
    with pytest.raises(UserError, match=sentence):
        measure(features, [0, 1, 2])


def test_a_classifier_refuses_them_too():
    classifier = LinearClassifier(torch.eye(2), torch.zeros(2), torch.ones(2, dtype=torch.bool))
    for features in ([[1.0, 2.0, 3.0]], [1.0, 2.0], np.ones((1, 3))):
        with pytest.raises(UserError, match=r"takes \(n, 2\)"):
            classifier.predict(features)
    with pytest.raises(UserError, match="unequal length"):
        classifier.predict([[1.0, 2.0], [3.0]])


@pytest.mark.parametrize("name", fedcof.__all__)
def test_the_package_gives_every_name_that_it_lists(name):
    assert getattr(fedcof, name).__name__ == name


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
@pytest.mark.parametrize("measure", MEASURES.values(), ids=MEASURES)
def test_features_on_a_gpu_give_statistics_on_the_cpu(measure):
    expected = tensors_of(measure(FEATURES, LABELS))
    for labels in (LABELS, LABELS.cuda(), LABELS.tolist()):
        found = tensors_of(measure(FEATURES.cuda(), labels))
        for name, tensor in expected.items():
            assert found[name].device.type == "cpu"
            torch.testing.assert_close(found[name], tensor)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_a_gpu_may_hold_samples_rows_and_what_is_to_be_predicted():
    oracles = Oracle(3, 5, 0.1), Oracle(3, 5, 0.1)
    oracles[0].add_samples(FEATURES, LABELS)
    oracles[1].add_samples(FEATURES.cuda(), LABELS.cuda())
    classifier = oracles[1].solve()
    torch.testing.assert_close(classifier.weight, oracles[0].solve().weight)
    predicted = classifier.predict(FEATURES.cuda())
    assert predicted.is_cuda
    assert torch.equal(predicted.cpu(), classifier.predict(FEATURES))
    means = class_means(FEATURES, LABELS)
    rows = ClassMeans(means.class_ids.cuda(), means.counts.cuda(), means.means.cuda())
    assert torch.equal(rows.means, means.means)
    assert torch.equal(class_means(list(FEATURES.cuda()), list(LABELS.cuda())).counts, means.counts)
