"""The mean squared length of features from uploads: exact where they tell it, without bias where they do not."""

import pytest
import torch

from fedcof import ClassMeans, class_means, feature_moments
from fedcof.covariance.totals import class_totals
from fedcof.statistics.squared_length import SquaredLength

CLASSES, DIM = 5, 20


def clients(seed=0, number=60, count=30):
    """Features of two classes or so a client, with a covariance and means far from zero."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(CLASSES, DIM, generator=generator) + 1
    for client in range(number):
        labels = (client + torch.randint(0, 2, (count,), generator=generator)) % CLASSES
        noise = torch.randn(count, DIM, generator=generator) * torch.linspace(0.5, 2, DIM)
        yield (centres[labels] + noise).double(), labels


def estimated(uploads):
    lengths = SquaredLength(CLASSES)
    for upload in uploads:
        lengths.add(upload)
    return lengths.mean(class_totals(uploads, CLASSES).means)


def true_length(held):
    return float(torch.cat([features for features, _ in held]).square().sum(dim=1).mean())


def test_of_moments_it_is_exact():
    held = list(clients())
    lengths = SquaredLength(CLASSES)
    for features, labels in held:
        lengths.add(feature_moments(features, labels))
    assert lengths.mean(torch.zeros(CLASSES, DIM, dtype=torch.float64)) == pytest.approx(
        true_length(held), rel=1e-6
    )


def test_of_rows_of_one_sample_it_is_exact():
    held = list(clients())
    uploads = [ClassMeans(labels, torch.ones_like(labels), features) for features, labels in held]
    assert estimated(uploads) == pytest.approx(true_length(held), rel=1e-12)


@pytest.mark.parametrize("groups", [1, 3])
def test_of_class_means_it_is_right_on_average(groups):
    ratios = []
    for seed in range(8):
        held = list(clients(seed))
        parts = [(f[part::groups], y[part::groups]) for f, y in held for part in range(groups)]
        ratios.append(estimated([class_means(f, y) for f, y in parts]) / true_length(held))
    assert sum(ratios) / len(ratios) == pytest.approx(1, abs=0.02)
    assert min(ratios) > 0.9
    assert max(ratios) < 1.1


def test_known_noise_is_taken_off():
    held = list(clients(number=200))
    clean = [class_means(features, labels) for features, labels in held]
    generator = torch.Generator().manual_seed(1)
    noisy = []
    for upload in clean:
        noise = torch.randn(upload.means.shape, generator=generator, dtype=torch.float64) * 0.7
        said = torch.full((upload.num_rows,), 0.49, dtype=torch.float64)
        noisy.append(ClassMeans(upload.class_ids, upload.counts, upload.means + noise, said))
    unsaid = [ClassMeans(u.class_ids, u.counts, u.means) for u in noisy]
    assert estimated(noisy) == pytest.approx(estimated(clean), rel=0.08)
    assert estimated(unsaid) > 1.5 * estimated(clean)


def test_where_no_class_has_two_rows_the_means_are_all_there_is():
    features, labels = next(clients())
    upload = class_means(features, labels)
    by_hand = float((upload.counts * upload.means.square().sum(dim=1)).sum() / len(labels))
    assert estimated([upload]) == pytest.approx(by_hand)
    assert SquaredLength(CLASSES).mean(torch.zeros(CLASSES, DIM, dtype=torch.float64)) == 0.0
