"""Step sizes that do not overshoot, whatever the features' scale, and how far a step of Adam moves a score."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

from fedcof.heads.step_size import gradient_step, sign_step


def samples(seed, classes, scale, offset, dim=12, count=120):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % classes
    centres = torch.randn(classes, dim, generator=generator)
    features = centres[labels] + torch.randn(count, dim, generator=generator) + offset
    return (features * scale).double(), labels


def losses_of(features, labels, classes, step, rounds=20):
    weight = torch.zeros(classes, features.shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(classes, dtype=torch.float64, requires_grad=True)
    losses = []
    for _ in range(rounds):
        loss = cross_entropy(features @ weight.T + bias, labels)
        losses.append(float(loss.detach()))
        loss.backward()
        with torch.no_grad():
            for moved in (weight, bias):
                moved.sub_(step * moved.grad)
                moved.grad = None
    return losses


@given(st.integers(0, 10_000), st.integers(2, 30), st.floats(1e-3, 1e3), st.floats(0, 20))
def test_the_loss_falls_with_every_step_whatever_the_scale_and_the_mean(seed, classes, scale, offset):
    features, labels = samples(seed, classes, scale, offset)
    step = gradient_step(float(features.square().sum(dim=1).mean()), classes)
    losses = losses_of(features, labels, classes, step)
    assert all(later <= before + 1e-12 for before, later in pairwise(losses))


def test_a_step_of_a_fixed_size_does_overshoot():
    features, labels = samples(0, 10, 14.0, 2.0)
    losses = losses_of(features, labels, 10, 0.05)
    assert losses[1] > losses[0]


@given(st.integers(0, 10_000), st.floats(1e-3, 1e3), st.floats(1e-2, 10))
def test_a_step_of_every_weight_moves_no_score_by_more_than_was_said(seed, scale, nats):
    features, _ = samples(seed, 2, scale, 0.0)
    longest = float(features.square().sum(dim=1).max())
    step = sign_step(longest, features.shape[1], nats)
    moved = (features.abs().sum(dim=1) + 1) * step
    assert float(moved.max()) <= nats * (1 + 1e-9)
    assert gradient_step(0.0, 3) == pytest.approx(2.4)
    assert gradient_step(9.0, 1000) == pytest.approx(3.2)
