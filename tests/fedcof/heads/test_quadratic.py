"""The quadratic head: against the formula written out, at its limits, in its files, and in few rows of memory."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedcof import ClassMeans, FedCOF, LinearClassifier, Oracle, UserError
from fedcof.covariance import class_directions as directions_module
from fedcof.heads.classifiers import classifier_of, load_classifier
from fedcof.heads.quadratic import QuadraticClassifier
from fedcof.heads.regularised import RegularisedDiscriminant
from fedcof.wire.encoding import decode_class_means, encode_class_means
from tests.fedcof import formulas
from tests.fedcof.covariance.test_covariance import as_upload, random_rows

NUM_CLASSES = 7


def federation(dim=8, clients=12, absent=(1,), seed=0):
    """Rows of many classes, one of them with a single row and one that nobody has."""
    rows = random_rows(NUM_CLASSES, clients, dim, seed=seed, absent=(*absent, 4))
    return [*rows, (4, 3, np.linspace(-1, 1, dim))]


def solved(rows, share=0.9, rank=100, estimator="per-class", gamma=0.5, dtype=torch.float32):
    aggregator = FedCOF(
        NUM_CLASSES, len(rows[0][2]), estimator, shrinkage=gamma, head=RegularisedDiscriminant(share, rank)
    )
    aggregator.add(as_upload(rows, dtype))
    return aggregator.solve()


def beside(scores):
    """Scores beside the mean over classes, because what all have in common decides nothing."""
    finite = np.where(np.isfinite(scores), scores, np.nan)
    return finite - np.nanmean(finite, axis=1, keepdims=True)


@pytest.mark.parametrize("estimator", ["per-class", "pooled"])
@pytest.mark.parametrize(("dim", "clients"), [(5, 30), (40, 6)], ids=["rows>d", "rows<d"])
@pytest.mark.parametrize(("share", "rank"), [(0.96, 2), (0.5, 100), (0.8, 0), (1.0, 5)])
def test_it_is_the_formula(estimator, dim, clients, share, rank):
    rows = federation(dim, clients, seed=dim + clients)
    scatters = {"per-class": formulas.per_class_scatter, "pooled": formulas.pooled_scatter}
    scatter = scatters[estimator](rows, NUM_CLASSES, 0.5)
    points = np.random.default_rng(0).normal(size=(20, dim))
    expected = beside(formulas.quadratic_scores(scatter, rows, NUM_CLASSES, points, share, rank))
    classifier = solved(rows, share, rank, estimator)
    found = beside(classifier.scores(torch.from_numpy(points)).numpy())
    assert np.array_equal(np.isnan(found), np.isnan(expected))
    assert np.nanmax(np.abs(found - expected)) < 1e-4 * np.nanmax(np.abs(expected))


def test_the_whole_of_the_pooled_covariance_is_lda():
    rows = federation()
    points = torch.from_numpy(np.random.default_rng(1).normal(size=(50, 8)))
    aggregator = FedCOF(NUM_CLASSES, 8, shrinkage=0.5, head="lda")
    aggregator.add(as_upload(rows, torch.float32))
    expected, found = aggregator.solve().scores(points).numpy(), solved(rows, share=1.0).scores(points).numpy()
    assert np.allclose(beside(found), beside(expected), atol=1e-4, equal_nan=True)


@settings(max_examples=25, deadline=None)
@given(order=st.randoms(use_true_random=False), seed=st.integers(0, 10))
def test_the_order_of_rows_and_clients_changes_nothing(order, seed):
    rows = federation(seed=seed)
    shuffled = list(rows)
    order.shuffle(shuffled)
    points = torch.from_numpy(np.random.default_rng(seed).normal(size=(9, 8)))
    expected, found = solved(rows).scores(points), solved(shuffled).scores(points)
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_classes_fill_memory_one_after_another(monkeypatch):
    rows = federation(dim=6, clients=20)
    points = torch.from_numpy(np.random.default_rng(2).normal(size=(9, 6)))
    expected = solved(rows).scores(points)
    monkeypatch.setattr(directions_module, "MOST_NUMBERS", 6 * 25)
    monkeypatch.setattr(directions_module, "ROWS_PER_BATCH", 30)
    assert torch.allclose(solved(rows).scores(points), expected, rtol=1e-5)


def test_samples_that_scatter_unlike_each_other_are_told_apart():
    """Two classes of one mean: no linear head can, and the quadratic one does."""
    generator = torch.Generator().manual_seed(0)
    wide = torch.randn(4000, 4, generator=generator) * torch.tensor([6.0, 1.0, 1.0, 1.0])
    narrow = torch.randn(4000, 4, generator=generator) * torch.tensor([0.3, 1.0, 1.0, 1.0])
    features = torch.cat([wide, narrow])
    labels = torch.arange(2).repeat_interleave(4000)
    means = features.view(1000, 8, 4).mean(dim=1)
    upload = ClassMeans(labels[::8], torch.full((1000,), 8), means)
    accuracy = {}
    for head in ("ridge", RegularisedDiscriminant(0.1, 4)):
        aggregator = FedCOF(2, 4, head=head)
        aggregator.add(upload)
        accuracy[aggregator.head] = float((aggregator.solve().predict(features) == labels).double().mean())
    assert accuracy["ridge"] < 0.6
    assert accuracy["quadratic"] > 0.8


def test_known_noise_is_taken_off_each_class():
    """Rows of few bits: without what rounding is known to add, the directions' variances would be larger."""
    rows = as_upload(random_rows(NUM_CLASSES, 60, 16, seed=5), torch.float32)
    sent = decode_class_means(encode_class_means(rows, "int4", 3))
    noisy = ClassMeans(sent.class_ids, sent.counts, sent.means)
    assert sent.noise is not None
    curvature = {}
    for name, upload in (("known", sent), ("unknown", noisy), ("none", rows)):
        aggregator = FedCOF(NUM_CLASSES, 16, shrinkage=0.5, head=RegularisedDiscriminant(0.5, 3))
        aggregator.add(upload)
        curvature[name] = float(aggregator.solve().directions.square().sum())
    assert abs(curvature["known"] - curvature["none"]) < abs(curvature["unknown"] - curvature["none"])


