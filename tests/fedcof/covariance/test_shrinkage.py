"""Leave-one-out shrinkage: against a naive transcription, and where it must beat the nearest covariance."""

import numpy as np
import pytest
import torch

from fedcof.covariance.shrinkage import LARGEST_LOG_ODDS, NUM_AMOUNTS, Evidence, shrinkage_amount


def covariance_of(rows):
    return torch.from_numpy(rows.T @ rows / len(rows)), Evidence(len(rows), len(rows), 0.0)


def normal_rows(number, dim, seed, decay=1.0):
    spectrum = np.arange(1, dim + 1) ** -decay
    return np.random.default_rng(seed).normal(size=(number, dim)) * np.sqrt(spectrum / spectrum.mean())


def mean_distance_loss(covariance, degrees, amount):
    """Twice a row's share of the negative log-likelihood, with dense inverses."""
    dim = len(covariance)
    shrunk = (1 - amount) * covariance + amount * np.trace(covariance) / dim * np.eye(dim)
    distance = np.trace(np.linalg.inv(shrunk) @ covariance)
    remaining = 1 - (1 - amount) / degrees * distance
    return np.linalg.slogdet(shrunk)[1] + np.log(remaining) + distance / remaining


@pytest.mark.parametrize(("number", "dim"), [(80, 20), (300, 20), (30, 60)])
def test_the_amount_has_the_least_loss_of_the_formula(number, dim):
    covariance, evidence = covariance_of(normal_rows(number, dim, seed=number))
    amount = shrinkage_amount(covariance, evidence, "leave-one-out")
    tried = 1 / (1 + np.exp(-np.linspace(-LARGEST_LOG_ODDS, LARGEST_LOG_ODDS, NUM_AMOUNTS)))
    with np.errstate(invalid="ignore"):
        losses = [mean_distance_loss(covariance.numpy(), number, value) for value in tried]
    assert amount == pytest.approx(tried[np.nanargmin(losses)], rel=1e-9)
    assert 1e-3 < amount < 0.9


def test_it_is_the_likelihood_of_every_row_given_the_others():
    """With rows of about the same distance, as normal ones in many dimensions are, their mean stands for each."""
    rows = normal_rows(120, 60, seed=5)
    covariance, evidence = covariance_of(rows)
    amount = shrinkage_amount(covariance, evidence, "leave-one-out")

    def exact(amount):
        loss = 0.0
        for row in rows:
            others = (covariance.numpy() * 120 - np.outer(row, row)) / 120
            left = (1 - amount) * others + amount * np.trace(covariance.numpy()) / 60 * np.eye(60)
            loss += np.linalg.slogdet(left)[1] + row @ np.linalg.solve(left, row)
        return loss / 120

    tried = 1 / (1 + np.exp(-np.linspace(-5, 2, 60)))
    best = tried[np.argmin([exact(value) for value in tried])]
    assert exact(amount) - exact(best) < 0.02
    assert amount == pytest.approx(best, rel=0.35)


def test_the_inverse_is_nearer_the_truth_than_with_ledoit_and_wolfs_amount():
    """In Stein's loss of the inverse, at as many rows as dimensions."""
    spectrum = np.arange(1, 81) ** -1.0
    truth = np.diag(spectrum / spectrum.mean())
    losses = {}
    for name in ("leave-one-out", "ledoit-wolf"):
        losses[name] = 0.0
        for seed in range(5):
            rows = normal_rows(90, 80, seed)
            covariance, _ = covariance_of(rows)
            fourth = float((np.square(rows).sum(axis=1) ** 2).sum() / 90**2)
            amount = shrinkage_amount(covariance, Evidence(90, 90, fourth), name)
            shrunk = (1 - amount) * covariance.numpy() + amount * np.eye(80) * float(covariance.trace()) / 80
            product = np.linalg.inv(shrunk) @ truth
            losses[name] += np.trace(product) - np.linalg.slogdet(product)[1] - 80
    assert losses["leave-one-out"] < 0.9 * losses["ledoit-wolf"]


@pytest.mark.parametrize("rows_and_dim", [(2, 10), (5, 200)])
def test_few_rows_are_shrunk_much_and_many_little(rows_and_dim):
    few = shrinkage_amount(*covariance_of(normal_rows(*rows_and_dim, seed=1)), "leave-one-out")
    many = shrinkage_amount(*covariance_of(normal_rows(5000, 10, seed=1)), "leave-one-out")
    assert few > 0.3
    assert many < 0.01


def test_a_sphere_and_nothing_at_all_need_no_search():
    for covariance in (torch.eye(4, dtype=torch.float64), torch.zeros(4, 4, dtype=torch.float64)):
        assert shrinkage_amount(covariance, Evidence(9, 9, 0.0), "leave-one-out") == 1.0
