"""Effective counts: rows count for as many samples as they are said to, whole or not."""

import pytest
import torch

from fedcof import ClassMeans, FedCOF, class_means
from fedcof.statistics.reweighted import ReweightedRows
from fedcof.wire.encoding import decode_class_means, encode_class_means

CLASSES, DIM = 4, 6


def uploads():
    generator = torch.Generator().manual_seed(0)
    for _ in range(9):
        labels = torch.randint(CLASSES, (20,), generator=generator)
        yield class_means(torch.randn(20, DIM, generator=generator) + labels[:, None], labels)


@pytest.mark.parametrize("head", ["ridge", "lda", "quadratic"])
@pytest.mark.parametrize("estimator", ["per-class", "pooled"])
def test_a_row_of_twice_the_count_is_a_row_of_twice_the_samples(estimator, head):
    reweighted, told = (FedCOF(CLASSES, DIM, estimator, 0.1, head) for _ in range(2))
    for upload in uploads():
        reweighted.add(ReweightedRows.of(upload, 2 * upload.counts))
        told.add(ClassMeans(upload.class_ids, 2 * upload.counts, upload.means))
    points = torch.randn(50, DIM, generator=torch.Generator().manual_seed(1))
    assert torch.equal(reweighted.solve().scores(points), told.solve().scores(points))


def test_the_means_and_their_noise_stay_those_of_the_upload():
    upload = decode_class_means(encode_class_means(next(uploads()), "int4"))
    half = ReweightedRows.of(upload, upload.counts / 2)
    quarter = ReweightedRows.of(half, half.counts / 2)
    assert quarter.upload is upload
    assert torch.equal(quarter.counts, upload.counts / 4)
    assert torch.equal(quarter.means, upload.means)
    assert torch.equal(quarter.rows(slice(1, 3)), upload.means[1:3])
    assert torch.equal(quarter.noise, upload.noise)
    assert (quarter.feature_dim, quarter.dtype) == (DIM, torch.float32)
