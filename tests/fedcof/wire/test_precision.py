"""Rows that a narrower type would make equal: kept where they are computed, refused where they are written."""

import pytest
import torch

from fedcof import ClassMeans, FeatureMoments, FedCOF, UserError, class_means, feature_moments
from fedcof.run.config import RunConfig
from fedcof.wire.codec import Measurement
from fedcof.wire.encoding import decode_class_means, encode_class_means
from fedcof.wire.gram import MOMENTS
from fedcof.wire.precision import check_spread
from fedcof.wire.registry import CODECS, encodings_of

ENCODINGS = encodings_of("class-means")
CLASSES, DIM = 3, 4


def samples(offset=1e6, deviation=0.01, number=300, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(number) % CLASSES
    features = offset + deviation * torch.randn(number, DIM, generator=generator, dtype=torch.float64)
    return features.to(dtype), labels


def test_class_means_keep_how_float64_features_scatter():
    aggregator = FedCOF(CLASSES, DIM, "per-class", 0.0)
    for client in range(200):
        means = class_means(*samples(number=30, seed=client))
        assert means.means.dtype == torch.float64
        aggregator.add(means)
    torch.testing.assert_close(
        aggregator.covariance(), 1e-4 * torch.eye(DIM, dtype=torch.float64), rtol=0.25, atol=2e-5
    )


@pytest.mark.parametrize("groups", [1, 5])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_no_encoding_writes_rows_that_it_would_make_equal(encoding, groups):
    means = class_means(*samples(), groups)
    with pytest.raises(UserError, match="float32 cannot tell apart: centre or scale the features first") as error:
        encode_class_means(means, encoding, step=0.01)
    assert str(error.value).count("\n") == 0


@pytest.mark.parametrize("keys", [{"encoding": "coded"}, {"bytes-per-client": 2000}, {"encoding": "int8"}])
def test_nor_does_a_client_that_chooses_its_step_by_itself(keys):
    features, labels = samples()
    measurement = Measurement(features, labels, lambda groups: class_means(features, labels, groups))
    wire = RunConfig.from_mapping(keys).wire
    codec = CODECS.get("class-means." + ("coded" if wire.has_budget else wire.encoding))
    with pytest.raises(UserError, match="centre or scale the features first"):
        codec.write(measurement, 3, wire, 0)


def test_nor_is_a_gram_matrix_written_that_would_lose_them():
    moments = feature_moments(*samples(offset=1e4))
    assert moments.gram.dtype == torch.float64
    with pytest.raises(UserError, match="centre or scale the features first"):
        MOMENTS.encode(moments, 0)


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
@pytest.mark.parametrize("broken", [0, 3])
def test_one_feature_is_enough_and_is_named_in_any_units(broken, scale):
    features, labels = samples(offset=1.0, deviation=0.01)
    features[:, broken] += 1e5
    with pytest.raises(UserError, match=f"feature {broken} differ"):
        encode_class_means(class_means(features * scale, labels, 4))
    features[:, broken] -= 9e4
    with pytest.raises(UserError, match=f"Feature {broken} has"):
        MOMENTS.encode(feature_moments(features * scale, labels), 0)


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize(
    "made",
    [
        samples(offset=0.0, deviation=1.0),
        samples(offset=100.0, deviation=0.1),
        samples(offset=1e6, deviation=0.0),
        samples(offset=0.1, deviation=0.0),
        samples(offset=1e6, deviation=0.01, dtype=torch.float32),
        samples(number=2),
        samples(number=0),
    ],
    ids=["usual", "far", "constant", "constant tenths", "float32", "a row a class", "nothing"],
)
def test_what_float32_holds_is_written(made, encoding):
    features, labels = made
    if encoding == "float16":
        features = features.clamp(max=6e4)
    if len(labels) == 2:
        features = features.round()
    means = class_means(features, labels, 2)
    decoded = decode_class_means(encode_class_means(means, encoding, step=1.0))
    assert decoded.num_rows == means.num_rows
    MOMENTS.encode(feature_moments(features, labels), 0)


def test_sums_of_many_constants_are_no_spread():
    """0.1 a hundred times over does not add up to 10, nor to what it adds up to seventy times over."""
    counts = torch.tensor([70, 100, 100_000])
    means = torch.stack([torch.full((int(n),), 0.1, dtype=torch.float64).cumsum(0)[-1] / n for n in counts])
    assert len(means.unique()) > 1
    check_spread(means[:, None], counts)


def test_what_is_written_with_a_narrower_type_in_mind_is_measured_against_it():
    means = torch.tensor([[1.0, 5.0], [1.0002, 6.0]])
    check_spread(means, torch.tensor([3, 3]))
    with pytest.raises(UserError, match="float16 cannot tell apart"):
        check_spread(means, torch.tensor([3, 3]), torch.float16)


def test_statistics_of_float64_that_hold_in_float32_arrive_as_such():
    means = class_means(*samples(0.0, 1.0))
    assert isinstance(means, ClassMeans)
    arrived = decode_class_means(encode_class_means(means))
    assert torch.equal(arrived.means, means.means.float())
    moments = feature_moments(*samples(0.0, 1.0))
    assert isinstance(moments, FeatureMoments)
    assert torch.equal(MOMENTS.decode(MOMENTS.encode(moments, 0)).gram, moments.gram.float())