def test_the_oracle_takes_it_too():
    generator = torch.Generator().manual_seed(1)
    labels = torch.arange(300) % 3
    features = torch.randn(300, 5, generator=generator) * (1 + labels[:, None])
    oracle = Oracle(3, 5, shrinkage=0.1, head=RegularisedDiscriminant(0.3, 5))
    oracle.add_samples(features, labels)
    rows = [(int(c), 1, m) for c, m in zip(labels, features.double().numpy(), strict=True)]
    scatter = formulas.per_class_scatter(rows, 3, 0.1)
    expected = beside(formulas.quadratic_scores(scatter, rows, 3, features.numpy()[:20], 0.3, 5))
    assert np.allclose(beside(oracle.solve().scores(features[:20]).numpy()), expected, atol=1e-3)


def test_rows_are_kept_for_it_whatever_the_estimator():
    rows = [row for seed in range(40) for row in random_rows(NUM_CLASSES, 30, 6, seed=seed)]
    points = torch.from_numpy(np.random.default_rng(3).normal(size=(9, 6)))
    upload = as_upload(rows, torch.float32)
    parts = [slice(start, start + 500) for start in range(0, upload.num_rows, 500)]
    aggregator = FedCOF(NUM_CLASSES, 6, "pooled", 0.5, RegularisedDiscriminant(0.9, 3))
    for part in parts:
        aggregator.add(ClassMeans(upload.class_ids[part], upload.counts[part], upload.means[part]))
    expected = solved(rows, rank=3, estimator="pooled").scores(points)
    assert torch.allclose(aggregator.solve().scores(points), expected, rtol=1e-4, atol=1e-4)


def test_it_comes_back_to_the_last_bit_from_its_file_and_from_its_arrays(tmp_path):
    classifier = solved(federation()).named(f"class {number}" for number in range(NUM_CLASSES))
    classifier.save(tmp_path / "head.safetensors")
    loaded = load_classifier(tmp_path / "head.safetensors")
    assert isinstance(loaded, QuadraticClassifier)
    assert loaded.class_names == classifier.class_names
    for copy in (loaded, classifier_of(classifier.tensors())):
        for name, tensor in classifier.tensors().items():
            assert torch.equal(copy.tensors()[name], tensor)
    with pytest.raises(UserError, match="not a linear one"):
        LinearClassifier.load(tmp_path / "head.safetensors")


def test_a_classifier_of_parts_that_do_not_belong_together_is_a_sentence():
    classifier = solved(federation())
    for name in ("bias", "offsets", "centre", "whitening", "curvature"):
        with pytest.raises(UserError, match="quadratic classifier"):
            replace(classifier, **{name: torch.zeros(3)})
    with pytest.raises(UserError, match="No classifier is made of"):
        classifier_of({"weight": torch.zeros(2, 2)})
    with pytest.raises(UserError, match="takes \\(n, 8\\)"):
        classifier.predict(torch.zeros(2, 9))
