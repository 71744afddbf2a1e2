"""What class names know: mixed class means, and classes that nobody holds, against naive transcriptions."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedcof import ClassMeans, FedCOF, UserError
from fedcof.covariance.totals import ClassTotals
from fedcof.heads.text_prior import MOST_SAMPLES, USUAL_SAMPLES, TextPrior
from fedcof.heads.unheld import Shrunk
from fedcof.methods.oracle import Oracle

HEADS = ["ridge", "lda", "quadratic"]


def federation(num_classes=12, dim=20, each=6, cosine=0.8, held=None, seed=0, noise=0.8):
    """Samples whose class means lie around a multiple of their prototypes."""
    generator = torch.Generator().manual_seed(seed)
    normal = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)  # noqa: E731
    prototypes = torch.nn.functional.normalize(normal(num_classes, dim), dim=1)
    others = torch.nn.functional.normalize(normal(num_classes, dim), dim=1)
    means = 3 + 4 * (cosine * prototypes + math.sqrt(1 - cosine**2) * others)
    labels = torch.arange(num_classes).repeat_interleave(each)
    features = means[labels] + noise * normal(len(labels), dim)
    if held is not None:
        kept = torch.isin(labels, torch.tensor(held))
        labels, features = labels[kept], features[kept]
    test_labels = torch.arange(num_classes).repeat_interleave(50)
    test = means[test_labels] + noise * normal(len(test_labels), dim)
    return prototypes, features, labels, test, test_labels


def solved(features, labels, head="ridge", prior=None, num_classes=12, shrinkage="leave-one-out"):
    aggregator = FedCOF(num_classes, features.shape[1], shrinkage=shrinkage, head=head)
    aggregator.add(ClassMeans(labels, torch.ones_like(labels), features))
    if prior:
        aggregator.take_prior(prior)
    return aggregator, aggregator.solve()


def naive_means(prototypes, means, counts, variance, samples):
    """The formulas of fedcof.heads.text_prior, class by class."""
    held = [c for c in range(len(counts)) if counts[c]]
    centre = np.mean([means[c] for c in held], axis=0)
    squares = [np.sum((means[c] - centre) ** 2) - variance / counts[c] for c in held]
    length = math.sqrt(max(np.mean(squares), 0))
    fitted = np.mean([prototypes[c] @ (means[c] - centre) for c in held])
    if not samples:
        left = [np.sum((means[c] - centre - fitted * prototypes[c]) ** 2) - variance / counts[c] for c in held]
        samples = variance / np.mean(left)
    mixed = []
    for c in range(len(counts)):
        share = counts[c] / (counts[c] + samples)
        own = means[c] - centre if counts[c] else np.zeros_like(centre)
        mixed.append(centre + share * own + (1 - share) * length * prototypes[c])
    return np.array(mixed), samples


@pytest.mark.parametrize("samples", [0.0, 3.0])
def test_class_means_are_mixed_as_the_formulas_say(samples):
    prototypes, features, labels, _, _ = federation(held=list(range(10)))
    aggregator, _ = solved(features, labels, prior=TextPrior(prototypes, samples))
    variance = float(aggregator.covariance(shrunk=False).trace())
    counts = torch.bincount(labels, minlength=12).numpy()
    means = torch.stack([features[labels == c].mean(dim=0) if counts[c] else torch.zeros(20) for c in range(12)])
    mixed, worth = naive_means(prototypes.numpy(), means.numpy(), counts, variance, samples)
    assert np.allclose(aggregator.class_means().numpy(), mixed, atol=1e-8)
    expected = TextPrior(prototypes, samples).expected(_totals(features, labels), variance)
    assert expected.samples == pytest.approx(worth)


def _totals(features, labels, num_classes=12):
    counts = torch.bincount(labels, minlength=num_classes).double()
    sums = torch.zeros(num_classes, features.shape[1], dtype=torch.float64).index_add_(0, labels, features)
    return ClassTotals(counts, counts, sums / counts.clamp(min=1)[:, None])


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("each", [2, 3])
def test_few_samples_gain(head, each):
    prototypes, features, labels, test, truth = federation(each=each, noise=2.5)
    accuracies = [
        solved(features, labels, head, prior)[1].predict(test).eq(truth).float().mean()
        for prior in (None, TextPrior(prototypes))
    ]
    assert accuracies[1] > accuracies[0] + 0.02


@pytest.mark.parametrize("head", HEADS)
def test_prototypes_that_tell_nothing_do_little_harm_where_samples_are_many(head):
    _, features, labels, test, truth = federation(each=100)
    wrong = torch.nn.functional.normalize(torch.randn(12, 20, generator=torch.Generator().manual_seed(9)), dim=1)
    accuracies = [
        solved(features, labels, head, prior)[1].predict(test).eq(truth).float().mean()
        for prior in (None, TextPrior(wrong))
    ]
    assert accuracies[1] > accuracies[0] - 0.005


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("each", [3, 30])
def test_classes_that_nobody_holds_are_predicted_by_their_names(head, each):
    prototypes, features, labels, test, truth = federation(each=each, held=list(range(10)), cosine=0.9)
    _, without = solved(features, labels, head)
    _, named = solved(features, labels, head, TextPrior(prototypes, risk=0.02))
    unheld = truth >= 10
    right = lambda classifier, which: classifier.predict(test[which]).eq(truth[which]).float().mean()  # noqa: E731
    assert right(without, unheld) == 0
    assert right(named, unheld) > 0.3
    assert right(named, ~unheld) > right(without, ~unheld) - 0.08
    assert bool(named.present.all())


@pytest.mark.parametrize("head", HEADS)
def test_the_scores_of_held_classes_stay_and_more_risk_gives_more_to_the_others(head):
    prototypes, features, labels, test, _ = federation(held=list(range(10)))
    named = [solved(features, labels, head, TextPrior(prototypes, risk=risk))[1] for risk in (0.001, 0.05, 0.4)]
    given_away = [int((classifier.predict(test) >= 10).sum()) for classifier in named]
    assert given_away[0] < given_away[1] < given_away[2]
    for classifier in named[1:]:
        assert torch.equal(classifier.scores(test)[:, :10], named[0].scores(test)[:, :10])


@pytest.mark.parametrize("head", HEADS)
def test_the_order_of_clients_changes_nothing(head):
    prototypes, features, labels, test, _ = federation(held=list(range(10)))
    scores = []
    for order in (range(5), reversed(range(5))):
        aggregator = FedCOF(12, 20, head=head)
        aggregator.take_prior(TextPrior(prototypes))
        for client in order:
            mine = slice(client, None, 5)
            aggregator.add(ClassMeans(labels[mine], torch.ones_like(labels[mine]), features[mine]), client)
        scores.append(aggregator.solve().scores(test))
    assert torch.equal(*scores)


def test_means_are_projected_on_the_leading_directions_of_the_prototypes():
    prototypes, features, labels, _, _ = federation()
    totals = _totals(features, labels)
    leading = np.linalg.svd(prototypes.numpy(), full_matrices=False)[2][:3]
    plain = TextPrior(prototypes, 2.0).expected(totals, 10.0)
    projected = TextPrior(prototypes, 2.0, directions=3).expected(totals, 10.0)
    share = (totals.counts / (totals.counts + 2))[:, None].numpy()
    away = (totals.means - plain.centre).numpy()
    difference = share * (away - away @ leading.T @ leading)
    assert np.allclose((plain.means - projected.means).numpy(), difference)


@given(st.floats(0, 1e6), st.integers(1, 50), st.integers(0, 2**31 - 1))
def test_whatever_the_variance_a_prototype_is_worth_a_number_of_samples(variance, each, seed):
    prototypes, features, labels, _, _ = federation(each=each, seed=seed)
    expected = TextPrior(prototypes).expected(_totals(features, labels), variance)
    assert 0 < expected.samples <= MOST_SAMPLES
    assert bool(expected.means.isfinite().all())
    if not variance:
        assert expected.samples == USUAL_SAMPLES


def test_new_samples_scatter_as_generalised_cross_validation_says():
    generator = torch.Generator().manual_seed(0)
    dim, degrees, ridge = 60, 150, 0.02
    scales = torch.linspace(0.2, 3, dim, dtype=torch.float64)
    rows = torch.randn(degrees, dim, generator=generator, dtype=torch.float64) * scales
    shrunk = rows.T @ rows / degrees + ridge * torch.eye(dim, dtype=torch.float64)
    means = torch.randn(40, dim, generator=generator, dtype=torch.float64)
    factor = torch.linalg.cholesky(shrunk)
    vectors = torch.cholesky_solve(means.T, factor).T
    ratio = Shrunk(ridge, 1.0, degrees).wider(factor, vectors)
    truth = float((vectors * scales).square().sum() / (vectors @ factor).square().sum())
    assert truth > 1.2
    assert ratio == pytest.approx(truth, rel=0.1)
    trace = float((torch.cholesky_inverse(factor).diagonal() * scales.square()).sum())
    assert trace > 1.1 * dim
    assert Shrunk(ridge, 1.0, degrees).dimensions(factor) == pytest.approx(trace, rel=0.1)


def test_the_oracle_takes_a_prior_too():
    prototypes, features, labels, test, truth = federation(held=list(range(10)), cosine=0.9)
    oracle = Oracle(12, 20, head="quadratic")
    oracle.add_samples(features, labels)
    oracle.take_prior(TextPrior(prototypes, risk=0.02))
    assert oracle.solve().predict(test)[truth >= 10].eq(truth[truth >= 10]).float().mean() > 0.3


def test_prototypes_of_another_space_are_refused_in_a_sentence():
    with pytest.raises(UserError, match="12 classes of 20 features"):
        FedCOF(12, 20).take_prior(TextPrior(torch.ones(12, 19)))
