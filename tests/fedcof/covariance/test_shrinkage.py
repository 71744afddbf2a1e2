"""Leave-one-out shrinkage: against a naive transcription, and where it must beat the nearest covariance."""

import numpy as np
import pytest
import torch

from fedcof import FedCOF, Oracle, class_means
from fedcof.covariance.shrinkage import (
    LARGEST_LOG_ODDS,
    NUM_AMOUNTS,
    Evidence,
    amounts_to_try,
    chosen_shrinkage,
)


def shrinkage_amount(*args):
    return chosen_shrinkage(*args).amount


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


def test_the_likelihood_is_the_mean_log_density_of_a_row_given_the_others():
    rows = normal_rows(150, 40, seed=6)
    covariance, evidence = covariance_of(rows)
    chosen = chosen_shrinkage(covariance, evidence, "leave-one-out")
    logs = []
    for row in rows:
        others = (covariance.numpy() * 150 - np.outer(row, row)) / 150
        left = (1 - chosen.amount) * others + chosen.amount * np.trace(covariance.numpy()) / 40 * np.eye(40)
        logs.append(-(np.linalg.slogdet(left)[1] + row @ np.linalg.solve(left, row) + 40 * np.log(2 * np.pi)) / 2)
    assert chosen.log_likelihood == pytest.approx(np.mean(logs) / 40, abs=0.01)
    for other in ("oas", "ledoit-wolf"):
        assert chosen_shrinkage(covariance, evidence, other).log_likelihood is None


def test_the_likelihood_of_a_run_knows_no_units_and_rises_as_classes_part():
    generator = np.random.default_rng(7)
    labels = np.arange(800) % 4
    rows, centres = generator.normal(size=(800, 12)), generator.normal(size=(4, 12))
    found = {}
    for apart, scale in ((0, 1), (1, 1), (1, 1e-4), (3, 1)):
        oracle = Oracle(4, 12)
        oracle.add_samples((rows + apart * centres[labels]) * scale, labels)
        oracle.solve()
        found[apart, scale] = oracle.backbone_scores_.leave_one_out_likelihood
    # A normal sample of unit variance has this entropy.
    assert found[0, 1] == pytest.approx(-(np.log(2 * np.pi) + 1) / 2, abs=0.02)
    assert found[0, 1] + 0.1 < found[1, 1] < found[3, 1] - 0.1
    assert found[1, 1e-4] == pytest.approx(found[1, 1], rel=1e-6)


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


def old_amount(covariance, degrees):
    """Leave-one-out on its first grid alone, transcribed."""
    values = np.linalg.eigvalsh(covariance.numpy()).clip(min=0)
    tried = torch.linspace(-LARGEST_LOG_ODDS, LARGEST_LOG_ODDS, NUM_AMOUNTS, dtype=torch.float64).sigmoid().numpy()
    losses = []
    for amount in tried:
        shrunk = (1 - amount) * values + amount * values.mean()
        distance = (values / shrunk).sum()
        remaining = 1 - (1 - amount) / degrees * distance
        safe = remaining > 0
        losses.append(np.log(shrunk).sum() + np.log(remaining) + distance / remaining if safe else np.inf)
    return tried[int(np.argmin(losses))]


@pytest.mark.parametrize("seed", range(6))
def test_usual_amounts_are_what_they_were_to_the_last_digit(seed):
    number, dim = [(30, 60), (80, 20), (300, 20), (20, 20), (3000, 5), (61, 60)][seed]
    covariance, evidence = covariance_of(normal_rows(number, dim, seed))
    assert shrinkage_amount(covariance, evidence, "leave-one-out") == old_amount(covariance, number)


def test_the_wider_grid_starts_with_the_old_one_and_goes_on_at_its_pace():
    usual, all_amounts = amounts_to_try(exact=False), amounts_to_try(exact=True)
    grid = torch.linspace(-LARGEST_LOG_ODDS, LARGEST_LOG_ODDS, NUM_AMOUNTS, dtype=torch.float64)
    assert torch.equal(usual, grid.sigmoid())
    assert torch.equal(all_amounts[:NUM_AMOUNTS], usual)
    further = all_amounts[NUM_AMOUNTS:].logit()
    torch.testing.assert_close(torch.cat([grid[:1], further]).diff(), -grid.diff()[0].expand(len(further)))
    assert all_amounts.min() == pytest.approx(np.exp(-36), rel=0.07)


