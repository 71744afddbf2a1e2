"""Noise: the distributions that are promised, repeatable by a seed or by nobody."""

import numpy as np
import pytest
import torch

from fedcof.privacy.noise import SecretNoise, SeededNoise


@pytest.mark.parametrize("source", [SecretNoise(), SeededNoise(0, 0)])
def test_the_noise_is_standard_normal(source):
    """Five standard errors each: the moments, and the share beyond one, two and three deviations."""
    noise = source.gaussian(401, 499)
    assert noise.shape == (401, 499)
    assert noise.dtype == torch.float64
    assert bool(noise.isfinite().all())
    number = noise.numel()
    for power, moment, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs(float(noise.pow(power).mean()) - moment) < 5 * (variance / number) ** 0.5
    for deviations, share in ((1, 0.3173105), (2, 0.0455003), (3, 0.0026998)):
        found = float((noise.abs() > deviations).double().mean())
        assert abs(found - share) < 5 * (share / number) ** 0.5
    halves = noise.flatten()[: number // 2 * 2].reshape(2, -1)
    assert abs(float((halves[0] * halves[1]).mean())) < 5 * (2 / number) ** 0.5


@pytest.mark.parametrize("source", [SecretNoise(), SeededNoise(0, 0)])
def test_whole_numbers_are_even(source):
    numbers = source.below(7, 70_000)
    assert numbers.dtype == torch.int64
    assert (torch.bincount(numbers) - 10_000).abs().max() < 500
    assert source.below(3, 0).shape == (0,)
    assert source.gaussian(0, 4).shape == (0, 4)


def test_a_seed_repeats_its_noise_and_each_client_has_its_own():
    first, again, other = (SeededNoise(*key).gaussian(50) for key in ((3, 1), (3, 1), (3, 2)))
    torch.testing.assert_close(first, again, rtol=0, atol=0)
    assert not torch.equal(first, other)


def test_secret_noise_follows_no_seed():
    drawn = []
    for _ in range(2):
        torch.manual_seed(0)
        np.random.seed(0)  # noqa: NPY002
        drawn.append(SecretNoise().gaussian(50))
    assert not torch.equal(*drawn)
