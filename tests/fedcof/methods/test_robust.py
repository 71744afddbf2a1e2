"""Rules for wrong uploads, on real statistics: who is left out, what it is worth, and what it costs."""

import re

import pytest
import torch

from fedcof import ClassMeans, FedCOF, FedNCM, UserError
from fedcof.methods.base import own_aggregator
from fedcof.methods.projected import Projected
from fedcof.methods.robust import Robust, left_out
from fedcof.methods.robust_rules import ROBUST_RULES
from fedcof.run.config import RunConfig
from tests.attacks import (
    ATTACKS,
    CLASSES,
    attacked,
    digits_of_clients,
    flipped_labels,
    inflated_counts,
    mean_of_another_class,
    same_flipped_labels,
    two_classes_called_one,
)

DIM = 64


def aggregated(uploads, rule, most_samples=0, own=FedCOF):
    aggregator = Robust(own(CLASSES, DIM), rule, most_samples)
    for client, upload in uploads.items():
        aggregator.add(upload, client)
    return aggregator


def accuracy(aggregator, features, labels):
    return float((aggregator.solve().predict(features) == labels).double().mean())


@pytest.mark.parametrize(
    ("clients", "attackers", "attack"),
    [
        *((10, {4}, attack) for attack in ATTACKS),
        *((10, {1, 5, 8}, attack) for attack in ATTACKS),
        # One mean of a handful of samples is as far off as an odd sample; see docs/robust.md.
        *((100, {3, 40, 77}, attack) for attack in ATTACKS if attack is not mean_of_another_class),
    ],
)
def test_screen_brings_the_accuracy_back_to_that_without_the_attackers(clients, attackers, attack):
    uploads, features, labels = digits_of_clients(clients)
    honest = {client: upload for client, upload in uploads.items() if client not in attackers}
    screened = aggregated(attacked(uploads, attack, attackers), "screen")
    without = accuracy(aggregated(honest, "none"), features, labels)
    assert accuracy(screened, features, labels) >= without - 0.01
    assert not screened.left_out.keys() - attackers


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("alpha", [0.1, 1.0])
@pytest.mark.parametrize("clients", [5, 10, 30, 100])
def test_screen_leaves_nobody_out_where_all_are_honest(clients, alpha, seed):
    uploads, features, _ = digits_of_clients(clients, alpha, seed)
    screened = aggregated(uploads, "screen")
    assert screened.left_out == {}
    expected = aggregated(uploads, "none").solve()
    assert torch.equal(screened.solve().scores(features), expected.scores(features))


@pytest.mark.parametrize("rule", ["huber", "median-of-means"])
def test_down_weighting_is_better_than_nothing_and_costs_little(rule):
    uploads, features, labels = digits_of_clients(10)
    wrong = attacked(uploads, flipped_labels, {1, 5})
    honest = accuracy(aggregated(uploads, "none"), features, labels)
    assert accuracy(aggregated(uploads, rule), features, labels) >= honest - 0.02
    believed = accuracy(aggregated(wrong, "none"), features, labels)
    assert accuracy(aggregated(wrong, rule), features, labels) > believed + 0.01


def test_the_reason_is_a_clause_with_the_class_that_tells_most():
    uploads, _, _ = digits_of_clients(10)
    reasons = aggregated(attacked(uploads, flipped_labels, {4}), "screen").left_out
    assert list(reasons) == [4]
    assert reasons[4].startswith("its class means are ")
    assert "times as far from the other clients' as theirs usually are, and that of class " in reasons[4]


def test_of_a_mixture_the_reason_names_both_classes():
    uploads, _, _ = digits_of_clients(10, seed=1)
    wrong = attacked(uploads, two_classes_called_one, {0, 3, 8})
    reasons = aggregated(wrong, "screen").left_out
    assert list(reasons) == [0, 3, 8]
    told = {
        k: re.search(r"mean of class (\d) lies (\d+) % of the way to that of class (\d)", reasons[k])
        for k in reasons
    }
    mixed = {k: found for k, found in told.items() if found}
    assert mixed
    for client, found in mixed.items():
        into, share, from_ = map(int, found.groups())
        # The class that is missing from what it sends now.
        assert from_ in set(uploads[client].class_ids.tolist()) - set(wrong[client].class_ids.tolist())
        assert into in wrong[client].class_ids.tolist()
        assert 45 < share < 110


