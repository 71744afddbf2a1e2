r"""Differential privacy of one client's upload, for each of its samples: clipped features, one Gaussian mechanism.

Every feature vector f is shortened to at most the clip norm B. A sample of class c adds (1, f) to the count and the
sum of one row of c, and nothing to any other. With noise of standard deviation :math:`s_n` on every count and
:math:`s_x` on every coordinate of every sum, adding or removing a sample moves the release, measured in its own
noise, by at most

.. math:: \sqrt{1 / s_n^2 + B^2 / s_x^2} = 1 / z

which is the Gaussian mechanism with noise multiplier z. A share a of the budget for the counts is
:math:`s_n = z / \sqrt{a}` and :math:`s_x = B z / \sqrt{1 - a}`. A Gram matrix adds :math:`f f^T`, of Frobenius norm
at most :math:`B^2`. All that follows (withheld rows, means, encoding) uses nothing but the release.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from fedcof.errors import UserError

COUNTS_SHARE = 0.1


GRAM_SHARE = 0.5


# Rows of a noisy count below this many of its standard deviations are mostly rows of nobody.
FEWEST_DEVIATIONS = 3.0


@dataclass(frozen=True)
class Privacy:
    """The promise for each sample of a client, and the noise that keeps it.

    Parameters
    ----------
    epsilon : float
        Above 0.
    delta : float
        Between 0 and 1.
    clip_norm : float
        Largest length B of a feature vector, in the backbone's units; above 0. It must not be read off the data
        that it protects.
    with_gram : bool
        Whether a Gram matrix is released with the counts and sums.

    Raises
    ------
    UserError
        If a number is out of its range.
    """

    epsilon: float
    delta: float
    clip_norm: float
    with_gram: bool = False

    def __post_init__(self) -> None:
        if not (0 < self.epsilon < math.inf and 0 < self.delta < 1 and 0 < self.clip_norm < math.inf):
            raise UserError(
                f"Privacy needs an epsilon and a clip norm above 0 and a delta between 0 and 1, but has "
                f"{self.epsilon:g}, {self.clip_norm:g} and {self.delta:g}: give such numbers."
            )

    @property
    def noise_multiplier(self) -> float:
        """Standard deviation z of the noise of a release of sensitivity 1."""
        return noise_multiplier(self.epsilon, self.delta)

    @property
    def count_noise(self) -> float:
        """Standard deviation of the noise of every count, in samples."""
        return self.noise_multiplier / math.sqrt(COUNTS_SHARE)

    @property
    def sum_noise(self) -> float:
        """Standard deviation of the noise of every coordinate of every class sum, in feature units."""
        share = 1 - COUNTS_SHARE - (GRAM_SHARE if self.with_gram else 0.0)
        return self.clip_norm * self.noise_multiplier / math.sqrt(share)

    @property
    def gram_noise(self) -> float:
        """Standard deviation of the noise of the Gram matrix's diagonal, in squared feature units.

        Beside the diagonal, where every number stands twice, it is smaller by the root of two.
        """
        return self.clip_norm**2 * self.noise_multiplier / math.sqrt(GRAM_SHARE) if self.with_gram else 0.0

    @property
    def smallest_count(self) -> float:
        """Noisy count below which a row is withheld."""
        return max(FEWEST_DEVIATIONS * self.count_noise, 1.0)


@lru_cache(maxsize=64)
def noise_multiplier(epsilon: float, delta: float) -> float:
    """Ask dp-accounting for the noise of a Gaussian mechanism.

    Parameters
    ----------
    epsilon : float
        Above 0.
    delta : float
        Between 0 and 1.

    Returns
    -------
    float
        Standard deviation for one release of sensitivity 1, by the exact condition of Balle and Wang (ICML 2018).
    """
    # The import takes more than a second, and most runs have no use for it.
    from dp_accounting import get_sigma_gaussian

    return float(get_sigma_gaussian(epsilon, delta))


def mean_noise(counts: Tensor, privacy: Privacy) -> Tensor:
    """Give the variance of the noise of means.

    Parameters
    ----------
    counts : Tensor of shape (R,)
        The noisy counts that the noisy sums were divided by.
    privacy : Privacy
        The promise that the noise was made for.

    Returns
    -------
    Tensor of shape (R,), float64
        Variance in every coordinate, in squared feature units.
    """
    return (privacy.sum_noise / counts.to(torch.float64)).square()
