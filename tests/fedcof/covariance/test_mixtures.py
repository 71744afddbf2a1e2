"""Shares of another class in a mean, against loops; and clients that call two classes one are found by them."""

import numpy as np
import pytest
import torch

from fedcof import ClassMeans
from fedcof.covariance.client_means import client_means
from fedcof.covariance.mixtures import mixtures
from fedcof.covariance.outlying import outlying
from tests.attacks import attacked, digits_of_clients, two_classes_called_one

CLASSES, DIM, CLIENTS = 5, 30, 7


def drawn(seed=0, mixed=0.0):
    """Clients with means of most classes; that of class 0 of the first has so much of the last class in it."""
    generator = np.random.default_rng(seed)
    centres = 3 * generator.normal(size=(CLASSES, DIM))
    uploads = {}
    for client in range(CLIENTS):
        ids = np.sort(generator.permutation(CLASSES)[:4]) if client else np.arange(4)
        counts = generator.integers(20, 60, len(ids))
        means = centres[ids] + generator.normal(size=(len(ids), DIM)) / np.sqrt(counts)[:, None]
        if client == 0:
            means[0] += mixed * (centres[-1] - centres[0])
        uploads[client] = ClassMeans(torch.tensor(ids), torch.tensor(counts), torch.tensor(means))
    return uploads


def naive(means, taken):
    """One mean after the other, with the class means of everybody else and then of everybody."""
    clients, ids, counts = means.clients.numpy(), means.class_ids.numpy(), means.counts.numpy()
    rows, taken = means.means.double().numpy(), taken.numpy()

    def centre(label, without=None):
        members = [r for r in range(len(ids)) if ids[r] == label and taken[r] and clients[r] != without]
        total = sum(counts[r] for r in members)
        return total, sum(counts[r] * rows[r] for r in members) / total

    apart = [(centre(ids[r], clients[r]), r) for r in range(len(ids))]
    lengths = [np.sum((rows[r] - mean) ** 2) / (1 / counts[r] + 1 / total) for (total, mean), r in apart]
    usual = float(torch.tensor(lengths).median())
    shares = []
    for (total, mean), r in apart:
        found = []
        for label in set(range(means.num_classes)) - {int(ids[r])}:
            others, towards = centre(label)
            way = towards - mean
            along = (rows[r] - mean) @ way - usual / total
            found.append(along / (way @ way - usual * (1 / total + 1 / others)))
        shares.append(max(found))
    return shares


@pytest.mark.parametrize("without", [None, 2])
def test_shares_are_those_of_loops_over_means_and_classes(without):
    means = client_means(drawn(mixed=0.4), CLASSES)
    taken = means.clients != (-1 if without is None else without)
    found = mixtures(means, taken, torch.ones(len(taken), dtype=torch.bool))
    np.testing.assert_allclose(found.shares, naive(means, taken), rtol=1e-9)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.7])
def test_a_share_is_found_and_nobody_else_has_one(share):
    found = []
    for seed in range(20):
        means = client_means(drawn(seed, share), CLASSES)
        shares = mixtures(means, torch.ones(len(means.counts), dtype=torch.bool), means.counts > 0).shares
        found.append(float(shares[0]))
        assert float(shares[1:][means.class_ids[1:] != 0].max()) < 0.15
    assert np.mean(found) == pytest.approx(share, abs=0.03)


def test_without_another_class_there_is_nothing_to_be_mixed_with():
    uploads = {k: ClassMeans(torch.tensor([0]), torch.tensor([9]), torch.randn(1, DIM)) for k in range(5)}
    means = client_means(uploads, 3)
    everybody = torch.ones(5, dtype=torch.bool)
    assert mixtures(means, everybody, everybody).shares.isnan().all()
    assert mixtures(means, everybody, ~everybody).shares.isnan().all()
    assert not (outlying(means).excess > 1).any()


@pytest.mark.parametrize("attackers", [[4], [1, 7], [0, 3, 8]])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_who_calls_two_classes_one_is_found_and_nobody_else(attackers, seed):
    uploads, _, _ = digits_of_clients(10, seed=seed)
    for wrong in ([], attackers):
        found = outlying(client_means(attacked(uploads, two_classes_called_one, wrong), 10))
        assert found.means.sources[found.excess > 1].tolist() == wrong
