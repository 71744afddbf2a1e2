"""The scatter estimators: against the naive formulas, unbiased, and shrunk as the papers say."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.covariance import ledoit_wolf, oas

from fedcof import ClassMeans, UserError, class_means
from fedcof.covariance.scatter import ScatterSum, sum_scatter
from fedcof.covariance.shrunk import shrunk_scatter
from fedcof.covariance.totals import class_totals
from fedcof.wire.encoding import decode_class_means, encode_class_means
from tests.fedcof import formulas
from tests.fedcof.rebuilt import within_class_scatter


def random_rows(num_classes, num_clients, dim, seed, absent=()):
    generator = np.random.default_rng(seed)
    rows = []
    for _ in range(num_clients):
        for class_id in range(num_classes):
            if class_id not in absent and generator.random() < 0.6:
                rows.append((class_id, int(generator.integers(1, 9)), generator.normal(size=dim) + class_id))
    return rows


def random_means(number, dim, seed):
    return np.random.default_rng(seed).normal(size=(number, dim)) * np.linspace(0.5, 1.5, dim)


def as_upload(rows, dtype=torch.float64):
    return ClassMeans(
        class_ids=torch.tensor([row[0] for row in rows]),
        counts=torch.tensor([row[1] for row in rows]),
        means=torch.tensor(np.array([row[2] for row in rows]), dtype=dtype),
    )


def scatter_of(upload, num_classes, **options):
    return within_class_scatter(upload, class_totals(upload, num_classes), **options)


@pytest.mark.parametrize(("dim", "num_clients"), [(5, 12), (60, 4)])
@pytest.mark.parametrize(
    ("estimator", "formula"),
    [
        ("per-class", formulas.per_class_scatter),
        ("pooled", formulas.pooled_scatter),
        ("paper", formulas.paper_scatter),
    ],
)
def test_scatter_is_the_formula(dim, num_clients, estimator, formula):
    rows = [*random_rows(7, num_clients, dim, seed=1, absent=(3, 6)), (6, 4, np.ones(dim))]
    scatter = scatter_of(as_upload(rows), 7, estimator=estimator, shrinkage=0.3)
    np.testing.assert_allclose(scatter.numpy(), formula(rows, 7, 0.3), rtol=1e-9, atol=1e-9)


def test_blocks_do_not_change_the_scatter(monkeypatch):
    upload = as_upload(random_rows(5, 20, 4, seed=2))
    whole = scatter_of(upload, 5)
    monkeypatch.setattr("fedcof.covariance.blocks.ROWS_PER_BLOCK", 7)
    torch.testing.assert_close(scatter_of(upload, 5), whole, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("estimator", ["per-class", "pooled"])
def test_covariance_is_unbiased(estimator, groups):
    """Over 4,000 draws of a class, 50 to a federation, the mean of S_c converges on Sigma_c as 1/sqrt(draws)."""
    generator = torch.Generator().manual_seed(5)
    factor = torch.tensor([[2.0, 0.0, 0.0], [0.7, 1.0, 0.0], [-0.4, 0.3, 0.5]], dtype=torch.float64)
    covariance = factor @ factor.T
    sizes, classes, draws = (2, 5, 9, 1, 6), 50, 80
    estimates = torch.empty(draws, 3, 3, dtype=torch.float64)
    for draw in range(draws):
        uploads = []
        for size in sizes:
            labels = torch.arange(classes).repeat_interleave(size)
            noise = torch.randn(len(labels), 3, generator=generator, dtype=torch.float64)
            uploads.append(class_means(noise @ factor.T + 4 + labels[:, None], labels, groups, generator))
        degrees = classes * (sum(sizes) - 1)
        estimates[draw] = scatter_of(uploads, classes, estimator=estimator, shrinkage=0.0) / degrees
    standard_error = estimates.std(dim=0) / draws**0.5
    assert ((estimates.mean(dim=0) - covariance).abs() < 4 * standard_error).all()
    assert (standard_error < 0.05 * covariance.diagonal().max()).all()


@pytest.mark.parametrize("estimator", ["per-class", "pooled"])
def test_covariance_is_unbiased_under_int8(estimator):
    """Far from the origin an int8 step is large; its noise shows without the correction and not with it."""
    generator = torch.Generator().manual_seed(7)
    sizes, draws, classes = (2, 5, 9, 3) * 4, 50, 40
    kept, taken = (torch.zeros(draws, 3, dtype=torch.float64) for _ in range(2))
    # Twenty pairs of classes: of a pair every client has as many samples as its size, dealt in turn.
    pairs, labels = torch.arange(0, classes, 2), torch.arange(sum(sizes)) % 2
    for draw in range(draws):
        uploads = []
        for client, part in enumerate(labels.split(sizes)):
            ids = (pairs[:, None] + part).flatten()
            features = torch.randn(len(ids), 3, generator=generator) + torch.tensor([100.0, 0.0, -20.0])
            arrays = encode_class_means(class_means(features, ids), "int8", len(sizes) * draw + client)
            uploads.append(decode_class_means(arrays))
        silent = [ClassMeans(upload.class_ids, upload.counts, upload.means) for upload in uploads]
        degrees = sum(sizes) * len(pairs) - classes
        known = scatter_of(uploads, classes, estimator=estimator, shrinkage=0.0) / degrees
        unknown = scatter_of(silent, classes, estimator=estimator, shrinkage=0.0) / degrees
        taken[draw], kept[draw] = known.diagonal(), unknown.diagonal()
    standard_error = taken.std(dim=0) / draws**0.5
    assert (kept.mean(dim=0) - 1 > 8 * standard_error).all()
    assert ((taken.mean(dim=0) - 1).abs() < 4 * standard_error).all()


def test_noise_that_is_not_small_is_left_in_where_it_would_cost_an_eigenvalue():
    upload = replace(as_upload(random_rows(3, 20, 4, seed=5)), noise=None)
    plain = scatter_of(upload, 3)
    smallest = torch.linalg.eigvalsh(plain).min()
    for variance in (1e-6, 1e-2, 1.0, 1e3):
        noisy = replace(upload, noise=torch.full((upload.num_rows,), variance))
        corrected = scatter_of(noisy, 3)
        assert torch.linalg.eigvalsh(corrected).min() >= smallest / 2 - 1e-9
        assert corrected.trace() <= plain.trace()


@pytest.mark.parametrize(("name", "reference"), [("ledoit-wolf", ledoit_wolf), ("oas", oas)])
def test_automatic_shrinkage_is_scikit_learns(name, reference):
    """With one class, single samples as rows and many of them, our degrees of freedom hardly differ from n."""
    features = np.random.default_rng(3).normal(size=(1500, 40)) * np.linspace(0.5, 1.5, 40)
    rows = [(0, 1, sample) for sample in features]
    ours = scatter_of(as_upload(rows), 1, shrinkage=name).numpy() / (len(rows) - 1)
    theirs, _ = reference(features)
    np.testing.assert_allclose(ours, theirs * 1500 / 1499, atol=2e-4)
    assert np.abs(theirs - np.cov(features.T)).max() > 5e-3


@pytest.mark.parametrize("name", ["leave-one-out", "ledoit-wolf", "oas"])
@pytest.mark.parametrize("estimator", ["per-class", "pooled"])
def test_automatic_shrinkage_keeps_the_trace_and_lifts_the_small_eigenvalues(name, estimator):
    upload = as_upload(random_rows(6, 5, 40, seed=4))
    plain = scatter_of(upload, 6, estimator=estimator, shrinkage=0.0)
    shrunk = scatter_of(upload, 6, estimator=estimator, shrinkage=name)
    torch.testing.assert_close(shrunk.trace(), plain.trace())
    assert torch.linalg.eigvalsh(plain).min() < 1e-9
    assert torch.linalg.eigvalsh(shrunk).min() > 1e-3


def test_ledoit_wolf_on_weighted_rows_is_its_formula():
    rows = random_rows(4, 9, 6, seed=8)
    counts, means, num_rows = formulas.totals(rows, 4)
    degrees = num_rows.sum() - 4
    samples = [np.sqrt(n) * (mean - means[c]) for c, n, mean in rows]
    covariance = sum(np.outer(y, y) for y in samples) / degrees
    sphere = np.trace(covariance) / 6 * np.eye(6)
    freedom = [1 - n / counts[c] for c, n, _ in rows]
    fourth_powers = sum((y @ y) ** 2 / free for y, free in zip(samples, freedom, strict=True) if free)
    error = fourth_powers / degrees**2 - (covariance**2).sum() / degrees
    amount = min(error / ((covariance - sphere) ** 2).sum(), 1.0)
    expected = ((1 - amount) * covariance + amount * sphere) * (counts - 1).sum()
    ours = scatter_of(as_upload(rows), 4, estimator="pooled", shrinkage="ledoit-wolf")
    assert 0 < amount < 1
    np.testing.assert_allclose(ours.numpy(), expected, rtol=1e-9)


def test_ledoit_wolf_on_two_rows_per_class_is_that_of_their_independent_differences():
    """Two rows are one degree of freedom: their residuals are one vector, up to sign and size."""
    rows = [(c, n, mean) for c in range(30) for n, mean in zip((1, 5), random_means(2, 12, seed=c), strict=True)]
    differences = [np.sqrt(5 / 6) * (rows[2 * c][2] - rows[2 * c + 1][2]) for c in range(30)]
    expected, _ = ledoit_wolf(np.array(differences), assume_centered=True)
    ours = scatter_of(as_upload(rows), 30, shrinkage="ledoit-wolf").numpy() / (30 * 5)
    np.testing.assert_allclose(ours, expected, rtol=1e-9)
    assert np.linalg.eigvalsh(ours).min() > 1.5 * np.linalg.eigvalsh(np.cov(np.array(differences).T)).min()


def test_what_is_unknown_is_refused():
    upload = as_upload([(0, 3, np.ones(4)), (1, 2, np.zeros(4)), (1, 2, np.ones(4)), (0, 1, np.zeros(4))])
    with pytest.raises(UserError, match="leave-one-out, ledoit-wolf, oas"):
        scatter_of(upload, 2, shrinkage="lw")
    with pytest.raises(UserError, match="per-class, pooled"):
        scatter_of(upload, 2, estimator="mean")
    with pytest.raises(UserError, match="at least 0"):
        scatter_of(upload, 2, shrinkage=-1.0)


def uploads_of(rows, size, dtype=torch.float64):
    return [as_upload(rows[first : first + size], dtype) for first in range(0, len(rows), size)]


@pytest.mark.parametrize("shrinkage", [0.3, "oas", "ledoit-wolf", "leave-one-out"])
@pytest.mark.parametrize("estimator", ["per-class", "pooled"])
def test_one_pass_over_uploads_is_the_scatter_around_the_class_means(estimator, shrinkage, monkeypatch):
    rows = random_rows(7, 12, 300, seed=9, absent=(3,))
    whole = as_upload(rows)
    expected = scatter_of(whole, 7, estimator=estimator, shrinkage=shrinkage)
    monkeypatch.setattr("fedcof.covariance.blocks.ROWS_PER_BLOCK", 11)
    summed = sum_scatter(uploads_of(rows, 4), 7, estimator, shrinkage)
    torch.testing.assert_close(shrunk_scatter(summed, estimator, shrinkage).scatter, expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(summed.totals().means, class_totals(whole, 7).means, rtol=1e-12, atol=1e-12)


def test_float32_blocks_lose_no_digits_far_from_the_origin():
    rows = [(c, n, mean + 300) for c, n, mean in random_rows(6, 60, 40, seed=10)]
    single = as_upload(rows, torch.float32)
    exact = replace(single, means=single.means.double())
    ours = shrunk_scatter(sum_scatter([single], 6, "per-class", 0.0), "per-class", 0.0).scatter
    reference = scatter_of(exact, 6, shrinkage=0.0)
    assert ours.dtype == torch.float64
    assert torch.equal(ours, ours.T)
    assert torch.linalg.norm(ours - reference) < 1e-6 * torch.linalg.norm(reference)


def test_uploads_that_come_in_parts_sum_to_the_whole():
    """The centres are those of the first part, and here the rows that were largest there are far off."""
    rows = random_rows(5, 40, 30, seed=11)
    parts = uploads_of(rows, 10)
    in_parts = ScatterSum(5, 30)
    for part in parts:
        in_parts.add([part])
    expected = scatter_of(as_upload(rows), 5, estimator="pooled", shrinkage="oas")
    torch.testing.assert_close(shrunk_scatter(in_parts, "pooled", "oas").scatter, expected, rtol=1e-9, atol=1e-9)


def test_noise_is_taken_off_the_sum_as_off_the_whole():
    features = torch.randn(90, 6, generator=torch.Generator().manual_seed(1)) * 3
    uploads = [
        decode_class_means(encode_class_means(class_means(part, torch.arange(15) % 3), "int8", seed))
        for seed, part in enumerate(features.split(15))
    ]
    for estimator in ("per-class", "pooled"):
        ours = shrunk_scatter(sum_scatter(uploads, 3, estimator, 0.1), estimator, 0.1).scatter
        silent = [ClassMeans(upload.class_ids, upload.counts, upload.means) for upload in uploads]
        torch.testing.assert_close(
            ours, scatter_of(uploads, 3, estimator=estimator, shrinkage=0.1), rtol=1e-5, atol=1e-5
        )
        assert ours.trace() < scatter_of(silent, 3, estimator=estimator, shrinkage=0.1).trace()
