"""Distances of clients' class means from the others': as transcribed, about 1 whatever the counts, and robust."""

import math

import numpy as np
import pytest
import torch

from fedcof import ClassMeans
from fedcof.covariance.client_means import client_means
from fedcof.covariance.outlying import outlying
from tests.attacks import digits_of_clients

CLASSES, DIM = 5, 40


def drawn(num_clients=30, shift=0.0, seed=0, most=60):
    """Uploads as the model has them: a mean of n samples is N(mu_c, Sigma / n), and clients differ by a shift."""
    generator = np.random.default_rng(seed)
    centres = generator.normal(5, 2, (CLASSES, DIM))
    root = generator.normal(size=(DIM, DIM)) / DIM**0.5 + np.eye(DIM)
    uploads = {}
    for client in range(num_clients):
        ids = np.sort(generator.permutation(CLASSES)[:4])
        counts = generator.integers(1, most, len(ids))
        own = shift * generator.normal(size=(len(ids), DIM)) @ root
        noise = generator.normal(size=(len(ids), DIM)) @ root / np.sqrt(counts)[:, None]
        uploads[client] = ClassMeans(
            torch.tensor(ids), torch.tensor(counts), torch.tensor(centres[ids] + noise + own)
        )
    return uploads


def naive_ratios(uploads):
    """The formula with a loop for every sum, where nobody is left out and there is no shift."""
    rows = [
        (client, int(c), float(n), np.asarray(m))
        for client, upload in uploads.items()
        for c, n, m in zip(upload.class_ids, upload.counts, upload.means, strict=True)
    ]

    def mean_of(class_id, without=None):
        found = [(n, m) for client, c, n, m in rows if c == class_id and client != without]
        return sum(n * m for n, m in found) / sum(n for n, _ in found), [n for n, _ in found]

    residuals = [math.sqrt(n) * (m - mean_of(c)[0]) for _, c, n, m in rows]
    lengths = np.array([np.linalg.norm(r) for r in residuals])
    usual = median(lengths)
    clipped = [r * min(1, usual / length) for r, length in zip(residuals, lengths, strict=True)]
    covariance = sum(np.outer(r, r) for r in clipped) / len(rows)
    delta = DIM / (DIM + len(rows))
    whole = (1 - delta) * covariance + delta * np.trace(covariance) / DIM * np.eye(DIM)
    ratios = []
    for (client, c, n, m), own in zip(rows, clipped, strict=True):
        others, counts = mean_of(c, client)
        covariance = whole - (1 - delta) / len(rows) * np.outer(own, own)
        distance = (m - others) @ np.linalg.solve(covariance, m - others) / DIM
        ratios.append(distance / (1 / n + 1 / sum(counts)))
    return np.array(ratios)


def median(values):
    """The lower one, as torch has it."""
    return np.sort(values)[(len(values) - 1) // 2]


def test_the_ratios_are_those_of_the_formula():
    uploads = drawn(most=2)  # All of one sample, so that no shift can be found.
    found = outlying(client_means(uploads, CLASSES))
    expected = naive_ratios(uploads)
    assert not bool((found.excess > 1).any())
    classes = np.concatenate([upload.class_ids for upload in uploads.values()])
    usual = median(np.log(expected))
    for class_id in range(CLASSES):
        own = classes == class_id
        typical = (median(np.log(expected[own])) - usual) * own.sum() / (own.sum() + 5)
        np.testing.assert_allclose(found.ratios[own], expected[own] / np.exp(usual + typical), rtol=1e-9)


@pytest.mark.parametrize("shift", [0.0, 0.5, 3.0])
def test_what_is_usual_does_not_depend_on_the_counts_nor_on_what_clients_differ_by(shift):
    means = client_means(drawn(400, shift), CLASSES)
    found = outlying(means)
    order = means.counts.argsort()
    few, many = found.ratios[order[:500]], found.ratios[order[-500:]]
    assert float(few.mean()) == pytest.approx(float(many.mean()), rel=0.1)
    assert not bool((found.excess > 1).any())


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("wrong", [1, 3])
def test_who_is_far_off_is_found_and_nobody_else(wrong, seed):
    uploads = drawn(10, seed=seed)
    for client in range(wrong):
        upload = uploads[client]
        uploads[client] = ClassMeans((upload.class_ids + 1) % CLASSES, upload.counts, upload.means)
    found = outlying(client_means(uploads, CLASSES))
    assert (found.excess > 1).nonzero()[:, 0].tolist() == list(range(wrong))
    class_id, ratio = found.worst(0)
    assert ratio == float(found.ratios[found.means.clients == 0].max())
    assert class_id in ((uploads[0].class_ids).tolist())


def test_of_two_nobody_can_say_which_is_wrong():
    uploads = drawn(3)
    uploads = {
        client: ClassMeans(u.class_ids[:1] * 0 + min(client, 1), u.counts[:1], 1e3 * (client + 1) * u.means[:1])
        for client, u in uploads.items()
    }
    found = outlying(client_means(uploads, CLASSES))
    assert bool(found.ratios.isnan().all())
    assert not bool((found.excess > 1).any())


def test_numbers_of_clients_and_units_of_features_say_nothing():
    uploads = drawn(10)
    uploads[3] = ClassMeans(uploads[3].class_ids, uploads[3].counts, -uploads[3].means)
    found = outlying(client_means(uploads, CLASSES))
    scaled = {100 - client: ClassMeans(u.class_ids, u.counts, 1e-3 * u.means) for client, u in uploads.items()}
    other = outlying(client_means(scaled, CLASSES))
    assert other.means.sources.tolist() == list(range(91, 101))
    assert torch.allclose(other.excess.flip(0), found.excess, rtol=1e-6)


def test_known_noise_is_no_evidence():
    """Means with noise that is known are as far off as it says; where it is not known, they are found."""
    generator = torch.Generator().manual_seed(0)
    uploads = drawn(30, most=40)
    for noise in (torch.full((4,), 4.0, dtype=torch.float64), None):
        noisy = dict(uploads)
        for client in range(3):
            u = uploads[client]
            means = u.means + 2 * torch.randn(u.means.shape, generator=generator, dtype=torch.float64)
            noisy[client] = ClassMeans(u.class_ids, u.counts, means, noise)
        found = outlying(client_means(noisy, CLASSES))
        assert bool((found.excess[:3] > 1).any()) == (noise is None)


def test_rows_of_groups_are_compared_as_their_mean():
    uploads, _, _ = digits_of_clients(10)
    whole = client_means(uploads, 10)
    split = {}
    for client, u in uploads.items():
        halves = torch.stack([u.counts - u.counts // 2, u.counts // 2], dim=1).flatten()
        moved = torch.stack([u.means + 0.01, u.means], dim=1).flatten(0, 1)
        kept = halves > 0
        split[client] = ClassMeans(u.class_ids.repeat_interleave(2)[kept], halves[kept], moved[kept])
    together = client_means(split, 10)
    assert torch.equal(together.counts, whole.counts)
    assert torch.allclose(together.means, whole.means, atol=0.011)
    assert torch.equal(together.clients, whole.clients)
