"""Weights that make class means geometric medians: the median's own condition, and what they leave as it was."""

import pytest
import torch

from fedcof import ClassMeans
from fedcof.covariance.client_means import client_means
from fedcof.covariance.median_of_means import weights_of_median
from tests.fedcof.covariance.test_outlying import CLASSES, drawn


def weighted_means(means, weights):
    counts = means.counts * weights
    sums = torch.zeros(CLASSES, means.feature_dim, dtype=torch.float64)
    return sums.index_add_(0, means.class_ids, counts[:, None] * means.means) / means.sum_by_class(counts)[:, None]


def test_the_weighted_mean_is_where_the_weighted_directions_of_all_groups_cancel():
    means = client_means(drawn(15), CLASSES)  # So few that each client is a group of its own.
    weights = weights_of_median(means)
    medians = weighted_means(means, weights)
    assert torch.allclose(means.sum_by_class(means.counts * weights), means.sum_by_class(means.counts))
    for class_id in range(CLASSES):
        own = means.class_ids == class_id
        away = means.means[own] - medians[class_id]
        pulls = means.counts[own].sqrt()[:, None] * away / away.norm(dim=1, keepdim=True)
        assert float(pulls.sum(dim=0).norm()) < 0.02 * float(pulls.norm(dim=1).sum())


def test_one_who_is_far_off_moves_the_median_less_than_the_mean():
    uploads = drawn(15)
    honest = client_means(uploads, CLASSES)
    uploads[0] = ClassMeans(uploads[0].class_ids, uploads[0].counts, uploads[0].means + 1000.0)
    wrong = client_means(uploads, CLASSES)
    ones = torch.ones(len(wrong.counts), dtype=torch.float64)

    def moved(weight_of):
        # Each is around its own centre.
        centre = wrong.means[-1] - honest.means[-1]
        return (weighted_means(wrong, weight_of(wrong)) - centre - weighted_means(honest, weight_of(honest))).norm()

    assert float(moved(weights_of_median)) < float(moved(lambda _: ones)) / 20


@pytest.mark.parametrize("clients", [1, 5, 60])
def test_honest_rows_keep_about_their_weight(clients):
    means = client_means(drawn(clients), CLASSES)
    weights = weights_of_median(means)
    assert bool(weights.isfinite().all())
    assert float(weights.median()) == pytest.approx(1, abs=0.25)
    assert torch.equal(weights, weights_of_median(means))
    if clients == 60:
        assert not torch.equal(weights, weights_of_median(means, seed=1))