@pytest.mark.parametrize("decades", [6, 9, 12])
def test_narrow_directions_are_found_where_the_old_grid_ended(decades):
    """Amount and narrowest variance shrink together, so the narrow directions are not drowned."""
    scale = np.logspace(0, -decades / 2, 40)
    rows = np.random.default_rng(decades).normal(size=(400, 40)) * scale
    covariance, evidence = covariance_of(rows)
    amount = shrinkage_amount(covariance, evidence, "leave-one-out")
    assert amount * float(covariance.trace()) / 40 < scale[-1] ** 2
    if decades > 6:
        assert old_amount(covariance, 400) == float(amounts_to_try(exact=False)[0])


def test_directions_that_nothing_is_known_of_do_not_pull_the_amount_down():
    """A feature that is always zero: without a rule the likelihood grows without a bound as the amount falls."""
    rows = normal_rows(300, 20, seed=2)
    with_dead = np.concatenate([rows, np.zeros((300, 4))], axis=1)
    amount = shrinkage_amount(*covariance_of(with_dead), "leave-one-out")
    alone = shrinkage_amount(*covariance_of(rows), "leave-one-out")
    assert alone / 2 < amount < 2 * alone


def federation_of_narrow_features(dtype, decades=10, clients=40, estimator="per-class"):
    """Classes that differ in narrow directions alone, beside wide ones that tell nothing."""
    generator = torch.Generator().manual_seed(0)
    scale = torch.cat([torch.ones(20), torch.full((20,), 10.0 ** (-decades / 2))]).double()
    centres = torch.randn(10, 40, generator=generator, dtype=torch.float64) * scale
    centres[:, :20] = 0
    turn, _ = torch.linalg.qr(torch.randn(40, 40, generator=generator, dtype=torch.float64))

    def sample(number):
        labels = torch.randint(10, (number,), generator=generator)
        noise = torch.randn(number, 40, generator=generator, dtype=torch.float64) * scale
        return ((centres[labels] + noise) @ turn).to(dtype), labels

    aggregator = FedCOF(10, 40, estimator)
    for client in range(clients):
        aggregator.add(class_means(*sample(50)), client)
    return aggregator, *sample(2000)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("estimator", ["per-class", "pooled", "paper"])
def test_classes_that_differ_in_narrow_directions_are_told_apart(dtype, estimator, caplog):
    aggregator, features, labels = federation_of_narrow_features(dtype, estimator=estimator)
    classifier = aggregator.solve()
    assert (classifier.predict(features) == labels).double().mean() > 0.95
    assert 1e-15 < aggregator.shrinkage_ < 1e-9
    assert not caplog.records


def test_an_amount_at_the_edge_is_said(caplog, monkeypatch):
    aggregator, *_ = federation_of_narrow_features(torch.float64)
    monkeypatch.setattr("fedcof.covariance.shrinkage.SMALLEST_LOG_ODDS", -15.0)
    aggregator.solve()
    (record,) = caplog.records
    assert "least shrinkage that it tries" in record.getMessage()
    assert aggregator.shrinkage_ == float(amounts_to_try(exact=True).min())


def test_what_was_let_go_in_float32_stays_on_the_amounts_that_it_bears_and_says_so(caplog, monkeypatch):
    monkeypatch.setattr("fedcof.methods.fedcof.ROWS_PER_BLOCK", 16)
    aggregator, features, _ = federation_of_narrow_features(torch.float32, estimator="pooled")
    assert aggregator._streamed is not None
    assert aggregator.solve().scores(features).isfinite().all()
    assert aggregator.shrinkage_ == float(amounts_to_try(exact=False)[0])
    assert len(caplog.records) == 1


@pytest.mark.parametrize("shrinkage", [0.0, 0.3, "oas", "ledoit-wolf", "leave-one-out"])
@pytest.mark.parametrize("estimator", ["per-class", "pooled", "paper"])
def test_the_amount_that_was_taken_is_kept(shrinkage, estimator, caplog):
    generator = torch.Generator().manual_seed(1)
    aggregators = FedCOF(4, 8, estimator, shrinkage), Oracle(4, 8, shrinkage)
    for _ in range(12):
        features, labels = torch.randn(20, 8, generator=generator), torch.arange(20) % 4
        aggregators[0].add(class_means(features, labels))
        aggregators[1].add_samples(features, labels)
    for aggregator in aggregators:
        aggregator.solve()
        plain, shrunk = aggregator.covariance(shrunk=False), aggregator.covariance()
        added = aggregator.shrinkage_
        if isinstance(shrinkage, str):
            plain, added = (1 - added) * plain, added * float(plain.trace()) / 8
        torch.testing.assert_close(shrunk, plain + added * torch.eye(8, dtype=torch.float64), rtol=1e-4, atol=1e-5)
    assert not caplog.records
