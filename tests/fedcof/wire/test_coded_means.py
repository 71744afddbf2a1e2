"""Class means as one coded stream: round trips, white noise of the variance said, hostile streams."""

from zlib import crc32

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedcof import ClassMeans, FedCOF, UserError, class_means
from fedcof.covariance.totals import class_totals
from fedcof.wire.coded_header import CHECKSUM, LAYOUT
from fedcof.wire.coded_means import read_class_means, write_class_means
from fedcof.wire.coded_rows import ScaledRows
from fedcof.wire.encoding import decode_class_means, encode_class_means
from fedcof.wire.reflection import reflect
from tests.fedcof.rebuilt import within_class_scatter


def signed(content):
    return np.frombuffer(content + CHECKSUM.pack(crc32(content)), dtype=np.uint8)


def upload_of(groups=3, dim=24, samples=80, seed=0):
    generator = torch.Generator().manual_seed(seed)
    means = torch.rand(5, dim, generator=generator) * 4
    labels = torch.randint(5, (samples,), generator=generator)
    noise = torch.randn(samples, dim, generator=generator) * torch.linspace(0.5, 2, dim)
    return class_means(means[labels] + noise, labels, groups)


def repeated(upload, times):
    """The same rows as those of other classes, five further on each time: as many draws of the dither in one go."""
    ids = torch.cat([upload.class_ids + 5 * time for time in range(times)])
    return ClassMeans(ids, upload.counts.repeat(times), upload.means.repeat(times, 1))


def test_a_reflection_takes_a_class_apart_into_its_mean_and_its_scatter():
    upload = upload_of()
    scaled = upload.counts.double().sqrt()[:, None] * upload.means.double()
    reflected = reflect(scaled.clone(), upload.class_ids, upload.counts)
    for class_id in range(5):
        rows = (upload.class_ids == class_id).nonzero()[:, 0]
        counts = upload.counts[rows].double()
        mean = counts @ upload.means[rows].double() / counts.sum()
        torch.testing.assert_close(reflected[rows[0]], counts.sum().sqrt() * mean)
        deviations = upload.means[rows].double() - mean
        scatter = sum(n * torch.outer(v, v) for n, v in zip(counts, deviations, strict=True))
        torch.testing.assert_close(reflected[rows[1:]].T @ reflected[rows[1:]], scatter)
    torch.testing.assert_close(reflect(reflected, upload.class_ids, upload.counts), scaled)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    groups=st.integers(1, 30),
    dim=st.integers(1, 40),
    samples=st.integers(1, 60),
    scale=st.floats(1e-6, 1e6),
    relative=st.floats(0.01, 10),
)
def test_streams_come_back_within_half_a_step_before_the_reflection(seed, groups, dim, samples, scale, relative):
    upload = upload_of(groups, dim, samples, seed % 100)
    upload = ClassMeans(upload.class_ids, upload.counts, upload.means * scale)
    step = float(np.float32(scale * relative))
    back = read_class_means(write_class_means(upload, step, seed))
    assert torch.equal(back.class_ids, upload.class_ids)
    assert torch.equal(back.counts, upload.counts)
    torch.testing.assert_close(back.noise, (step**2 / 12 / upload.counts).float())
    errors = (back.means.double() - upload.means) * upload.counts.sqrt()[:, None] / step
    largest = reflect(errors, upload.class_ids, upload.counts).abs().max()
    # What float32 loses of the means themselves grows as the step shrinks.
    assert largest <= 0.5 + 1e-4 + 1e-5 / relative


def test_the_error_is_white_unbiased_and_of_the_variance_said():
    once = upload_of(dim=12)
    upload = repeated(once, 50)
    errors = []
    for seed in range(60):
        back = read_class_means(write_class_means(upload, 2.0, seed))
        errors.append((back.means - upload.means) / back.noise.sqrt()[:, None])
    errors = torch.stack(errors).double().view(60 * 50, *once.means.shape)
    assert (errors.mean(dim=0).abs() < 5 / len(errors) ** 0.5).all()
    flat = errors.flatten(1)
    correlation = flat.T @ flat / len(flat)
    assert (correlation - torch.eye(len(correlation))).abs().max() < 6 * (2 / len(flat)) ** 0.5


