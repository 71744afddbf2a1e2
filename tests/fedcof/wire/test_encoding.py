"""Uploads as arrays: round trips, the noise of int8, and arrays that are none."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedcof import UserError, class_means, feature_moments
from fedcof.wire.arrays import num_bytes
from fedcof.wire.encoding import codec_of, decode_class_means, encode_class_means
from fedcof.wire.gram import MOMENTS
from fedcof.wire.registry import CODECS, encodings_of
from fedcof.wire.rotation import Rotation

ENCODINGS = encodings_of("class-means")
SAMPLES = torch.randn(60, 50, generator=torch.Generator().manual_seed(0)) * 3, torch.arange(60) % 7


def repeated_means(times):
    """Class means of the samples, and the same as those of other classes: as many draws of the dither in one go."""
    labels = torch.cat([SAMPLES[1] + 7 * time for time in range(times)])
    return class_means(SAMPLES[0].repeat(times, 1), labels)


def test_float32_is_lossless():
    upload = class_means(*SAMPLES)
    back = decode_class_means(encode_class_means(upload))
    assert torch.equal(back.class_ids, upload.class_ids)
    assert torch.equal(back.counts, upload.counts)
    assert torch.equal(back.means, upload.means)
    assert back.noise is None


def test_float16_rounds():
    upload = class_means(*SAMPLES)
    back = decode_class_means(encode_class_means(upload, "float16"))
    torch.testing.assert_close(back.means, upload.means, rtol=1e-3, atol=1e-3)
    with pytest.raises(UserError, match="65,504"):
        encode_class_means(class_means(torch.full((2, 3), 1e5), torch.zeros(2, dtype=torch.int64)), "float16")


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), scale=st.floats(1e-6, 1e6))
def test_int8_is_within_half_a_step(seed, scale):
    upload = class_means(SAMPLES[0] * scale, SAMPLES[1])
    arrays = encode_class_means(upload, "int8", seed)
    back = decode_class_means(arrays)
    steps = torch.from_numpy(arrays["steps"])
    assert ((back.means - upload.means).abs() <= 0.5001 * steps[:, None]).all()
    torch.testing.assert_close(back.noise, steps**2 / 12)


def test_the_error_of_int8_is_even_unbiased_and_independent_of_the_mean():
    upload, draws = repeated_means(50), 60 * 50
    errors = torch.stack(
        [decode_class_means(encode_class_means(upload, "int8", seed)).means - upload.means for seed in range(60)]
    ).double()
    errors = errors.view(draws, 7, -1)
    steps = class_means(*SAMPLES).means.abs().amax(dim=1).double() / 126.5
    errors /= steps[:, None]
    assert (errors.mean(dim=0).abs() < 5 / (12 * draws) ** 0.5).all()
    assert ((errors.square().mean(dim=0) * 12 - 1).abs() < 5 * (4 / 5 / draws) ** 0.5).all()
    assert errors.abs().max() <= 0.5001


@pytest.mark.parametrize("encoding", ["int8", "int4"])
def test_a_mean_of_zeros_stays_zero(encoding):
    upload = class_means(torch.zeros(3, 4), torch.zeros(3, dtype=torch.int64))
    back = decode_class_means(encode_class_means(upload, encoding, 3))
    assert back.means.count_nonzero() == 0


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), scale=st.floats(1e-6, 1e6), dim=st.integers(1, 70))
def test_the_error_of_int4_is_within_half_a_step_in_each_rotated_coordinate(seed, scale, dim):
    samples = torch.randn(20, dim, generator=torch.Generator().manual_seed(1)) * scale
    upload = class_means(samples, torch.arange(20) % 3)
    arrays = encode_class_means(upload, "int4", seed)
    back = decode_class_means(arrays)
    steps = torch.from_numpy(arrays["steps"])
    error = Rotation.drawn(dim, seed).apply(back.means - upload.means)
    assert (error.abs() <= 0.5001 * steps[:, None]).all()
    torch.testing.assert_close(back.noise, steps**2 / 12)
    assert back.feature_dim == dim
    assert arrays["means"].shape == (3, (dim + 1) // 2)


def test_the_error_of_int4_is_white_unbiased_and_of_the_variance_said():
    upload = repeated_means(50)
    backs = [decode_class_means(encode_class_means(upload, "int4", seed)) for seed in range(60)]
    errors = torch.stack([(back.means - upload.means) / back.noise.sqrt()[:, None] for back in backs]).double()
    errors = errors.view(60 * 50, 7, -1)
    assert (errors.mean(dim=0).abs() < 5 / len(errors) ** 0.5).all()
    second = torch.einsum("sri,srj->ij", errors, errors) / errors.shape[0] / errors.shape[1]
    assert (second - torch.eye(len(second))).abs().max() < 6 / (errors.shape[0] * errors.shape[1]) ** 0.5 * 2**0.5


def test_int4_weighs_what_the_formula_says():
    upload = class_means(torch.randn(40, 51), torch.arange(40) % 7)
    assert num_bytes(encode_class_means(upload, "int4")) == 7 * (26 + 2 + 4) + 12


def test_moments_are_lossless():
    upload = feature_moments(*SAMPLES)
    back = MOMENTS.decode(MOMENTS.encode(upload, 0))
    for field in ("class_ids", "counts", "sums", "gram"):
        assert torch.equal(getattr(back, field), getattr(upload, field))


def test_the_numbers_weigh_what_the_formula_says():
    upload = class_means(*SAMPLES)
    rows, dim = upload.means.shape
    assert num_bytes(encode_class_means(upload)) == rows * (4 * dim + 2)
    assert num_bytes(encode_class_means(upload, "float16")) == rows * (2 * dim + 2)
    assert num_bytes(encode_class_means(upload, "int8")) == rows * (dim + 2 + 4) + 4
    assert num_bytes(MOMENTS.encode(feature_moments(*SAMPLES), 0)) == 4 * dim * (dim + 1) // 2 + rows * (
        4 * dim + 2
    )


def test_a_client_without_samples_sends_nothing():
    samples = torch.zeros(0, 5), torch.zeros(0, dtype=torch.int64)
    for encoding in ENCODINGS:
        arrays = encode_class_means(class_means(*samples), encoding, step=1.0)
        assert decode_class_means(arrays).num_rows == 0
        assert decode_class_means(arrays).feature_dim == 5
    assert MOMENTS.decode(MOMENTS.encode(feature_moments(*samples), 0)).feature_dim == 5


def test_bad_arrays_are_refused():
    arrays = encode_class_means(class_means(*SAMPLES))
    with pytest.raises(UserError, match="lacks means"):
        decode_class_means({n: array for n, array in arrays.items() if n != "means"}, "class-means.float32")
    with pytest.raises(UserError, match="which no encoding writes"):
        decode_class_means({n: array for n, array in arrays.items() if n != "means"})
    with pytest.raises(UserError, match="gram statistics and not class means"):
        decode_class_means(MOMENTS.encode(feature_moments(*SAMPLES), 0))
    with pytest.raises(UserError, match="Unknown codec 'class-means.int3'"):
        decode_class_means(arrays, "class-means.int3")
    with pytest.raises(UserError, match="finite"):
        decode_class_means({**arrays, "means": np.full_like(arrays["means"], np.nan)})
    with pytest.raises(UserError, match="whole numbers"):
        decode_class_means({**arrays, "counts": arrays["counts"] + 0.5})
    quantised = encode_class_means(class_means(*SAMPLES), "int8")
    with pytest.raises(UserError, match="lacks steps"):
        decode_class_means({name: array for name, array in quantised.items() if name != "steps"})
    with pytest.raises(UserError, match="one step per row"):
        decode_class_means({**quantised, "steps": quantised["steps"][1:]})
    with pytest.raises(UserError, match="finite"):
        decode_class_means({**quantised, "steps": np.full_like(quantised["steps"], np.inf)})
    with pytest.raises(UserError, match="Unknown encoding 'int3'"):
        encode_class_means(class_means(*SAMPLES), "int3")
    with pytest.raises(UserError, match="needs a step"):
        encode_class_means(class_means(*SAMPLES), "coded")
    nibbles = encode_class_means(class_means(*SAMPLES), "int4")
    with pytest.raises(UserError, match="one dither"):
        decode_class_means({**nibbles, "dither": nibbles["dither"][:1]})
    with pytest.raises(UserError, match="bytes a row"):
        decode_class_means({**nibbles, "dither": np.array([0, 2**31, 2], dtype=np.uint32)})
    with pytest.raises(UserError, match="version 1 or 2"):
        decode_class_means({**nibbles, "dither": np.array([0, 50, 3], dtype=np.uint32)})
    moments = MOMENTS.encode(feature_moments(*SAMPLES), 0)
    with pytest.raises(UserError, match="gram"):
        MOMENTS.decode({**moments, "gram": moments["gram"][1:]})


@pytest.mark.parametrize("encoding", ["float16", "int8", "int4"])
def test_uploads_stay_as_sent_and_decode_in_parts_as_in_whole(encoding):
    upload = class_means(torch.randn(60, 13, generator=torch.Generator().manual_seed(2)), torch.arange(60) % 7, 5)
    arrays = encode_class_means(upload, encoding, 4)
    back = decode_class_means(arrays)
    assert back.values.nbytes == arrays["means"].nbytes
    for start, stop in ((0, 1), (3, 20), (17, 35), (5, 5)):
        torch.testing.assert_close(back.rows(slice(start, stop)), back.means[start:stop], rtol=1e-5, atol=1e-5)


def test_a_mean_that_decodes_to_no_number_is_refused_at_once():
    arrays = encode_class_means(class_means(*SAMPLES), "float16")
    arrays["means"][3, 4] = np.inf
    with pytest.raises(UserError, match="finite"):
        decode_class_means(arrays)
    quantised = encode_class_means(class_means(*SAMPLES), "int8")
    quantised["steps"][2] = 1e38
    with pytest.raises(UserError, match="finite"):
        decode_class_means(quantised)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_the_rows_of_an_upload_are_counted_without_decoding_them(encoding):
    arrays = encode_class_means(class_means(*SAMPLES, 2), encoding, step=1.0)
    codec = CODECS.get(f"class-means.{encoding}")
    assert codec.rows_claimed(arrays) == 14
    assert codec.rows_claimed({}) == 0
    assert codec_of(arrays) is codec
    assert CODECS.get("class-means.coded").rows_claimed({"coded": np.zeros(3, dtype=np.uint8)}) == 0
