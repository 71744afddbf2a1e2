"""Covariance diagnostics: against numpy's own, where nothing is off, and how they move with the rows."""

import numpy as np
import pytest
import torch

from fedcof import FedCOF, Oracle, UserError, class_means
from fedcof.covariance.diagnosis import compare_covariances

CLASSES, DIM = 4, 24


def samples(number=4000, seed=0):
    generator = np.random.default_rng(seed)
    labels = generator.integers(CLASSES, size=number)
    centres = 2 * generator.normal(size=(CLASSES, DIM))
    features = generator.normal(size=(number, DIM)) * np.arange(1, DIM + 1) ** -0.5 + centres[labels]
    return torch.from_numpy(features), torch.from_numpy(labels)


def rebuilt(groups, shrinkage="leave-one-out", clients=20):
    features, labels = samples()
    aggregator = FedCOF(CLASSES, DIM, shrinkage=shrinkage)
    for client in range(clients):
        own = slice(client, None, clients)
        aggregator.add(class_means(features[own], labels[own], groups, torch.Generator().manual_seed(client)))
    return aggregator


def oracle(shrinkage="leave-one-out"):
    aggregator = Oracle(CLASSES, DIM, shrinkage)
    aggregator.add_samples(*samples())
    return aggregator


def diagnostic_of(aggregator, truth):
    estimate, shrunk = aggregator.covariance(shrunk=False), aggregator.covariance()
    return compare_covariances(estimate, shrunk, truth, CLASSES, aggregator.rows_per_class(), 0.9)


def test_every_number_is_numpys():
    aggregator, truth = rebuilt(2), oracle().covariance(shrunk=False).numpy()
    estimate, shrunk = (aggregator.covariance(shrunk).numpy() for shrunk in (False, True))
    found = diagnostic_of(aggregator, torch.from_numpy(truth))
    assert found.relative_error == pytest.approx(np.linalg.norm(estimate - truth) / np.linalg.norm(truth))
    assert found.shrunk_error == pytest.approx(np.linalg.norm(shrunk - truth) / np.linalg.norm(truth))
    assert found.effective_rank == pytest.approx(np.trace(estimate) ** 2 / np.trace(estimate @ estimate))
    assert found.oracle_effective_rank == pytest.approx(np.trace(truth) ** 2 / np.trace(truth @ truth))
    assert found.condition == pytest.approx(np.linalg.cond(shrunk))
    assert found.rows_per_class == 40
    assert found.oracle_accuracy == 0.9
    values, vectors = np.linalg.eigh(estimate)
    leading = vectors[:, -CLASSES:]
    own = np.linalg.eigvalsh(truth)[-CLASSES:].sum()
    assert found.captured == pytest.approx(np.trace(leading.T @ truth @ leading) / own)
    assert found.captured < 1
    assert (found.ranks[0], found.ranks[-1]) == (1, DIM)
    np.testing.assert_allclose(found.spectrum, values[::-1][np.array(found.ranks) - 1])
    np.testing.assert_allclose(found.oracle_spectrum, np.linalg.eigvalsh(truth)[::-1][np.array(found.ranks) - 1])
    np.testing.assert_allclose(found.shrunk_spectrum, np.linalg.eigvalsh(shrunk)[::-1][np.array(found.ranks) - 1])


def test_the_oracle_is_numpys_covariance_and_has_no_error():
    features, labels = (values.numpy() for values in samples())
    within = sum(np.cov(features[labels == c].T) * ((labels == c).sum() - 1) for c in range(CLASSES)) / (
        len(labels) - CLASSES
    )
    np.testing.assert_allclose(oracle().covariance(shrunk=False).numpy(), within, rtol=1e-9, atol=1e-12)
    found = diagnostic_of(oracle(0.0), oracle().covariance(shrunk=False))
    assert found.relative_error == found.shrunk_error == 0
    assert found.captured == pytest.approx(1)


def test_more_rows_are_nearer_the_truth():
    truth = oracle().covariance(shrunk=False)
    found = [diagnostic_of(rebuilt(groups), truth) for groups in (1, 4, 16)]
    errors, captured = [d.relative_error for d in found], [d.captured for d in found]
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > 2 * errors[-1]
    assert captured == sorted(captured)


def test_a_singular_estimate_has_no_condition():
    estimate = torch.diag(torch.tensor([2.0, 1.0, 0.0], dtype=torch.float64))
    found = compare_covariances(estimate, estimate, torch.eye(3, dtype=torch.float64), 1, 1.0, 0.5)
    assert found.condition is None


def test_nothing_has_no_covariance():
    with pytest.raises(UserError):
        FedCOF(CLASSES, DIM).covariance()


def test_the_pooled_estimate_in_parts_is_that_of_all(monkeypatch):
    whole = FedCOF(CLASSES, DIM, estimator="pooled", shrinkage=0.1)
    whole._uploads = rebuilt(2)._uploads
    monkeypatch.setattr("fedcof.methods.fedcof.ROWS_PER_BLOCK", 30)
    parts = FedCOF(CLASSES, DIM, estimator="pooled", shrinkage=0.1)
    for upload in rebuilt(2)._kept():
        parts.add(upload)
    assert parts._streamed is not None
    torch.testing.assert_close(parts.covariance(), whole.covariance(), rtol=1e-5, atol=1e-5)
    assert parts.rows_per_class() == 40