@pytest.mark.parametrize("estimator", ["per-class", "pooled"])
@pytest.mark.parametrize(("encoding", "step"), [("int4", None), ("coded", 1.5)])
def test_the_scatter_is_unbiased_under_every_encoding(estimator, encoding, step):
    uploads = [upload_of(2, 6, 60, seed) for seed in range(4)]
    exact = within_class_scatter(uploads, class_totals(uploads, 5), estimator, 0.0)
    times = 20
    many = [repeated(upload, times) for upload in uploads]
    draws = []
    for draw in range(800 // times):
        coded = [
            decode_class_means(encode_class_means(upload, encoding, 10 * draw + client, step))
            for client, upload in enumerate(many)
        ]
        draws.append(within_class_scatter(coded, class_totals(coded, 5 * times), estimator, 0.0) / times)
    draws = torch.stack(draws)
    error = (draws.mean(dim=0) - exact) / (draws.std(dim=0) / len(draws) ** 0.5)
    assert error.abs().max() < 4.5


def test_parts_decode_as_the_whole_even_within_a_class():
    upload = upload_of(groups=7)
    back = read_class_means(write_class_means(upload, 1.0, 4))
    for start, stop in ((0, 1), (3, 20), (17, 35), (5, 5), (34, 35)):
        torch.testing.assert_close(back.rows(slice(start, stop)), back.means[start:stop])
    assert back.levels.dtype == torch.int8
    assert read_class_means(write_class_means(upload, 1e-3, 4)).levels.dtype == torch.int16


def test_sizes_are_predicted_and_steps_matter():
    upload = upload_of(groups=4, dim=300, samples=400)
    for step in (0.3, 1.0, 3.0):
        size = len(write_class_means(upload, step, 0))
        assert abs(ScaledRows.of(upload).expected_bytes(step) / size - 1) < 0.1
    assert len(write_class_means(upload, 1.0, 0)) < upload.means.nbytes / 8


def test_unfit_steps_are_refused():
    for step in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(UserError, match="step"):
            write_class_means(upload_of(), step, 0)
    with pytest.raises(UserError, match="larger step"):
        write_class_means(upload_of(), 1e-7, 0)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_a_damaged_stream_is_refused_or_gives_valid_rows(data):
    stream = write_class_means(upload_of(2, 8, 20), 1.0, 0)[: -CHECKSUM.size].copy()
    for _ in range(data.draw(st.integers(1, 4))):
        stream[data.draw(st.integers(0, len(stream) - 1))] = data.draw(st.integers(0, 255))
    stream = stream[: data.draw(st.integers(len(stream) - 5, len(stream)))]
    try:
        back = read_class_means(signed(stream.tobytes()))
    except UserError:
        return
    assert back.means.isfinite().all()
    assert (back.counts >= 1).all()


@settings(max_examples=50, deadline=None)
@given(place=st.integers(0, 10**6), value=st.integers(1, 255), cut=st.integers(1, 100))
def test_whatever_was_changed_on_the_way_is_noticed(place, value, cut):
    stream = write_class_means(upload_of(2, 8, 20), 1.0, 0)
    changed = stream.copy()
    changed[place % len(stream)] ^= value
    for damaged in (changed, stream[:-cut], stream[cut:], np.append(stream, np.uint8(0))):
        with pytest.raises(UserError):
            read_class_means(damaged)


@settings(max_examples=200, deadline=None)
@given(content=st.binary(max_size=300))
def test_bytes_of_any_kind_are_refused(content):
    with pytest.raises(UserError):
        read_class_means(np.frombuffer(bytes([1]) + content, dtype=np.uint8))
    with pytest.raises(UserError):
        read_class_means(signed(bytes([1]) + content))
    with pytest.raises(UserError):
        read_class_means(np.zeros(100))


def test_a_short_stream_cannot_claim_much():
    fields = list(LAYOUT.unpack_from(write_class_means(upload_of(), 1.0, 0).tobytes()))
    for place, claim in ((8, 2**32 - 1), (9, 2**32 - 1), (11, 2**32 - 1), (12, 2**32 - 1), (13, 2**32 - 1)):
        hostile = fields.copy()
        hostile[place] = claim
        with pytest.raises(UserError):
            read_class_means(signed(LAYOUT.pack(*hostile) + bytes(4000)))


def test_fedcof_solves_from_streams():
    uploads = [upload_of(3, 24, 80, seed) for seed in range(6)]
    exact, coded = FedCOF(5, 24, shrinkage="ledoit-wolf"), FedCOF(5, 24, shrinkage="ledoit-wolf")
    for client, upload in enumerate(uploads):
        exact.add(upload)
        coded.add(decode_class_means(encode_class_means(upload, "coded", client, 0.01)))
    torch.testing.assert_close(coded.solve().weight, exact.solve().weight, rtol=0, atol=0.01)
