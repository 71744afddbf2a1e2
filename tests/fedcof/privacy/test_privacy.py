"""Privacy: the library's accounting, the sensitivity of what is really released, and the noise as promised."""

import math

import pytest
import torch
from dp_accounting import GaussianDpEvent, SelfComposedDpEvent
from dp_accounting.pld import PLDAccountant
from dp_accounting.rdp import RdpAccountant
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fedcof import UserError, class_means
from fedcof.privacy.mechanism import Privacy, mean_noise, noise_multiplier
from fedcof.privacy.noise import SeededNoise
from fedcof.privacy.release import clipped_sums, private_class_means, private_feature_moments
from fedcof.run.config import RunConfig

DIM, CLASSES = 5, 3


class Silence:
    """No noise, and groups that follow a list, so that a sample more leaves the others where they are."""

    def gaussian(self, *shape):
        return torch.zeros(shape, dtype=torch.float64)

    def below(self, limit, number):
        return (torch.arange(number) * 7 // 2) % limit


@pytest.mark.parametrize("epsilon", [0.5, 1.0, 4.0])
@pytest.mark.parametrize("delta", [1e-5, 1e-7])
def test_the_noise_is_what_the_librarys_accountants_say(epsilon, delta):
    event = GaussianDpEvent(noise_multiplier(epsilon, delta))
    assert PLDAccountant().compose(event).get_epsilon(delta) == pytest.approx(epsilon, rel=1e-3)
    bound = RdpAccountant().compose(event).get_epsilon(delta)
    assert epsilon < bound < 1.3 * epsilon


def test_several_runs_compose():
    event = SelfComposedDpEvent(GaussianDpEvent(noise_multiplier(1.0, 1e-5)), 4)
    assert 2 < PLDAccountant().compose(event).get_epsilon(1e-5) < 4


def whitened_distance(one, other, privacy, means=True):
    """How far apart two releases without noise are, measured in the noise that they would have."""
    counts = (one.counts - other.counts).double() / privacy.count_noise
    rows = [up.means * up.counts[:, None] if means else up.sums for up in (one, other)]
    sums = (rows[0] - rows[1]).double() / privacy.sum_noise
    squares = counts.square().sum() + sums.square().sum()
    if not means:
        first, second = torch.triu_indices(DIM, DIM)
        entries = (one.gram - other.gram).double() / privacy.gram_noise
        squares += (entries.square() * torch.where(first == second, 1, 2)).sum()
    return float(squares.sqrt())


@settings(deadline=None)
@given(
    st.lists(st.floats(-40, 40, width=32), min_size=DIM, max_size=DIM),
    st.integers(0, CLASSES - 1),
    st.sampled_from([1, 2]),
    st.integers(0, 9),
)
@example([0.0, 0.0, -7.0, 0.0, 0.0], 1, 1, 0)
@example([2.0, 2.0, 2.0, 2.0, 2.0], 0, 2, 1)
def test_one_sample_more_moves_the_release_by_at_most_the_sensitivity(sample, label, groups, seed):
    """With enough samples in every row that none is withheld; measured on what is really released."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(40) % CLASSES
    features = 3 * torch.randn(40, DIM, generator=generator)
    neighbour = torch.cat([features, torch.tensor([sample])]), torch.cat([labels, torch.tensor([label])])
    means, moments = Privacy(60.0, 1e-5, 4.0), Privacy(60.0, 1e-5, 4.0, with_gram=True)
    releases = [private_class_means(*d, CLASSES, means, Silence(), groups) for d in ((features, labels), neighbour)]
    assert releases[0].num_rows == releases[1].num_rows == CLASSES * groups
    sensitivity = whitened_distance(*releases, means)
    assert sensitivity < (1 + 1e-5) / means.noise_multiplier
    grams = [private_feature_moments(*d, CLASSES, moments, Silence()) for d in ((features, labels), neighbour)]
    distance = whitened_distance(*grams, moments, means=False)
    assert distance < (1 + 1e-5) / moments.noise_multiplier
    if math.hypot(*sample) >= 4:
        # A sample that is clipped is the worst case, so that noise is neither too little nor wasted.
        assert sensitivity == pytest.approx(1 / means.noise_multiplier, rel=1e-4)
        assert distance == pytest.approx(1 / moments.noise_multiplier, rel=1e-4)


def test_groups_dealt_in_turn_would_move_other_samples():
    """Why private groups are drawn sample by sample: with a class dealt in turn, one sample more moves others."""
    features, labels = torch.arange(20.0)[:, None], torch.zeros(20, dtype=torch.int64)
    whole, less = (class_means(features[:n], labels[:n], groups=4) for n in (20, 19))
    moved = (whole.means * whole.counts[:, None] - less.means * less.counts[:, None]).abs()
    assert int((moved > 0).sum()) > 1


def test_long_vectors_are_shortened_and_others_left_alone():
    features = torch.tensor([[3.0, 4.0], [0.3, 0.4], [0.0, 0.0], [math.inf, 0.0], [math.nan, 1.0]])
    labels = torch.tensor([0, 0, 1, 1, 2])
    counts, sums = clipped_sums(features, labels, 4, clip_norm=2.5)
    assert counts.tolist() == [2, 2, 1, 0]
    torch.testing.assert_close(sums, torch.tensor([[1.8, 2.4], [0, 0], [0, 0], [0, 0]]).double())
    with pytest.raises(UserError, match="none of the federation's classes"):
        clipped_sums(features, labels, 2, clip_norm=2.5)


def test_counts_and_sums_have_the_noise_that_is_claimed():
    privacy = Privacy(2.0, 1e-5, 3.0)
    classes, each = 2000, 100
    labels = torch.arange(classes).repeat_interleave(each)
    upload = private_class_means(torch.zeros(len(labels), 4), labels, classes, privacy, SeededNoise(0, 0))
    assert upload.num_rows == classes
    noise = upload.counts.double() - each
    # Rounding to whole numbers adds a twelfth.
    expected = math.sqrt(privacy.count_noise**2 + 1 / 12)
    assert float(noise.std()) == pytest.approx(expected, rel=5 / math.sqrt(2 * classes))
    assert abs(float(noise.mean())) < 5 * expected / math.sqrt(classes)
    standardised = upload.means.double() / upload.noise.sqrt()[:, None]
    assert float(standardised.square().mean()) == pytest.approx(1, rel=5 * math.sqrt(2 / (4 * classes)))
    torch.testing.assert_close(upload.noise, mean_noise(upload.counts, privacy))


def test_the_gram_matrix_has_the_noise_that_is_claimed():
    privacy = Privacy(2.0, 1e-5, 3.0, with_gram=True)
    dim = 300
    labels = torch.zeros(100, dtype=torch.int64)
    gram = private_feature_moments(torch.zeros(100, dim), labels, 1, privacy, SeededNoise(0, 0)).gram
    first, second = torch.triu_indices(dim, dim)
    diagonal, beside = gram[first == second], gram[first != second]
    assert float(diagonal.square().mean()) ** 0.5 == pytest.approx(privacy.gram_noise, rel=0.2)
    assert float(beside.square().mean()) ** 0.5 == pytest.approx(privacy.gram_noise / 2**0.5, rel=0.02)


def test_rows_are_withheld_by_their_noisy_counts_alone():
    """A held class of few samples may be sent or not; a class that nobody holds is sent as rarely as it should."""
    privacy = Privacy(1.0, 1e-5, 1.0)
    num_classes = 20_000
    empty = private_class_means(torch.empty(0, 2), torch.empty(0).long(), num_classes, privacy, SeededNoise(0, 0))
    # A normal number is beyond three deviations in 0.135 % of the draws.
    assert 10 < empty.num_rows < 50
    assert int(empty.counts.min()) >= round(privacy.smallest_count)
    count = round(privacy.smallest_count)
    labels = torch.arange(500).repeat_interleave(count)
    half = private_class_means(torch.zeros(len(labels), 2), labels, 500, privacy, SeededNoise(1, 0))
    assert 180 < half.num_rows < 320


def test_the_promise_is_read_from_a_run():
    def promise_of(config):
        return config.method.chosen.promise(config.privacy)

    assert promise_of(RunConfig()) is None
    promise = promise_of(RunConfig(epsilon=2.0, clip_norm=5.0, delta=1e-6))
    assert promise == Privacy(2.0, 1e-6, 5.0)
    assert promise_of(RunConfig(method="fed3r", epsilon=2.0, clip_norm=5.0)).with_gram
    assert promise.gram_noise == 0


@pytest.mark.parametrize("numbers", [(0, 1e-5, 1), (1, 0, 1), (1, 1, 1), (1, 1e-5, 0), (math.inf, 1e-5, 1)])
def test_a_promise_that_is_none_is_refused(numbers):
    with pytest.raises(UserError, match="Privacy needs an epsilon and a clip norm above 0"):
        Privacy(*numbers)
