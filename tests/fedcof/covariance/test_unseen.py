"""Federations of so few rows that no covariance can be seen: what is solved all the same, and what is said."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from fedcof import FedCOF, FedNCM, Oracle, UserError, class_means
from fedcof.covariance.totals import class_totals
from fedcof.covariance.unseen import scatter_of_sphere
from fedcof.heads.linear import LinearClassifier
from fedcof.heads.quadratic import QuadraticClassifier
from tests.fedcof.covariance.test_covariance import as_upload

AUTOMATIC = ["leave-one-out", "ledoit-wolf", "oas"]
CLASSES, DIM = 6, 40


def samples(per_class, seed=0):
    """Features of classes whose means are far from the origin and not far from one another."""
    generator = np.random.default_rng(seed)
    labels = np.arange(CLASSES * per_class) % CLASSES
    centres = 5 + np.random.default_rng(99).standard_normal((CLASSES, DIM))
    return centres[labels] + generator.standard_normal((len(labels), DIM)), labels


def solved(per_class, clients=3, groups=1, **options):
    features, labels = samples(per_class)
    aggregator = FedCOF(CLASSES, DIM, **options)
    for part in np.array_split(np.random.default_rng(1).permutation(len(labels)), clients):
        aggregator.add(class_means(features[part], labels[part], groups))
    return aggregator


def accuracy(classifier):
    features, labels = samples(200, seed=7)
    return float((classifier.predict(features) == torch.from_numpy(labels)).double().mean())


@pytest.mark.parametrize("estimator", ["per-class", "pooled", "paper"])
@pytest.mark.parametrize("shrinkage", AUTOMATIC)
@pytest.mark.parametrize("head", ["ridge", "lda", "quadratic"])
def test_one_sample_a_class_is_enough_for_a_classifier(head, shrinkage, estimator, caplog):
    aggregator = solved(1, head=head, shrinkage=shrinkage, estimator=estimator)
    classifier = aggregator.solve()
    (record,) = caplog.records
    assert (record.levelname, aggregator.shrinkage_) == ("WARNING", 1.0)
    assert "all directions are taken to be alike" in record.getMessage()
    nearest = FedNCM(CLASSES, DIM)
    nearest.add(class_means(*samples(1)))
    assert isinstance(classifier, LinearClassifier)
    assert accuracy(classifier) > accuracy(nearest.solve()) - 0.02 > 0.3


def test_lda_is_the_nearest_class_mean():
    features, labels = samples(1)
    centres = features[np.argsort(labels)]
    tested, _ = samples(50, seed=3)
    nearest = ((tested[:, None] - centres) ** 2).sum(axis=2).argmin(axis=1)
    assert np.array_equal(solved(1, head="lda").solve().predict(tested), nearest)


def test_quadratic_is_ridge_where_no_class_has_anything_of_its_own():
    one, other = (solved(1, head=head).solve() for head in ("quadratic", "ridge"))
    assert torch.equal(one.weight, other.weight)


def test_the_oracle_needs_no_more(caplog):
    oracle = Oracle(CLASSES, DIM)
    oracle.add_samples(*samples(1))
    assert accuracy(oracle.solve()) == accuracy(solved(1).solve())
    assert len(caplog.records) == 2


def test_a_row_a_class_is_not_enough_however_many_samples_it_has(caplog):
    aggregator = solved(50, clients=1)
    assert accuracy(aggregator.solve()) > 0.9
    assert len(caplog.records) == 1
    totals = class_totals(aggregator._kept(), CLASSES)
    means, counts = totals.means.numpy(), totals.counts.numpy()
    centred = means - np.average(means, axis=0, weights=counts)
    variance = (counts[:, None] * centred**2).sum() / counts.sum() / DIM
    expected = variance * (counts - 1).sum() * np.eye(DIM)
    torch.testing.assert_close(scatter_of_sphere(totals), torch.from_numpy(expected))
    torch.testing.assert_close(aggregator.covariance(), torch.from_numpy(variance * np.eye(DIM)))


def test_a_single_sample_is_a_federation():
    aggregator = FedCOF(3, 4, head="lda")
    aggregator.add(as_upload([(1, 1, np.ones(4))]))
    assert aggregator.solve().predict(np.zeros((2, 4))).tolist() == [1, 1]
    torch.testing.assert_close(aggregator.covariance(), torch.eye(4, dtype=torch.float64))


def test_known_noise_is_left_where_nothing_is_known_of_the_covariance():
    upload = as_upload([(0, 1, np.ones(4)), (1, 1, -np.ones(4))])
    plain, noisy = FedCOF(2, 4), FedCOF(2, 4)
    plain.add(upload)
    noisy.add(replace(upload, noise=torch.full((2,), 0.5)))
    assert torch.equal(plain.solve().weight, noisy.solve().weight)


@pytest.mark.parametrize("head", ["ridge", "lda", "quadratic"])
@pytest.mark.parametrize("shrinkage", AUTOMATIC)
@pytest.mark.parametrize("rows", [3, 4, 2 * CLASSES])
def test_two_degrees_of_freedom_are_a_covariance(rows, shrinkage, head, caplog):
    # Three samples of one class and one of each other, and so on.
    features, labels = samples(rows)
    some = np.concatenate([np.flatnonzero(labels == 0)[:rows], np.flatnonzero(labels != 0)[: CLASSES - 1]])
    aggregator = FedCOF(CLASSES, DIM, shrinkage=shrinkage, head=head)
    aggregator.add(class_means(features[some], labels[some], groups=rows))
    classifier = aggregator.solve()
    assert not caplog.records
    assert 0 < aggregator.shrinkage_ <= 1
    assert isinstance(classifier, QuadraticClassifier if head == "quadratic" else LinearClassifier)
    assert accuracy(classifier) > 0.3


@pytest.mark.parametrize("head", ["ridge", "lda", "quadratic"])
@pytest.mark.parametrize("groups", [1, 2])
def test_two_samples_a_class_are_enough_for_every_head(groups, head, caplog):
    aggregator = solved(2, groups=groups, head=head)
    assert accuracy(aggregator.solve()) > 0.4
    assert not caplog.records


@pytest.mark.parametrize("head", ["ridge", "lda", "quadratic"])
def test_a_gamma_that_is_given_is_taken_at_its_word(head, caplog):
    with pytest.raises(UserError, match="No class has more than one sample"):
        solved(1, shrinkage=0.5, head=head).solve()
    aggregator = solved(50, clients=1, shrinkage=0.5, head=head)
    aggregator.solve()
    torch.testing.assert_close(aggregator.covariance(), 0.5 * torch.eye(DIM, dtype=torch.float64))
    assert not caplog.records
