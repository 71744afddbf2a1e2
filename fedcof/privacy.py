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

from fedcof.configuration import RunConfig
from fedcof.errors import UserError
from fedcof.noise import NoiseSource
from fedcof.statistics import ClassMeans, FeatureMoments, check_samples

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

    @staticmethod
    def of(config: RunConfig) -> Privacy | None:
        """Read a run's promise.

        Parameters
        ----------
        config : RunConfig
            The run.

        Returns
        -------
        Privacy or None
            None without an epsilon.
        """
        if not config.epsilon:
            return None
        return Privacy(config.epsilon, config.delta, config.clip_norm, with_gram=config.method == "fed3r")

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


def private_class_means(
    features: Tensor,
    labels: Tensor,
    num_classes: int,
    privacy: Privacy,
    source: NoiseSource,
    groups: int = 1,
) -> ClassMeans:
    """Compute a client's class means with privacy for each of its samples.

    With ``groups`` above 1 every sample draws its group for itself. (Dealt in turn, as without privacy, one sample
    more would move others to another group, and the promise would not hold.)

    Parameters
    ----------
    features : Tensor of shape (n, d), floating point
        Feature vectors of the client's samples; one that is not finite counts as zero.
    labels : Tensor of shape (n,), integer
        Class of each sample, from 0 to below C.
    num_classes : int
        Number of classes C of the whole federation; there is a noisy count for each, held or not.
    privacy : Privacy
        The promise.
    source : NoiseSource
        Where noise and groups come from.
    groups : int
        Rows per class, at least 1.

    Returns
    -------
    ClassMeans
        Rows whose noisy count is large enough, float32, with the variance of the noise of their means.

    Raises
    ------
    UserError
        If the shapes do not belong together or a class is unknown.
    """
    row_ids = labels.to(torch.int64) * groups
    if groups > 1:
        row_ids += source.below(groups, len(labels))
    counts, sums = clipped_sums(features, row_ids, num_classes * groups, privacy.clip_norm)
    counts, sums = _noisy(counts, sums, privacy, source)
    kept = counts >= privacy.smallest_count
    class_ids = torch.arange(num_classes).repeat_interleave(groups)[kept]
    whole = counts[kept].round().clamp(min=1)
    means = (sums[kept] / whole[:, None]).to(torch.float32)
    return ClassMeans(class_ids, whole.to(torch.int64), means, mean_noise(whole, privacy))


def private_feature_moments(
    features: Tensor, labels: Tensor, num_classes: int, privacy: Privacy, source: NoiseSource
) -> FeatureMoments:
    """Compute a client's class sums and Gram matrix with privacy for each of its samples.

    Parameters
    ----------
    features, labels, num_classes, privacy, source
        See :func:`private_class_means`; the promise must be one with a Gram matrix.

    Returns
    -------
    FeatureMoments
        Float32; the Gram matrix of all classes, and the sums of those whose noisy count is large enough.

    Raises
    ------
    UserError
        See :func:`private_class_means`.
    """
    counts, sums = clipped_sums(features, labels.to(torch.int64), num_classes, privacy.clip_norm)
    counts, sums = _noisy(counts, sums, privacy, source)
    kept = counts >= privacy.smallest_count
    exact = _clip(features, privacy.clip_norm)
    rows, columns = torch.triu_indices(features.shape[1], features.shape[1])
    deviations = torch.where(rows == columns, privacy.gram_noise, privacy.gram_noise / math.sqrt(2))
    gram = (exact.T @ exact)[rows, columns] + deviations * source.gaussian(len(rows))
    whole = counts[kept].round().clamp(min=1).to(torch.int64)
    class_ids = torch.arange(num_classes)[kept]
    return FeatureMoments(class_ids, whole, sums[kept].to(torch.float32), gram.to(torch.float32))


def clipped_sums(features: Tensor, row_ids: Tensor, num_rows: int, clip_norm: float) -> tuple[Tensor, Tensor]:
    """Count and add up clipped feature vectors by row, before any noise.

    Parameters
    ----------
    features : Tensor of shape (n, d), floating point
        Feature vectors; one that is not finite counts as zero.
    row_ids : Tensor of shape (n,), int64
        Row of each.
    num_rows : int
        Number of rows R, whoever has samples in them.
    clip_norm : float
        Longer vectors are shortened to this length.

    Returns
    -------
    tuple of Tensor
        Counts (R,) and sums (R, d), float64.

    Raises
    ------
    UserError
        If the shapes do not belong together or a row is unknown.
    """
    check_samples(features, row_ids)
    if len(row_ids) and not 0 <= int(row_ids.min()) <= int(row_ids.max()) < num_rows:
        raise UserError("A sample's label is none of the federation's classes: mend the labels.")
    counts = torch.bincount(row_ids, minlength=num_rows).to(torch.float64)
    sums = torch.zeros(num_rows, features.shape[1], dtype=torch.float64)
    return counts, sums.index_add_(0, row_ids, _clip(features, clip_norm))


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


def _noisy(counts: Tensor, sums: Tensor, privacy: Privacy, source: NoiseSource) -> tuple[Tensor, Tensor]:
    return (
        counts + privacy.count_noise * source.gaussian(*counts.shape),
        sums + privacy.sum_noise * source.gaussian(*sums.shape),
    )


def _clip(features: Tensor, clip_norm: float) -> Tensor:
    """Shorten vectors to the clip norm, in float64."""
    # One that is not finite is zero and no error, because a client that fails tells of it.
    exact = features.to(torch.float64)
    exact = torch.where(exact.isfinite().all(dim=1, keepdim=True), exact, 0.0)
    lengths = torch.linalg.vector_norm(exact, dim=1, keepdim=True)
    return exact.mul_(clip_norm).div_(lengths.clamp(min=clip_norm))
