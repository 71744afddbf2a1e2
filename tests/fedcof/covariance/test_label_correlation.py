"""The label-feature correlation of class statistics: against the matrices of all pairs of samples."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedcof import Fed3R, FedCOF, FedNCM, Oracle, class_means, feature_moments
from fedcof.covariance.label_correlation import (
    label_correlation,
    label_correlation_of_factor,
    label_correlation_of_gram,
)
from fedcof.covariance.totals import class_totals
from fedcof.methods.base import backbone_scores
from fedcof.methods.noise_corrected import NoiseCorrected
from fedcof.privacy.mechanism import Privacy
from fedcof.statistics.class_means import ClassMeans


def samples(number, dim, classes, seed=0, offset=0.0, apart=1.0):
    generator = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(classes), generator.integers(0, classes, number - classes)])
    centres = generator.normal(size=(classes, dim)) * apart + offset
    return generator.normal(size=(number, dim)) * np.linspace(0.3, 2, dim) + centres[labels], labels


def of_all_pairs(features, labels):
    """Of the kernels themselves, n by n, as Deshpande et al. have it."""
    kernel = features @ features.T
    same = np.where(labels[:, None] == labels[None, :], 1.0, -1.0)
    kernel, same = kernel - kernel.mean(), same - same.mean()
    return (kernel * same).sum() / (np.linalg.norm(kernel) * np.linalg.norm(same))


def statistics_of(features, labels, classes):
    labels = torch.from_numpy(labels)
    rows = ClassMeans(labels, torch.ones_like(labels), torch.from_numpy(features))
    totals = class_totals(rows, classes)
    return torch.from_numpy(features) - totals.means[labels], totals


@settings(max_examples=50, deadline=None)
@given(
    number=st.integers(8, 60),
    dim=st.integers(1, 9),
    classes=st.integers(2, 6),
    seed=st.integers(0, 1000),
    offset=st.sampled_from([0.0, 1.0, -30.0]),
    noise=st.sampled_from([0.0, 0.5]),
)
def test_class_statistics_give_what_all_pairs_do(number, dim, classes, seed, offset, noise):
    features, labels = samples(number, dim, classes, seed, offset)
    expected = of_all_pairs(features, labels)
    residuals, totals = statistics_of(features, labels, classes + 1)  # Of the last class nobody has a sample.
    noisy = residuals.T @ residuals + noise * torch.eye(dim, dtype=torch.float64)
    gram = torch.from_numpy(features.T @ features)
    assert label_correlation(noisy, totals, noise) == pytest.approx(expected, rel=1e-6, abs=1e-9)
    assert label_correlation_of_factor(residuals, totals) == pytest.approx(expected, rel=1e-6, abs=1e-9)
    assert label_correlation_of_gram(gram, totals) == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_noise_is_taken_off_rows_as_off_their_products():
    residuals, totals = statistics_of(*samples(9, 30, 3), 3)
    whole = label_correlation(residuals.T @ residuals, totals, 0.2)
    assert label_correlation_of_factor(residuals, totals, 0.2) == pytest.approx(whole, rel=1e-9)
    assert whole != pytest.approx(label_correlation(residuals.T @ residuals, totals), rel=1e-3)


def test_nothing_cancels_far_from_the_origin():
    features, labels = samples(200, 10, 4, offset=1e5)
    residuals, totals = statistics_of(features, labels, 4)
    expected = of_all_pairs(features.astype(np.longdouble), labels)
    assert label_correlation(residuals.T @ residuals, totals) == pytest.approx(float(expected), rel=1e-6)


def test_it_is_one_for_classes_that_are_points_and_rises_as_they_part():
    labels = np.array([0, 0, 1, 1])
    residuals, totals = statistics_of(np.array([[1.0], [1.0], [-1.0], [-1.0]]), labels, 2)
    assert label_correlation(residuals.T @ residuals, totals) == pytest.approx(1)
    found = []
    for apart in (0.0, 0.5, 1.0, 3.0):
        residuals, totals = statistics_of(*samples(400, 10, 3, apart=apart), 3)
        found.append(label_correlation(residuals.T @ residuals, totals))
    assert found == sorted(found)
    assert found[0] < 0.1
    assert found[-1] > 0.5


def test_units_and_directions_change_nothing():
    features, labels = samples(100, 8, 4)
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(8, 8)))[0]
    found = []
    for changed in (features, features @ turn * 1e-4):
        residuals, totals = statistics_of(changed, labels, 4)
        found.append(label_correlation(residuals.T @ residuals, totals))
    assert found[0] == pytest.approx(found[1], rel=1e-9)


@pytest.mark.parametrize(
    ("features", "labels"), [(np.arange(4.0)[:, None], np.zeros(4, int)), (np.ones((4, 1)), np.array([0, 0, 1, 1]))]
)
def test_without_two_classes_or_two_features_there_is_none(features, labels):
    residuals, totals = statistics_of(features, labels, 2)
    assert label_correlation(residuals.T @ residuals, totals) is None


def test_the_oracle_and_fed3r_have_that_of_all_pairs():
    features, labels = samples(300, 12, 5)
    oracle, fed3r = Oracle(5, 12), Fed3R(5, 12)
    oracle.add_samples(features, labels)
    for part in np.array_split(np.arange(300), 7):
        fed3r.add(feature_moments(torch.from_numpy(features[part]), torch.from_numpy(labels[part])))
    for aggregator in (oracle, fed3r):
        aggregator.solve()
        found = backbone_scores(aggregator).label_correlation
        assert found == pytest.approx(of_all_pairs(features, labels), rel=1e-6)
    assert backbone_scores(fed3r).leave_one_out_likelihood is None


@pytest.mark.parametrize("shrinkage", ["leave-one-out", "oas", "ledoit-wolf", 0.0, 0.5, 1e3])
@pytest.mark.parametrize("estimator", ["per-class", "pooled", "paper"])
def test_fedcof_has_that_of_its_covariance_before_shrinkage(estimator, shrinkage):
    features, labels = samples(600, 10, 4)
    clients = np.random.default_rng(2).integers(0, 30, 600)
    aggregator = FedCOF(4, 10, estimator, shrinkage)
    for client in range(30):
        aggregator.add(class_means(features[clients == client], labels[clients == client]))
    aggregator.solve()
    totals = class_totals(aggregator._rows(), 4)
    scatter = aggregator.covariance(shrunk=False) * totals.sample_degrees_of_freedom.sum()
    found = backbone_scores(aggregator)
    assert found.label_correlation == pytest.approx(label_correlation(scatter, totals), rel=1e-6)
    assert found.label_correlation == pytest.approx(of_all_pairs(features, labels), rel=0.05)
    assert (found.leave_one_out_likelihood is None) == (shrinkage != "leave-one-out")


def test_few_rows_have_that_of_their_covariance():
    features, labels = samples(60, 40, 3)
    aggregator = FedCOF(3, 40, shrinkage=0.5)
    for part in np.array_split(np.random.default_rng(3).permutation(60), 6):
        aggregator.add(class_means(features[part], labels[part]))
    assert not isinstance(aggregator._scatter()[0], torch.Tensor)
    aggregator.solve()
    totals = class_totals(aggregator._rows(), 3)
    scatter = aggregator.covariance(shrunk=False) * totals.sample_degrees_of_freedom.sum()
    expected = label_correlation(scatter, totals)
    assert backbone_scores(aggregator).label_correlation == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("classes", "dim"), [(4, 10), (12, 5)])
def test_class_information_is_half_the_logarithm_of_a_ratio_of_determinants(classes, dim):
    features, labels = samples(500, dim, classes)
    found = []
    mapped = features @ np.random.default_rng(4).normal(size=(dim, dim)) * 1e-3
    for changed in (features, mapped):
        oracle = Oracle(classes + 1, dim, shrinkage=0.0)
        oracle.add_samples(changed, labels)
        oracle.solve()
        within = oracle.covariance().numpy()
        shifts = oracle.class_means().numpy()[:classes] - changed.mean(axis=0)
        between = (shifts.T * np.bincount(labels)) @ shifts / len(labels)
        expected = (np.linalg.slogdet(within + between)[1] - np.linalg.slogdet(within)[1]) / 2
        found.append(backbone_scores(oracle).class_information)
        assert found[-1] == pytest.approx(expected, rel=1e-6)
    # No linear map of the features changes it.
    assert found[0] == pytest.approx(found[1], rel=1e-6)


def test_a_scatter_without_an_inverse_has_no_class_information():
    features, labels = samples(40, 6, 3)
    flat = Oracle(3, 6, shrinkage=0.0, head="ridge")
    flat.add_samples(np.hstack([features[:, :5], np.zeros((40, 1))]), labels)
    assert flat._finished(0.0)[0].scores.class_information is None


def test_where_nothing_is_seen_nothing_is_said():
    features, labels = samples(40, 6, 3)
    alone, fedncm = FedCOF(3, 6), FedNCM(3, 6)
    for aggregator in (alone, fedncm):
        aggregator.add(class_means(features, labels))
        aggregator.solve()
        assert backbone_scores(aggregator).label_correlation is None
        assert backbone_scores(aggregator).leave_one_out_likelihood is None


def test_nothing_is_said_under_noise_for_privacy():
    features, labels = samples(300, 6, 3)
    aggregator = FedCOF(3, 6)
    for part in np.array_split(np.arange(300), 8):
        aggregator.add(class_means(features[part], labels[part]))
    private = NoiseCorrected(aggregator, Privacy(epsilon=8.0, delta=1e-5, clip_norm=9.0))
    private.solve()
    assert backbone_scores(aggregator).label_correlation is not None
    assert backbone_scores(private).label_correlation is None
