"""Private statistics of a client's samples: clipped, summed, noised."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fedcof.errors import UserError
from fedcof.privacy.mechanism import Privacy, mean_noise
from fedcof.privacy.noise import NoiseSource
from fedcof.statistics.class_means import ClassMeans
from fedcof.statistics.inputs import Numbers, as_samples
from fedcof.statistics.moments import FeatureMoments
from fedcof.statistics.validation import check_samples


def private_class_means(
    features: Numbers,
    labels: Numbers,
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
    features : Tensor, ndarray or sequence of shape (n, d)
        Feature vectors of the client's samples; one that is not finite counts as zero.
    labels : Tensor, ndarray or sequence of shape (n,)
        Class of each sample, from 0 to below C; whole numbers of any type.
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
        If the shapes do not belong together, or a label is no whole number or no class.
    """
    features, labels = as_samples(features, labels)
    features, row_ids = features.cpu(), labels * groups
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
    features: Numbers, labels: Numbers, num_classes: int, privacy: Privacy, source: NoiseSource
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
    features, labels = as_samples(features, labels)
    features = features.cpu()
    counts, sums = clipped_sums(features, labels, num_classes, privacy.clip_norm)
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
