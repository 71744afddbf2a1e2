"""An aggregator behind a linear map: the same classifier as of mapped samples, for features before the map."""

import pytest
import torch

from fedcof import ClassMeans, FedCOF, FedNCM, class_means
from fedcof.methods.base import backbone_scores
from fedcof.methods.projected import Projected
from fedcof.wire.encoding import decode_class_means, encode_class_means

CLASSES, DIM, FEWER = 6, 15, 9


def clients(seed=0):
    generator = torch.Generator().manual_seed(seed)
    centres = 2 * torch.randn(CLASSES, DIM, generator=generator)
    labels = torch.randint(0, CLASSES, (40, 30), generator=generator)
    return [(centres[own] + torch.randn(30, DIM, generator=generator), own) for own in labels]


@pytest.fixture
def matrix():
    return torch.randn(DIM, FEWER, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize("head", ["ridge", "lda", "quadratic"])
def test_it_solves_as_for_mapped_samples(matrix, head):
    projected = Projected(FedCOF(CLASSES, FEWER, head=head), matrix)
    mapped = FedCOF(CLASSES, FEWER, head=head)
    for features, labels in clients():
        projected.add(class_means(features, labels, CLASSES))
        mapped.add(class_means(features @ matrix.float(), labels, CLASSES))
    features = torch.cat([features for features, _ in clients(0)])
    ours, theirs = projected.solve(), mapped.solve()
    assert ours.feature_dim == projected.feature_dim == DIM
    scores = theirs.scores(features @ matrix.float())
    assert torch.allclose(ours.scores(features), scores, atol=1e-3 * float(scores.abs().max()))
    assert projected.shrinkage_ == pytest.approx(mapped.shrinkage_, rel=1e-3)
    assert backbone_scores(projected).label_correlation == pytest.approx(
        backbone_scores(mapped).label_correlation, rel=1e-3
    )


def test_class_means_are_those_that_the_map_takes_there(matrix):
    projected = Projected(FedNCM(CLASSES, FEWER), matrix)
    mapped = FedNCM(CLASSES, FEWER)
    for features, labels in clients():
        projected.add(class_means(features, labels, CLASSES))
        mapped.add(class_means(features @ matrix.float(), labels, CLASSES))
    assert projected.class_means().shape == (CLASSES, DIM)
    assert torch.allclose(projected.class_means() @ matrix, mapped.class_means(), atol=1e-4)


def test_known_noise_goes_through_the_map_on_average(matrix):
    kept = []

    class Keeping(FedNCM):
        def add(self, upload, source=None):
            kept.append(upload)
            super().add(upload, source)

    features, labels = clients()[0]
    coarse = decode_class_means(encode_class_means(class_means(features, labels, CLASSES), "int4"))
    Projected(Keeping(CLASSES, FEWER), matrix).add(coarse)
    noise = torch.randn(200_000, DIM, generator=torch.Generator().manual_seed(2)) * coarse.noise[0].sqrt()
    assert float(kept[0].noise[0]) == pytest.approx(float((noise @ matrix.float()).var(dim=0).mean()), rel=0.02)
    assert isinstance(kept[0], ClassMeans)