def test_what_is_believed_is_solved_to_the_last_bit_as_if_there_were_no_others():
    uploads, features, _ = digits_of_clients(10)
    wrong = attacked(uploads, flipped_labels, {1, 5, 8})
    screened = aggregated(dict(reversed(wrong.items())), "screen")
    alone = FedCOF(CLASSES, DIM)
    for client, upload in uploads.items():
        if client not in (1, 5, 8):
            alone.add(upload, client)
    assert torch.equal(screened.solve().scores(features), alone.solve().scores(features))
    assert torch.equal(screened.class_means(), alone.class_means())
    assert screened.shrinkage_ == alone.shrinkage_
    assert screened.backbone_scores_ == alone.backbone_scores_


def test_later_uploads_tell_otherwise_of_earlier_ones():
    """Where three of four are wrong alike, the fourth is left out; with more honest ones, those three are."""
    uploads, _, _ = digits_of_clients(10, alpha=10)
    wrong = attacked(uploads, same_flipped_labels, {0, 1, 2})
    aggregator = aggregated({client: wrong[client] for client in range(4)}, "screen")
    assert list(aggregator.left_out) == [3]
    for client in range(4, 10):
        aggregator.add(wrong[client], client)
    assert sorted(aggregator.left_out) == [0, 1, 2]


def test_counts_are_capped_by_the_server_and_by_what_is_usual():
    uploads, _, _ = digits_of_clients(30, alpha=10)
    capped = aggregated(uploads, "none", most_samples=10)
    rows = own_aggregator_of(capped)._uploads
    assert all(float(upload.counts.sum()) <= 10 + 1e-9 for upload in rows.values())
    alone = {0: inflated_counts(uploads[0])} | {k: u for k, u in uploads.items() if k}
    # Nobody else has this class, so that nothing but the counts can tell.
    only = ClassMeans(torch.tensor([9]), torch.tensor([10**6]), uploads[0].means[:1])
    others = {
        k: ClassMeans(u.class_ids[u.class_ids < 9], u.counts[u.class_ids < 9], u.means[u.class_ids < 9])
        for k, u in alone.items()
        if k
    }
    kept = own_aggregator_of(aggregated({0: only, **others}, "screen"))._uploads
    median = sorted(float(u.counts.sum()) for u in [only, *others.values()])[14]
    assert float(kept[0].counts.sum()) == pytest.approx(10 * median, rel=0.05)


def own_aggregator_of(robust):
    robust.solve()
    return own_aggregator(robust)


@pytest.mark.parametrize("rule", ROBUST_RULES)
def test_no_upload_is_an_error_and_an_empty_one_is_none(rule):
    empty = ClassMeans(torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64), torch.zeros(0, DIM))
    with pytest.raises(UserError, match="nothing to solve"):
        aggregated({3: empty}, rule).solve()
    uploads, features, _ = digits_of_clients(4)
    uploads[9] = empty
    assert aggregated(uploads, rule, own=FedNCM).solve().scores(features).isfinite().all()


def test_an_aggregator_is_found_within_others():
    uploads, _, _ = digits_of_clients(10)
    within = Projected(Robust(FedNCM(CLASSES, DIM), "screen"), torch.eye(DIM))
    for client, upload in attacked(uploads, flipped_labels, {4}).items():
        within.add(upload, client)
    assert list(left_out(within)) == [4]
    assert isinstance(own_aggregator(within), FedNCM)
    assert left_out(FedNCM(CLASSES, DIM)) == {}


@pytest.mark.parametrize(
    "values", [{"epsilon": 5.0, "clip_norm": 1.0}, {"method": "fed3r", "encoding": "float32"}, {"method": "oracle"}]
)
@pytest.mark.parametrize("rule", [{"robust": "screen"}, {"most_samples_per_client": 5}])
def test_it_is_refused_where_it_has_no_meaning(values, rule):
    with pytest.raises(UserError, match="The key (robust|most-samples-per-client) is .*, but it must be (none|0) "):
        RunConfig(**values, **rule)
    assert RunConfig(**rule).method.name == "fedcof"


def test_an_unknown_rule_is_an_error():
    with pytest.raises(UserError, match="screen, huber, median-of-means"):
        Robust(FedNCM(CLASSES, DIM), "believe")
