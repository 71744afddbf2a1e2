"""The byte budget: kept, spent, and spent where the formula says."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedcof import UserError, class_means
from fedcof.wire.budget import (
    SMALLEST_NOISE,
    SPECTRUM,
    plan_upload,
    step_of,
    within_class_deviation,
    write_within_budget,
)
from fedcof.wire.coded_means import read_class_means, write_class_means
from fedcof.wire.coded_rows import ScaledRows
from fedcof.wire.upload_price import UploadPrice


def samples_of(samples=300, dim=100, classes=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (samples,), generator=generator)
    means = torch.rand(classes, dim, generator=generator) * 2
    return means[labels] + torch.randn(samples, dim, generator=generator), labels


def rows_of(features, labels, seed=0):
    return lambda groups: class_means(features, labels, groups, torch.Generator().manual_seed(seed))


def test_the_deviation_is_the_pooled_one():
    features, labels = samples_of(dim=7)
    squares = sum(
        ((features[labels == c].double() - features[labels == c].double().mean(dim=0)) ** 2).sum() for c in range(4)
    )
    expected = float((squares / (300 - 4) / 7) ** 0.5)
    assert within_class_deviation(features, labels) == pytest.approx(expected, rel=1e-6)
    assert within_class_deviation(features[:2], torch.tensor([0, 1])) > 0
    assert within_class_deviation(features[:1], labels[:1]) > 0
    assert within_class_deviation(torch.zeros(3, 2), torch.zeros(3, dtype=torch.int64)) > 0


@settings(max_examples=25, deadline=None)
@given(
    num_bytes=st.integers(400, 30_000),
    samples=st.integers(1, 200),
    classes=st.integers(1, 8),
    seed=st.integers(0, 99),
)
def test_the_budget_is_never_exceeded(num_bytes, samples, classes, seed):
    features, labels = samples_of(samples, 100, classes, seed)
    try:
        plan, stream = write_within_budget(rows_of(features, labels, seed), features, labels, num_bytes, seed)
    except UserError:
        assert num_bytes < 250 + 20 * classes
        return
    assert len(stream) <= num_bytes
    back = read_class_means(stream)
    means = class_means(features, labels, plan.groups, torch.Generator().manual_seed(seed))
    assert torch.equal(back.counts, means.counts)
    assert len(stream) > 0.93 * num_bytes or plan.noise < 1.5 * SMALLEST_NOISE or plan.groups > 1


def test_the_plan_is_the_best_of_an_exhaustive_search():
    features, labels = samples_of()
    deviation = within_class_deviation(features, labels)
    for budget in (800, 2000, 6000):
        errors = {}
        for groups in range(1, 40):
            means = class_means(features, labels, groups, torch.Generator().manual_seed(0))
            rows = ScaledRows.of(means)
            surplus = rows.surplus(step_of(0.1, deviation))
            for noise in torch.logspace(-2.7, 1, 200).tolist():
                if rows.expected_bytes(step_of(noise, deviation), surplus) <= budget:
                    errors[groups] = (1 + SPECTRUM * noise) ** 2 / means.num_rows
                    break
        plan = plan_upload(rows_of(features, labels), features, labels, budget)
        reached = (1 + SPECTRUM * plan.noise) ** 2 / len(class_means(features, labels, plan.groups).counts)
        assert reached < 1.06 * min(errors.values())


def test_more_bytes_give_more_groups():
    features, labels = samples_of()
    budgets = (500, 1500, 4000, 10_000)
    rows = rows_of(features, labels)
    groups = [plan_upload(rows, features, labels, budget).groups for budget in budgets]
    assert groups == sorted(groups)
    assert groups[0] <= 2
    assert groups[-1] > 4


def test_where_rows_are_withheld_the_plan_is_found_by_trial():
    features, labels = samples_of()
    everything = rows_of(features, labels)

    def kept(groups):
        return everything(groups).withhold(12)[0]

    plan = plan_upload(kept, features, labels, 4000)
    assert 1 < plan.groups <= 7
    assert kept(plan.groups).num_rows > 8
    _, stream = write_within_budget(kept, features, labels, 4000, 0)
    assert len(stream) <= 4000


def test_the_price_of_any_number_of_groups_is_told_from_two():
    features, labels = samples_of(400, 200, 6)
    deviation = within_class_deviation(features, labels)
    two = class_means(features, labels, 2)
    price = UploadPrice.of(two, ScaledRows.of(two), labels)
    for groups in (1, 5, 20, 100):
        means = class_means(features, labels, groups)
        step = step_of(0.05, deviation)
        (size,), (rows,) = (
            price.num_bytes(np.array([groups]), np.array([step]), 1.0),
            price.num_rows(np.array([groups])),
        )
        assert rows == means.num_rows
        assert size == pytest.approx(ScaledRows.of(means).expected_bytes(step), rel=0.04)


@pytest.mark.parametrize("noise", [0.01, 0.05, 0.5])
def test_a_sample_tells_the_size_of_the_stream(noise):
    features, labels = samples_of(200, 600, 5)
    means = class_means(features, labels, 6)
    step, rows = step_of(noise, within_class_deviation(features, labels)), ScaledRows.of(means)
    size = rows.expected_bytes(step, rows.surplus(step))
    assert size == pytest.approx(len(write_class_means(means, step, 0)), rel=0.015)


def test_the_same_seed_gives_the_same_stream():
    features, labels = samples_of()
    rows = rows_of(features, labels, 3)
    first, second = (write_within_budget(rows, features, labels, 2000, 3)[1] for _ in range(2))
    assert (first == second).all()


def test_a_budget_that_cannot_be_kept_is_refused():
    with pytest.raises(UserError, match="too few for this client's 4 classes: give at least"):
        write_within_budget(rows_of(*samples_of()), *samples_of(), 60, 0)


def test_a_client_without_samples_sends_an_empty_stream():
    nothing = torch.zeros(0, 5), torch.zeros(0, dtype=torch.int64)
    _, stream = write_within_budget(rows_of(*nothing), *nothing, 500, 0)
    assert read_class_means(stream).num_rows == 0
