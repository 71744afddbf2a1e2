"""FedNCM and FedCOF against the naive formulas, whatever the shape, the order and the gaps."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedcof import (
    ClassMeans,
    Fed3R,
    FedCOF,
    FedNCM,
    Oracle,
    UserError,
    class_means,
    feature_moments,
)
from fedcof.covariance.factored import FactoredScatter
from fedcof.wire.encoding import decode_class_means, encode_class_means
from tests.fedcof import formulas
from tests.fedcof.covariance.test_covariance import as_upload, random_rows

HEADS = {
    "per-class": formulas.per_class_scatter,
    "pooled": formulas.pooled_scatter,
    "paper": formulas.paper_scatter,
}


def relative_error(ours, reference):
    return float(np.linalg.norm(np.asarray(ours, dtype=np.float64) - reference) / np.linalg.norm(reference))


def solve(rows, num_classes, **options):
    aggregator = FedCOF(num_classes, len(rows[0][2]), **options)
    aggregator.add(as_upload(rows, torch.float32))
    return aggregator.solve()


@pytest.mark.parametrize("estimator", HEADS)
@pytest.mark.parametrize(("dim", "num_clients"), [(6, 30), (120, 5)], ids=["d<rows", "d>rows"])
@pytest.mark.parametrize("gamma", [0.01, 1.0])
def test_fedcof_is_the_formula(estimator, dim, num_clients, gamma):
    rows = [*random_rows(9, num_clients, dim, seed=dim, absent=(0, 4)), (4, 3, np.ones(dim))]
    counts, means, _ = formulas.totals(rows, 9)
    scatter = HEADS[estimator](rows, 9, gamma)
    ridge = solve(rows, 9, estimator=estimator, shrinkage=gamma)
    assert relative_error(ridge.weight, formulas.ridge_weight(scatter, counts, means)) < 1e-4
    assert ridge.bias.count_nonzero() == 0
    lda = solve(rows, 9, estimator=estimator, shrinkage=gamma, head="lda")
    weight, bias = formulas.lda(scatter, counts, means)
    assert relative_error(lda.weight, weight) < 1e-4
    assert relative_error(lda.bias, bias) < 1e-4


@pytest.mark.parametrize("head", ["ridge", "lda", "ncm"])
def test_a_class_that_nobody_has_is_zero_and_never_predicted(head):
    rows = [(c, n, -m) for c, n, m in random_rows(6, 10, 5, seed=3, absent=(2, 5))]
    if head == "ncm":
        aggregator = FedNCM(6, 5)
        aggregator.add(as_upload(rows))
        classifier = aggregator.solve()
    else:
        classifier = solve(rows, 6, head=head)
    assert classifier.weight[[2, 5]].count_nonzero() == 0
    assert classifier.bias[[2, 5]].count_nonzero() == 0
    assert classifier.present.tolist() == [True, True, False, True, True, False]
    assert classifier.weight.isfinite().all()
    assert classifier.bias.isfinite().all()
    # Far out in every direction some scores of all present classes are negative, so a zero would win.
    predicted = classifier.predict(torch.randn(2000, 5, generator=torch.Generator().manual_seed(1)) * 100)
    assert set(predicted.tolist()) <= {0, 1, 3, 4}


def test_fedncm_is_the_normalised_class_mean():
    rows = random_rows(5, 8, 4, seed=11)
    _, means, _ = formulas.totals(rows, 5)
    aggregator = FedNCM(5, 4)
    aggregator.add(as_upload(rows))
    expected = means / np.linalg.norm(means, axis=1, keepdims=True)
    np.testing.assert_allclose(aggregator.solve().weight, expected, rtol=1e-5)


@settings(max_examples=20, deadline=None)
@given(order=st.permutations(range(6)))
def test_the_order_of_arrival_does_not_change_a_bit(order):
    uploads = [
        as_upload(random_rows(4, 1, 12, seed=seed) or [(0, 1, np.ones(12))], torch.float32) for seed in range(6)
    ]
    in_order, shuffled = FedCOF(4, 12), FedCOF(4, 12)
    for source in range(6):
        in_order.add(uploads[source], source)
    for source in order:
        shuffled.add(uploads[source], source)
    assert torch.equal(in_order.solve().weight, shuffled.solve().weight)


def test_fedcof_beats_class_means_where_the_classes_are_stretched_alike():
    generator = torch.Generator().manual_seed(0)
    stretch = torch.diag(torch.tensor([5.0, 5.0, 5.0, 1.0, 1.0, 0.5, 0.5, 0.5]))
    centres = torch.randn(5, 8, generator=generator)

    def sample(n):
        labels = torch.randint(0, 5, (n,), generator=generator)
        return centres[labels] + torch.randn(n, 8, generator=generator) @ stretch, labels

    covariances, means = FedCOF(5, 8, shrinkage=0.01), FedNCM(5, 8)
    for _ in range(60):
        upload = class_means(*sample(30))
        covariances.add(upload)
        means.add(upload)
    features, labels = sample(4000)

    def accuracy(aggregator):
        return float((aggregator.solve().predict(features) == labels).float().mean())

    assert accuracy(covariances) > accuracy(means) + 0.1


def test_what_an_aggregator_refuses():
    aggregator = FedCOF(3, 4)
    empty = class_means(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))
    with pytest.raises(UserError, match="nothing to solve"):
        aggregator.solve()
    aggregator.add(empty, source=1)
    with pytest.raises(UserError, match="nothing to solve"):
        aggregator.solve()
    with pytest.raises(UserError, match="Client 1 has been added before"):
        aggregator.add(empty, source=1)
    with pytest.raises(UserError, match="dimension 4"):
        aggregator.add(ClassMeans(torch.tensor([0]), torch.tensor([1]), torch.zeros(1, 5)))
    with pytest.raises(UserError, match="ridge, lda"):
        FedCOF(3, 4, head="svm")
    with pytest.raises(UserError, match="at least one class"):
        FedNCM(0, 4)


FLAT = np.eye(4)[0]


@pytest.mark.parametrize("head", ["ridge", "lda"])
@pytest.mark.parametrize(
    ("rows", "shrinkage", "sentence"),
    [
        (
            [(0, 2, np.ones(4)), (1, 2, np.zeros(4))],
            0.0,
            r"shrinkage 0, because .* at most 0 of 4 .*each of the classes 0, 1, .*set shrinkage to a larger",
        ),
        (
            [(0, 2, FLAT), (0, 2, 2 * FLAT), (0, 1, -FLAT), (2, 3, FLAT)],
            0.0,
            r"at most 2 of 4 .*\(class 2, of which there is one row.*set shrinkage to leave-one-out or a larger",
        ),
        (
            [(0, 2, n * FLAT) for n in range(9)],
            0.0,
            "leave some of the 4 feature dimensions without any scatter: set shrinkage to leave-one-out",
        ),
        (
            [(0, 1, FLAT), (0, 1, FLAT), (0, 2, FLAT), (1, 2, -FLAT)],
            "leave-one-out",
            r"all rows are the same \(class 1, .* finds no scatter.*set shrinkage to a number above 0, or",
        ),
        ([(0, 1, np.ones(4)), (1, 1, np.zeros(4))], 0.5, "No class has more than one sample"),
    ],
)
def test_a_system_without_a_solution_says_which_class_or_key_to_change(rows, shrinkage, sentence, head):
    with pytest.raises(UserError, match=sentence) as error:
        solve(rows, 3, shrinkage=shrinkage, head=head)
    assert str(error.value).endswith(".")


def test_what_is_said_of_groups_is_said_to_those_who_have_them():
    oracle = Oracle(2, 4, shrinkage=0.0)
    oracle.add_samples(np.ones((6, 4)), [0, 0, 0, 1, 1, 1])
    with pytest.raises(UserError, match="set shrinkage to leave-one-out or a larger number[.]$"):
        oracle.solve()


def test_fed3r_without_a_solution_says_how_few_samples_it_has():
    aggregator = Fed3R(5, 90, penalty=0.0)
    aggregator.add(feature_moments(*federation(1, 90)))
    with pytest.raises(UserError, match="ridge-penalty 0, because the 12 samples fill at most 12 of 90"):
        aggregator.solve()
    aggregator = Fed3R(2, 3, penalty=0.0)
    aggregator.add(feature_moments(torch.ones(9, 3), torch.arange(9) % 2))
    with pytest.raises(UserError, match="fill them with the same numbers: set ridge-penalty to a larger"):
        aggregator.solve()


def federation(num_clients, dim, seed=0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 5, (num_clients * 12,), generator=generator)
    features = torch.randn(len(labels), dim, generator=generator) + labels[:, None] / 3
    return features, labels


@pytest.mark.parametrize("dim", [6, 90])
def test_fed3r_is_ridge_regression_on_the_pooled_features(dim):
    features, labels = federation(10, dim)
    labels[labels == 3] = 2
    aggregator = Fed3R(5, dim, penalty=0.5)
    for part, ids in zip(features.split(12), labels.split(12), strict=True):
        aggregator.add(feature_moments(part, ids))
    pooled = features.double().numpy()
    targets = np.eye(5)[labels.numpy()]
    expected = np.linalg.solve(pooled.T @ pooled + 0.5 * np.eye(dim), pooled.T @ targets).T
    norms = np.linalg.norm(expected, axis=1, keepdims=True)
    expected = np.divide(expected, norms, out=np.zeros_like(expected), where=norms > 0)
    classifier = aggregator.solve()
    assert relative_error(classifier.weight, expected) < 1e-4
    assert classifier.present.tolist() == [True, True, True, False, True]
    assert classifier.weight[3].count_nonzero() == 0


def test_fed3r_refuses_what_does_not_fit():
    aggregator = Fed3R(5, 6)
    with pytest.raises(UserError, match="before solving"):
        aggregator.solve()
    upload = feature_moments(*federation(1, 6))
    aggregator.add(upload, source=2)
    with pytest.raises(UserError, match="Client 2 has been added before"):
        aggregator.add(upload, source=2)
    with pytest.raises(UserError, match="dimension 6"):
        aggregator.add(feature_moments(*federation(1, 7)))
    with pytest.raises(UserError, match="at least 0"):
        Fed3R(5, 6, penalty=-1.0)
    with pytest.raises(UserError, match="ridge-penalty"):
        singular = Fed3R(5, 90, penalty=0.0)
        singular.add(feature_moments(*federation(1, 90)))
        singular.solve()


@pytest.mark.parametrize("head", ["ridge", "lda"])
@pytest.mark.parametrize("estimator", ["per-class", "pooled"])
def test_the_oracle_is_fedcof_on_single_samples(head, estimator):
    """With a row per sample K_c = N_c: both estimators are the scatter of all samples around their class means."""
    features, labels = federation(10, 6)
    oracle = Oracle(5, 6, shrinkage=0.1, head=head)
    oracle.add_samples(features, labels)
    single = FedCOF(5, 6, estimator, shrinkage=0.1, head=head)
    single.add(class_means(features, labels, groups=len(labels)))
    torch.testing.assert_close(oracle.solve().weight, single.solve().weight, rtol=1e-5, atol=1e-6)
    pooled, ids = features.double().numpy(), labels.numpy()
    means = np.stack([pooled[ids == c].mean(axis=0) for c in range(5)])
    counts = np.bincount(ids, minlength=5).astype(float)
    scatter = (pooled - means[ids]).T @ (pooled - means[ids]) + 0.1 * (len(ids) - 5) * np.eye(6)
    if head == "ridge":
        expected = formulas.ridge_weight(scatter, counts, means)
    else:
        expected, _ = formulas.lda(scatter, counts, means)
    assert relative_error(oracle.solve().weight, expected) < 1e-4


def split(rows, size):
    return [as_upload(rows[first : first + size], torch.float32) for first in range(0, len(rows), size)]


@pytest.mark.parametrize("shrinkage", [0.1, "oas"])
def test_pooled_streams_in_flat_memory_and_agrees(shrinkage, monkeypatch):
    uploads = split(random_rows(9, 60, 12, seed=21), 5)
    kept = FedCOF(9, 12, "pooled", shrinkage)
    for upload in uploads:
        kept.add(upload)
    monkeypatch.setattr("fedcof.methods.fedcof.ROWS_PER_BLOCK", 16)
    streamed = FedCOF(9, 12, "pooled", shrinkage)
    for upload in uploads:
        streamed.add(upload)
        assert sum(upload.num_rows for upload in streamed._uploads.values()) < 16
    assert streamed.num_uploads == len(uploads)
    first = streamed.solve()
    assert relative_error(first.weight, kept.solve().weight.double().numpy()) < 1e-6
    assert torch.equal(streamed.solve().weight, first.weight)
    with pytest.raises(UserError, match="Client 0 has been added before"):
        streamed.add(uploads[0], source=0)


@pytest.mark.parametrize("estimator", HEADS)
@pytest.mark.parametrize("head", ["ridge", "lda"])
@pytest.mark.parametrize("encoding", ["float32", "int8"])
def test_the_smaller_system_has_the_solution_of_the_larger(estimator, head, encoding, monkeypatch):
    generator = torch.Generator().manual_seed(6)
    aggregators = [FedCOF(4, 200, estimator, 0.05, head) for _ in range(2)]
    for client in range(6):
        upload = class_means(torch.randn(20, 200, generator=generator) + 1, torch.arange(20) % 4)
        for aggregator in aggregators:
            aggregator.add(decode_class_means(encode_class_means(upload, encoding, client)))
    assert isinstance(aggregators[0]._scatter()[0], FactoredScatter)
    small = aggregators[0].solve()
    monkeypatch.setattr("fedcof.methods.fedcof.factored_scatter", lambda *_: None)
    monkeypatch.setattr("fedcof.covariance.scatter.LARGEST_SPECTRUM_IN_FLOAT32", 0.0)
    large = aggregators[1].solve()
    assert relative_error(small.weight, large.weight.double().numpy()) < 1e-6
    if head == "lda":
        assert relative_error(small.bias, large.bias.double().numpy()) < 1e-6


@pytest.mark.parametrize("gamma", [1.0, 0.01, 1e-4, 1e-6])
@pytest.mark.parametrize("estimator", HEADS)
def test_float32_rows_give_the_classifier_of_float64_ones_however_small_gamma_is(estimator, gamma):
    generator = torch.Generator().manual_seed(8)
    ids, scale = torch.arange(300) % 10, 10 / torch.arange(1, 101)
    means = torch.randn(300, 100, generator=generator) * scale + 1
    solved = []
    for rows in (means, means.double()):
        aggregator = FedCOF(10, 100, estimator, gamma)
        aggregator.add(ClassMeans(ids, torch.ones_like(ids), rows))
        solved.append(aggregator.solve().weight)
    assert relative_error(solved[0], solved[1].double().numpy()) < 1e-4


def test_the_larger_system_is_solved_where_the_smaller_would_cancel():
    aggregator = FedCOF(3, 50, shrinkage=1e-12)
    aggregator.add(as_upload(random_rows(3, 6, 50, seed=1)))
    assert isinstance(aggregator._scatter()[0], torch.Tensor)
