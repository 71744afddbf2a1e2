"""What the server knows of privacy noise: the covariance without bias, lengths, and rows nobody can have sent."""

from dataclasses import replace

import pytest
import torch

from fedcof import ClassMeans, Fed3R, FedCOF, FedNCM, UserError
from fedcof.covariance.totals import class_totals
from fedcof.methods.noise_corrected import NoiseCorrected
from fedcof.privacy.correction import PrivateRows, signal_share
from fedcof.privacy.mechanism import Privacy
from fedcof.privacy.noise import SeededNoise
from fedcof.privacy.plausibility import check_plausible
from fedcof.privacy.release import private_class_means, private_feature_moments
from fedcof.wire.encoding import decode_class_means, encode_class_means
from tests.fedcof.rebuilt import within_class_scatter


@pytest.mark.parametrize("estimator", ["per-class", "pooled"])
@pytest.mark.parametrize("encoding", ["float32", "int8"])
def test_the_covariance_is_unbiased_under_privacy_noise(estimator, encoding):
    """Thirty clients of a class, 800 draws, 40 a federation: unbiased with the noise taken off, far off without."""
    generator = torch.Generator().manual_seed(5)
    factor = torch.tensor([[2.0, 0.0, 0.0], [0.7, 1.5, 0.0], [-0.4, 0.3, 1.2]], dtype=torch.float64)
    privacy = Privacy(20.0, 1e-5, 14.0)
    # The clients of a class stand as classes of one client until their means are made.
    classes, draws = 40, 20
    clients = torch.arange(30 * classes).repeat_interleave(torch.arange(30, 60).repeat(classes))
    estimates = {known: torch.empty(draws, 3, 3, dtype=torch.float64) for known in (True, False)}
    for draw in range(draws):
        features = torch.randn(len(clients), 3, generator=generator, dtype=torch.float64) @ factor.T
        sent = private_class_means(features, clients, 30 * classes, privacy, SeededNoise(draw, 0))
        sent = ClassMeans(sent.class_ids // 30, sent.counts, sent.means)
        received = decode_class_means(encode_class_means(sent, encoding, dither_seed=draw))
        for known, upload in ((True, PrivateRows.of(received, privacy)), (False, received)):
            totals = class_totals(upload, classes)
            scatter = within_class_scatter(upload, totals, estimator=estimator, shrinkage=0.0)
            estimates[known][draw] = scatter / float(totals.counts.sum() - classes)
    errors = {known: (found.mean(dim=0) - factor @ factor.T) for known, found in estimates.items()}
    standard_error = estimates[True].std(dim=0) / draws**0.5
    assert (errors[True].abs() < 4 * standard_error).all()
    assert (errors[False].diagonal() > 8 * standard_error.diagonal()).all()


def test_the_noise_of_privacy_comes_on_top_of_the_encodings():
    privacy = Privacy(8.0, 1e-5, 2.0)
    labels = torch.arange(4).repeat_interleave(50)
    sent = private_class_means(torch.randn(200, 6), labels, 4, privacy, SeededNoise(0, 0))
    for encoding in ("float32", "float16", "int8"):
        received = decode_class_means(encode_class_means(sent, encoding, 7))
        known = PrivateRows.of(received, privacy)
        steps = torch.zeros(4) if received.noise is None else received.noise
        torch.testing.assert_close(known.noise, sent.noise + steps.double())
        torch.testing.assert_close(known.rows(slice(1, 3)), received.means[1:3])
        torch.testing.assert_close(known.means, received.means)
        assert (known.num_rows, known.feature_dim, known.dtype) == (4, 6, torch.float32)
        with pytest.raises(UserError, match="class_ids"):
            known.check_fits(3, 6)


@pytest.mark.parametrize("clip_norm", [0.1, 1.0, 30.0])
@pytest.mark.parametrize("encoding", ["float32", "int8"])
def test_only_rows_that_nobody_can_have_sent_are_refused(clip_norm, encoding):
    privacy = Privacy(1.0, 1e-5, clip_norm)
    for seed in range(20):
        labels = torch.randint(0, 40, (2000,), generator=torch.Generator().manual_seed(seed))
        features = torch.ones(2000, 64) * 100
        sent = private_class_means(features, labels, 40, privacy, SeededNoise(seed, 0))
        check_plausible(decode_class_means(encode_class_means(sent, encoding, seed)), privacy, 40)
    with pytest.raises(UserError, match="larger than clipping and privacy noise can make it"):
        check_plausible(replace(sent, means=sent.means * 50, noise=None), privacy, 40)


@pytest.mark.parametrize("epsilon", [0.3, 30.0])
def test_only_moments_that_nobody_can_have_sent_are_refused(epsilon):
    privacy = Privacy(epsilon, 1e-5, 3.0, with_gram=True)
    for seed in range(10):
        labels = torch.randint(0, 40, (4000,), generator=torch.Generator().manual_seed(seed))
        sent = private_feature_moments(torch.ones(4000, 32), labels, 40, privacy, SeededNoise(seed, 0))
        check_plausible(sent, privacy, 40)
    for field in ("sums", "gram"):
        with pytest.raises(UserError, match="larger than clipping and privacy noise can make it"):
            check_plausible(replace(sent, **{field: getattr(sent, field) * 1e3 + 1e9}), privacy, 40)


def test_the_share_of_the_signal_is_right_on_average():
    generator = torch.Generator().manual_seed(0)
    means = torch.randn(1, 50, generator=generator, dtype=torch.float64).expand(4000, -1)
    noise = torch.full((4000,), 0.2, dtype=torch.float64)
    noisy = means + noise.sqrt()[:, None] * torch.randn(4000, 50, generator=generator, dtype=torch.float64)
    signal = signal_share(noisy, noise) * noisy.square().sum(dim=1)
    expected = means[0].square().sum()
    assert abs(float(signal.mean() - expected)) < 4 * float(signal.std()) / 4000**0.5
    assert float(signal_share(noisy, 10 * noise).max()) == pytest.approx(0.2)
    torch.testing.assert_close(signal_share(noisy, 0 * noise), torch.ones(4000).double())


@pytest.mark.parametrize("method", [FedNCM, FedCOF, Fed3R])
def test_a_class_with_more_noise_than_others_does_not_lose_for_it(method):
    """Class 0 comes from one client, class 1 from ten with a tenth of the samples each."""
    generator = torch.Generator().manual_seed(1)
    dim, privacy = 300, Privacy(1.5, 1e-5, 1.0, with_gram=method is Fed3R)
    centres = torch.nn.functional.normalize(torch.randn(2, dim, generator=generator) + 1, dim=1)

    def samples(labels):
        return centres[labels] + 0.02 * torch.randn(len(labels), dim, generator=generator)

    options = {"shrinkage": 0.1} if method is FedCOF else {}
    options = {"gram_noise": privacy.gram_noise} if method is Fed3R else options
    plain, corrected = method(2, dim, **options), NoiseCorrected(method(2, dim, **options), privacy)
    release = private_feature_moments if method is Fed3R else private_class_means
    for client in range(10):
        labels = torch.cat([torch.ones(100), torch.zeros(1000 if client == 0 else 0)]).long()
        upload = release(samples(labels), labels, 2, privacy, SeededNoise(0, client))
        for aggregator in (plain, corrected):
            aggregator.add(upload, client)
    test_labels = torch.arange(2).repeat(500)
    test = samples(test_labels)
    right = [float((a.solve().predict(test) == test_labels).double().mean()) for a in (plain, corrected)]
    assert right[1] >= right[0]
    assert right[1] > 0.9
    lengths = torch.linalg.vector_norm(corrected.solve().weight, dim=1)
    assert lengths[1] > lengths[0] > 1
    torch.testing.assert_close(corrected.class_means(), plain.class_means())


@pytest.mark.parametrize("method", [FedNCM, FedCOF, Fed3R])
def test_without_uploads_nobody_is_said_to_have_withheld_anything(method):
    privacy = Privacy(1.0, 1e-5, 1.0, with_gram=method is Fed3R)
    asked = NoiseCorrected(method(3, 4), privacy)
    for question in (asked.class_means, asked.solve):
        with pytest.raises(UserError, match="No client has sent"):
            question()
    release = private_feature_moments if method is Fed3R else private_class_means
    asked.add(release(torch.zeros(0, 4), torch.zeros(0).long(), 3, privacy, SeededNoise(0, 0)))
    with pytest.raises(UserError, match="withheld every class"):
        asked.solve()
    with pytest.raises(UserError, match="No client has sent"):
        asked.class_means()
