"""What a client's samples become: budgets that are kept, rows that a policy withholds, groups that are chosen."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from clients.policy import NodePolicy
from clients.reply import NodeRecord, reply_with
from clients.upload import upload_of
from fedcof import UserError, class_means
from fedcof.methods.method import Samples
from fedcof.run.config import RunConfig
from fedcof.wire.encoding import decode_class_means
from server.federation import serialised_bytes

CLASSES, DIM = 8, 200
FEATURES = {"dataset": "nodes", "classes": "a,b", "encoder": "é" * 200, "feature_dim": DIM}


def samples(held=(1, 4, 6), size=60, seed=0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.tensor(held).repeat_interleave(size)
    centres = 3 * torch.randn(CLASSES, DIM, generator=generator)
    return torch.randn(len(labels), DIM, generator=generator) + centres[labels], labels


def sent(config, features, labels, policy=None):
    upload = upload_of(config, 0, Samples(features, labels, CLASSES, seed=7), policy)
    made_by = config.embedding.fingerprint(config.data.encoder or "f" * 64)
    node = NodeRecord(len(labels), upload.withheld, made_by) if policy else None
    size = serialised_bytes(reply_with(upload.arrays, upload.tag, node))
    return decode_class_means(upload.arrays), size, upload.withheld


def size_of(features, labels, policy=None, **values):
    return sent(RunConfig(**values), features, labels, policy)[1]


@pytest.mark.parametrize("values", [{"bytes_per_client": 3000}, {"bytes_per_class": 1000}])
def test_a_budget_is_spent_and_not_exceeded(values):
    upload, size, withheld = sent(RunConfig(**values), *samples())
    assert 2700 < size <= 3000
    assert withheld == 0
    assert upload.num_rows > 3
    truth = class_means(*samples())
    for number, class_id in enumerate((1, 4, 6)):
        own = upload.class_ids == class_id
        weights = upload.counts[own].to(torch.float32) / upload.counts[own].sum()
        torch.testing.assert_close(weights @ upload.means[own], truth.means[number], rtol=0, atol=0.3)


def test_half_the_classes_have_half_the_budget():
    config = RunConfig(bytes_per_class=1000)
    assert sent(config, *samples(held=(2,)))[1] <= 1000
    assert 1800 < sent(config, *samples(held=(2, 3)))[1] <= 2000


@settings(max_examples=20, deadline=None)
@given(
    budget=st.integers(600, 30_000),
    held=st.sets(st.integers(0, CLASSES - 1), min_size=1),
    size=st.integers(1, 40),
    where=st.sampled_from(["simulation", "node", "node with features"]),
)
def test_no_message_is_larger_than_its_budget_on_the_wire(budget, held, size, where):
    policy = None if where == "simulation" else NodePolicy("site", smallest_count=1)
    values = {"bytes_per_client": budget} | (FEATURES if where == "node with features" else {})
    try:
        on_the_wire = size_of(*samples(sorted(held), size), policy, **values)
    except UserError:
        assert budget < 1500 + len(values.get("encoder", "").encode())
        return
    assert on_the_wire <= budget


@pytest.mark.parametrize("held", [(1,), (1, 4, 6)])
@pytest.mark.parametrize("policy", [None, NodePolicy("site", smallest_count=1)])
def test_the_best_upload_costs_no_more_than_the_papers_and_has_more_rows(held, policy):
    features, labels = samples(held)
    best, size, _ = sent(RunConfig(upload="best"), features, labels, policy)
    paper, papers_size, _ = sent(RunConfig(upload="paper"), features, labels, policy)
    assert 0.9 * papers_size < size <= papers_size
    assert paper.num_rows == len(held)
    assert best.num_rows > 5 * len(held)


def test_few_features_are_sent_as_they_are_where_nothing_is_shorter():
    features, labels = samples((2,), size=3)
    best, size, _ = sent(RunConfig(upload="best"), features[:, :2], labels)
    assert size == size_of(features[:, :2], labels, upload="paper")
    assert torch.equal(best.means, class_means(features[:, :2], labels).means)


@pytest.mark.parametrize("values", [{"method": "fedncm"}, {"epsilon": 8.0, "clip_norm": 9.0}])
def test_the_best_upload_is_the_papers_where_there_is_nothing_to_choose(values):
    upload = upload_of(RunConfig(upload="best", **values), 0, Samples(*samples(), CLASSES, seed=7))
    assert upload.tag == "class-means.float32"


def test_what_a_key_says_comes_before_what_is_best_or_in_the_paper():
    for upload in ("best", "paper", "given"):
        given = upload_of(RunConfig(upload=upload, groups=2), 0, Samples(*samples(), CLASSES, seed=7))
        assert (given.tag, given.statistics.num_rows) == ("class-means.float32", 6)


def test_a_policy_withholds_rows_within_a_budget_too():
    policy = NodePolicy("site", smallest_count=20)
    upload, _, _ = sent(RunConfig(bytes_per_client=20_000), *samples(), policy)
    assert upload.counts.min() >= 20
    assert upload.num_rows <= 9
    nothing, size, withheld = sent(RunConfig(bytes_per_client=2000), *samples(size=5), policy)
    assert (nothing.num_rows, withheld) == (0, 3)
    assert size <= 2000


def test_a_budget_that_is_too_small_says_how_much_it_takes():
    with pytest.raises(UserError, match="too few for this client's 3 classes: give at least"):
        sent(RunConfig(bytes_per_client=100), *samples())


def test_the_rounding_of_coded_is_the_share_that_was_asked_for():
    features, labels = samples(size=400)
    variance = torch.stack([features[labels == c].var(dim=0) for c in (1, 4, 6)]).mean()
    for share in (0.02, 0.5):
        upload, _, _ = sent(RunConfig(encoding="coded", rounding_noise=share), features, labels)
        error = (upload.means - class_means(features, labels).means).square().mean() * 400
        assert float(error / variance) == pytest.approx(share, rel=0.1)
        assert float((upload.noise * upload.counts).mean() / variance) == pytest.approx(share, rel=0.01)


def test_groups_are_chosen_where_there_is_one_class_a_client():
    upload, _, _ = sent(RunConfig(groups=0, num_clients=8, encoding="int4"), *samples(held=(3,), size=200))
    assert upload.num_rows == 64
