"""Classifiers do not ask for the features' units, and aggregators not for more than they were given."""

import pytest
import torch

from fedcof import Fed3R, FedCOF, FedNCM, Oracle, UserError, class_means, feature_moments
from fedcof.covariance.totals import ClassTotals
from fedcof.heads.nearest_mean import nearest_class_mean
from fedcof.heads.ridge import ridge, ridge_from_gram
from fedcof.wire.encoding import decode_class_means, encode_class_means

CLASSES, DIM = 4, 12


def samples(seed=0, number=160):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(CLASSES, (number,), generator=generator)
    stretch = torch.linspace(0.3, 3, DIM, dtype=torch.float64)
    features = torch.randn(number, DIM, generator=generator, dtype=torch.float64) * stretch + 0.7
    features[torch.arange(number), labels] += 2
    return features, labels


def aggregator_of(method, square):
    """A method whose numbers in squared feature units are multiplied by a square."""
    name, estimator, shrinkage, head = method
    if name == "fedncm":
        return FedNCM(CLASSES, DIM)
    if name == "fed3r":
        return Fed3R(CLASSES, DIM, penalty=0.5 * square)
    shrinkage = shrinkage if isinstance(shrinkage, str) else shrinkage * square
    if name == "oracle":
        return Oracle(CLASSES, DIM, shrinkage, head)
    return FedCOF(CLASSES, DIM, estimator, shrinkage, head)


METHODS = [
    ("fedncm", "", 0, ""),
    ("fed3r", "", 0, ""),
    *(
        ("fedcof", estimator, shrinkage, head)
        for estimator in ("per-class", "pooled", "paper")
        for shrinkage in (0.2, "leave-one-out", "ledoit-wolf", "oas")
        for head in ("ridge", "lda")
    ),
    ("oracle", "", 0.2, "ridge"),
    ("oracle", "", "leave-one-out", "lda"),
]


def scores(method, scale, dtype, encoding=None):
    features, labels = samples()
    features = (features * scale).to(dtype)
    aggregator = aggregator_of(method, scale**2)
    parts = zip(features.split(20), labels.split(20), strict=True)
    for client, (part, ids) in enumerate(parts):
        if method[0] == "oracle":
            aggregator.add_samples(part, ids)
        elif method[0] == "fed3r":
            aggregator.add(feature_moments(part, ids))
        else:
            upload = class_means(part, ids)
            if encoding:
                upload = decode_class_means(encode_class_means(upload, encoding, client, step=0.01 * scale))
            aggregator.add(upload)
    test, _ = samples(seed=1)
    found = aggregator.solve().scores((test * scale).to(dtype)).double()
    # Scores of unit-length weights are in feature units.
    return found / (scale if method[3] != "lda" else 1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("method", METHODS, ids=lambda method: "-".join(str(part) for part in method if part))
def test_the_classifier_is_the_same_in_any_units(method, dtype):
    expected = scores(method, 1.0, dtype)
    for power in (-14, -7, 6, 15):
        torch.testing.assert_close(scores(method, 10.0**power, dtype), expected, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("power", [-24, 24])
def test_products_of_float32_neither_overflow_nor_vanish(power):
    for shrinkage in (0.2, "ledoit-wolf", "leave-one-out"):
        method = ("fedcof", "pooled", shrinkage, "ridge")
        expected = scores(method, 1.0, torch.float32)
        torch.testing.assert_close(scores(method, 10.0**power, torch.float32), expected, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("encoding", ["int8", "int4", "coded"])
def test_nor_does_what_the_wire_rounds(encoding):
    method = ("fedcof", "per-class", "leave-one-out", "ridge")
    expected = scores(method, 1.0, torch.float32, encoding)
    for power in (-12, 12):
        found = scores(method, 10.0**power, torch.float32, encoding)
        torch.testing.assert_close(found, expected, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("scale", [1e-40, 1e-14, 1.0, 1e15, 1e40])
def test_every_head_that_scales_to_unit_length_does(scale):
    means = torch.randn(3, 5, generator=torch.Generator().manual_seed(2), dtype=torch.float64) * scale
    means[1] = 0
    present = torch.tensor([True, False, True])
    totals = ClassTotals(torch.tensor([4.0, 0, 6.0]).double(), torch.tensor([2.0, 0, 2.0]).double(), means)
    gram = torch.eye(5, dtype=torch.float64) * scale**2
    solved = nearest_class_mean(totals), ridge(gram, totals), ridge_from_gram(gram, means, present)
    for classifier in solved:
        lengths = classifier.weight.norm(dim=1)
        torch.testing.assert_close(lengths, torch.tensor([1.0, 0.0, 1.0]), rtol=1e-6, atol=0.0)


@pytest.mark.parametrize(
    "aggregator", [FedNCM, FedCOF, Oracle, Fed3R, lambda *sizes: FedCOF(*sizes, "pooled", 0.1)]
)
@pytest.mark.parametrize("question", ["class_means", "solve", "covariance", "rows_per_class"])
@pytest.mark.parametrize("empty", [False, True])
def test_what_is_asked_before_any_upload_is_answered_in_a_sentence(aggregator, question, empty):
    asked = aggregator(3, 4)
    if not hasattr(asked, question):
        return
    if empty:
        measure = feature_moments if isinstance(asked, Fed3R) else class_means
        asked.add(measure(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64)))
    with pytest.raises(UserError, match="No client has sent"):
        getattr(asked, question)()
