"""Drift against loops over pairs, and as sums of clients; where it has to be exact it is."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedcof import ClassMeans, UserError
from fedcof.covariance.drift import Drift, class_moves, distances, feature_matrix, measured_drift, score_curvature

CLASSES, DIM, SAMPLES, MEANS = 4, 6, 23, 5


def problem(seed=0, samples=SAMPLES):
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    old = draw(samples, DIM)
    return {"weight": draw(CLASSES, DIM), "bias": draw(CLASSES), "old": old, "means": draw(MEANS, DIM)} | {
        "new": old + 0.3 * draw(samples, DIM) + draw(DIM)
    }


def naive(weight, bias, old, new, means, sigma=0.2):
    """One pair of mean and sample after the other, by the papers' formulas."""
    weight, bias, old, new, means = (tensor.numpy() for tensor in (weight, bias, old, new, means))
    matrix = np.zeros((DIM, DIM))
    for feature in old:
        exponentials = np.exp(weight @ feature + bias)
        p = exponentials / exponentials.sum()
        # The expectation over classes of the outer product of the log-likelihood's gradient.
        for c in range(CLASSES):
            gradient = weight[c] - p @ weight
            matrix += p[c] * np.outer(gradient, gradient) / len(old)
    table = np.array([[(f - mean) @ matrix @ (f - mean) for f in old] for mean in means])
    scaled = (-table - (-table).min()) / ((-table).max() - (-table).min())
    moved = []
    for mean, row in zip(means, scaled, strict=True):
        shares = np.exp(row / (2 * sigma**2))
        moved.append(
            mean + sum(share * (n - o) for share, n, o in zip(shares, new, old, strict=True)) / shares.sum()
        )
    return matrix, table, np.array(moved)


def by_clients(parts, weight, bias, old, new, means, sigma=0.2):
    """Three rounds of numbers from clients that hold these parts."""
    curvature = sum(score_curvature(old[part], weight, bias) for part in parts)
    matrix = feature_matrix(curvature, sum(len(old[part]) for part in parts), weight)
    tables = [distances(means, old[part], matrix) for part in parts if len(old[part])]
    ends = min(float(table.min()) for table in tables), max(float(table.max()) for table in tables)
    drifts = [measured_drift(means, old[part], new[part], matrix, ends, sigma) for part in parts]
    return sum(drifts[1:], drifts[0]).applied_to(means)


@pytest.mark.parametrize("sigma", [0.1, 0.2, 1.0])
def test_it_is_the_papers(sigma):
    given_here = problem()
    matrix, table, expected = naive(**given_here, sigma=sigma)
    curvature = score_curvature(given_here["old"], given_here["weight"], given_here["bias"])
    found = feature_matrix(curvature, SAMPLES, given_here["weight"])
    np.testing.assert_allclose(found.numpy(), matrix, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(distances(given_here["means"], given_here["old"], found).numpy(), table, rtol=1e-9)
    moved = by_clients([slice(None)], **given_here, sigma=sigma)
    np.testing.assert_allclose(moved.numpy(), expected, rtol=1e-9, atol=1e-12)


@given(
    seed=st.integers(0, 10**6),
    cuts=st.lists(st.integers(0, SAMPLES), max_size=5),
    order=st.randoms(use_true_random=False),
)
@settings(max_examples=40, deadline=None)
def test_clients_sums_are_the_whole_tables(seed, cuts, order):
    """However the samples are dealt, and whoever has none."""
    given_here = problem(seed)
    bounds = [0, *sorted(cuts), SAMPLES]
    parts = [slice(*ends) for ends in pairwise(bounds)]
    order.shuffle(parts)
    *_, expected = naive(**given_here)
    np.testing.assert_allclose(by_clients(parts, **given_here).numpy(), expected, rtol=1e-8, atol=1e-10)


def test_what_moves_all_samples_alike_moves_every_mean_as_far():
    given_here = problem()
    shift = torch.arange(DIM, dtype=torch.float64)
    given_here["new"] = given_here["old"] + shift
    moved = by_clients([slice(0, 9), slice(9, None)], **given_here)
    torch.testing.assert_close(moved, given_here["means"] + shift)


def test_a_mean_follows_the_samples_beside_it():
    generator = torch.Generator().manual_seed(0)
    weight = torch.eye(2, DIM, dtype=torch.float64) * 2
    near, far = torch.zeros(1, DIM).double(), torch.zeros(1, DIM).double()
    near[0, 0], far[0, 1] = 5.0, 5.0
    old = torch.cat([point + 0.1 * torch.randn(30, DIM, generator=generator) for point in (near, far)])
    shift = torch.zeros(60, DIM, dtype=torch.float64)
    shift[:30, 3], shift[30:, 3] = 1.0, -1.0
    moved = by_clients([slice(None)], weight, torch.zeros(2), old, old + shift, torch.cat([near, far]))
    assert moved[0, 3] > 0.99
    assert moved[1, 3] < -0.99


def test_one_pair_and_no_sample():
    given_here = problem(samples=1)
    given_here["means"] = given_here["means"][:1]
    moved = by_clients([slice(None)], **given_here)
    torch.testing.assert_close(moved, given_here["means"] + given_here["new"] - given_here["old"])
    nothing = Drift(torch.zeros(1, DIM), torch.zeros(1))
    assert torch.equal(nothing.applied_to(given_here["means"].float()), given_here["means"].float())
    with pytest.raises(UserError, match="no sample to measure drift by"):
        feature_matrix(torch.zeros(CLASSES, CLASSES), 0, given_here["weight"])


def test_classes_move_as_the_means_of_those_that_measured_twice():
    generator = np.random.default_rng(0)

    def rows(ids):
        counts, means = generator.integers(1, 9, len(ids)), generator.normal(size=(len(ids), DIM))
        return ClassMeans(torch.tensor(ids, dtype=torch.int64), torch.tensor(counts), torch.tensor(means))

    # Class 3 is measured before alone, class 4 afterwards, 5 by nobody; the last client sent nothing at first.
    before = [rows([0, 0, 1]), rows([1, 3]), rows([])]
    after = [rows([0, 1, 1]), rows([1, 4]), rows([2])]

    def naive(label):
        total, samples = np.zeros(DIM), 0
        for old, new in zip(before, after, strict=True):
            means = []
            for one in (old, new):
                mine = [r for r in range(one.num_rows) if label is None or int(one.class_ids[r]) == label]
                count = sum(int(one.counts[r]) for r in mine)
                means.append((count, sum(int(one.counts[r]) * one.means[r].numpy() for r in mine)))
            if means[0][0] and means[1][0]:
                total += means[0][0] * (means[1][1] / means[1][0] - means[0][1] / means[0][0])
                samples += means[0][0]
        return total, samples

    moves = class_moves(before, after, 6).numpy()
    of_classes = [naive(label) for label in range(6)]
    everywhere = sum(total for total, _ in of_classes) / sum(samples for _, samples in of_classes)
    for label, (total, samples) in enumerate(of_classes):
        np.testing.assert_allclose(moves[label], total / samples if samples else everywhere, rtol=1e-12)
    assert [bool(samples) for _, samples in of_classes] == [True, True, False, False, False, False]
