"""Classes of which there is one row alone: they show no scatter, and do not count as having none."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from fedcof import ClassMeans, FedCOF, class_means
from fedcof.covariance.estimators import class_weights_of
from fedcof.covariance.factored import FactoredScatter
from fedcof.covariance.shrunk import shrunk_scatter
from fedcof.covariance.totals import ClassCounts
from tests.fedcof import formulas
from tests.fedcof.covariance.test_covariance import as_upload, random_rows

DIM = 20


def lonely_federation(estimator, shrinkage, clients=400, dtype=torch.float64):
    """Nine of ten classes are each on one client; the true covariance is I."""
    generator = torch.Generator().manual_seed(0)
    aggregator = FedCOF(10, DIM, estimator, shrinkage)
    for client in range(clients):
        labels = torch.full((10,), 9) if client else torch.arange(9).repeat_interleave(300)
        features = torch.randn(len(labels), DIM, generator=generator, dtype=torch.float64) + labels[:, None]
        aggregator.add(class_means(features.to(dtype), labels))
    return aggregator


@pytest.mark.parametrize("estimator", ["per-class", "pooled"])
def test_the_covariance_is_the_true_one_however_many_classes_show_nothing(estimator):
    covariance = lonely_federation(estimator, 0.0).covariance()
    assert float(covariance.trace()) / DIM == pytest.approx(1, abs=0.05)
    assert float(lonely_federation("paper", 0.0).covariance().trace()) / DIM < 0.7


@pytest.mark.parametrize("estimator", ["per-class", "pooled", "paper"])
@pytest.mark.parametrize("gamma", [0.25, 4.0])
def test_gamma_weighs_as_it_says(estimator, gamma):
    aggregator = lonely_federation(estimator, gamma, clients=30)
    added = aggregator.covariance() - aggregator.covariance(shrunk=False)
    torch.testing.assert_close(added, gamma * torch.eye(DIM, dtype=torch.float64), rtol=1e-9, atol=1e-9)


def test_nothing_changes_to_the_last_bit_where_every_class_has_two_rows():
    rows = random_rows(9, 30, 12, seed=3, absent=(2,))
    upload = as_upload(rows, torch.float32)
    counts = torch.bincount(upload.class_ids, upload.counts.double(), minlength=9)
    totals = ClassCounts(counts, torch.bincount(upload.class_ids, minlength=9).double())
    assert set(totals.rows.tolist()) - {0.0} >= {2.0} or totals.rows[totals.rows > 0].min() >= 2
    assert torch.equal(class_weights_of(totals, "per-class"), class_weights_of(totals, "paper"))
    solved = []
    for estimator in ("per-class", "paper"):
        aggregator = FedCOF(9, 12, estimator, 0.1)
        aggregator.add(upload)
        solved.append(aggregator.solve().weight)
    assert torch.equal(*solved)


@pytest.mark.parametrize("head", ["ridge", "lda"])
def test_the_smaller_system_agrees_with_the_formula(head):
    """Rows fewer than dimensions, and a class that has one of them."""
    rows = [*random_rows(6, 5, 90, seed=4), (6, 40, np.ones(90))]
    aggregator = FedCOF(7, 90, "per-class", 0.2, head)
    aggregator.add(as_upload(rows))
    assert isinstance(aggregator._scatter()[0], FactoredScatter)
    counts, means, _ = formulas.totals(rows, 7)
    scatter = formulas.per_class_scatter(rows, 7, 0.2)
    expected = formulas.ridge_weight(scatter, counts, means) if head == "ridge" else None
    if expected is None:
        expected, _ = formulas.lda(scatter, counts, means)
    np.testing.assert_allclose(aggregator.solve().weight, expected, rtol=1e-4, atol=1e-5)


def test_the_noise_taken_off_is_that_of_the_classes_that_show_scatter():
    rows = [*random_rows(5, 40, 4, seed=6), (5, 500, np.ones(4))]
    counts, _, num_rows = formulas.totals(rows, 6)
    variance = 1e-3
    expected = sum(
        (counts[c] - 1)
        / (num_rows[c] - 1)
        * sum(n * variance - n**2 * variance / counts[c] for k, n, _ in rows if k == c)
        for c in range(5)
    ) / sum(counts[c] - 1 for c in range(5))
    upload = as_upload(rows)
    found = []
    for noise in (None, torch.full((upload.num_rows,), variance, dtype=torch.float64)):
        aggregator = FedCOF(6, 4, "per-class", 0.1)
        aggregator.add(replace(upload, noise=noise))
        found.append(aggregator.covariance())
    torch.testing.assert_close(
        found[0] - found[1], expected * torch.eye(4, dtype=torch.float64), rtol=1e-9, atol=1e-12
    )


@pytest.mark.parametrize("shrinkage", ["leave-one-out", "ledoit-wolf", "oas"])
def test_estimated_amounts_do_not_ask_for_classes_that_show_nothing(shrinkage):
    widths = np.linspace(1, 6, 30)
    rows = [(class_id, count, widths * mean) for class_id, count, mean in random_rows(5, 12, 30, seed=7)]
    amounts = []
    for more in ([], [(5, 500, np.full(30, 9.0)), (6, 3, np.zeros(30))]):
        aggregator = FedCOF(7, 30, "per-class", shrinkage)
        aggregator.add(as_upload([*rows, *more]))
        covariance = aggregator.covariance()
        aggregator.solve()
        amounts.append((aggregator.shrinkage_, covariance))
    assert 0 < amounts[0][0] < 1
    assert amounts[1][0] == pytest.approx(amounts[0][0], rel=1e-9)
    torch.testing.assert_close(amounts[1][1], amounts[0][1], rtol=1e-9, atol=1e-9)


def test_a_federation_in_which_no_class_shows_scatter_has_gamma_alone():
    upload = ClassMeans(torch.arange(3), torch.tensor([4, 5, 1]), torch.randn(3, 2, dtype=torch.float64))
    for estimator in ("per-class", "pooled", "paper"):
        aggregator = FedCOF(4, 2, estimator, 0.5)
        aggregator.add(upload)
        torch.testing.assert_close(aggregator.covariance(), 0.5 * torch.eye(2, dtype=torch.float64))
        assert aggregator.solve().weight.isfinite().all()
        assert isinstance(shrunk_scatter(aggregator._summed(), estimator, 0.5).amount, float)
