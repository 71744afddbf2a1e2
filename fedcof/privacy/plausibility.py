"""Uploads that clipping and noise cannot have made."""

from __future__ import annotations

import math

import torch

from fedcof.errors import UserError
from fedcof.privacy.mechanism import Privacy
from fedcof.statistics.class_means import ClassMeanRows
from fedcof.statistics.moments import FeatureMoments

# Noise beyond this many deviations is not met in the life of a federation.
MOST_DEVIATIONS = 8.0


def check_plausible(upload: ClassMeanRows | FeatureMoments, privacy: Privacy, num_classes: int) -> None:
    """Refuse an upload that clipping and noise cannot have made; nothing else can be told of noisy uploads.

    Parameters
    ----------
    upload : ClassMeans, EncodedClassMeans or FeatureMoments
        What was received.
    privacy : Privacy
        The promise that was asked for.
    num_classes : int
        Number of classes of the whole federation, some of which may have been withheld.

    Raises
    ------
    UserError
        If a class sum is longer than B times its count, or a Gram matrix larger than B^2 times all counts, with
        eight standard deviations of the noise.
    """
    counts = upload.counts.to(torch.float64)
    rows = upload.sums if isinstance(upload, FeatureMoments) else upload.means
    lengths = torch.linalg.vector_norm(rows.to(torch.float64), dim=1)
    largest = privacy.clip_norm * (counts + MOST_DEVIATIONS * privacy.count_noise + 1)
    largest += privacy.sum_noise * (math.sqrt(upload.feature_dim) + MOST_DEVIATIONS)
    if isinstance(upload, FeatureMoments):
        holds = _gram_norm(upload) <= _largest_gram_norm(upload, privacy, num_classes)
    else:
        # Rounding is off by at most half a step, and its noise is given as a twelfth of the step's square.
        rounding = 0.0 if upload.noise is None else (3 * upload.feature_dim * upload.noise.to(torch.float64)).sqrt()
        lengths, holds = (lengths - rounding) * counts, True
    if not holds or bool((lengths > 1.001 * largest).any()):
        raise UserError(
            "The upload is larger than clipping and privacy noise can make it: ask for it with the same clip-norm "
            "and epsilon as it was made with."
        )


def _gram_norm(upload: FeatureMoments) -> float:
    rows, columns = torch.triu_indices(upload.feature_dim, upload.feature_dim)
    twice = torch.where(rows == columns, 1, 2)
    return float((upload.gram.to(torch.float64).square() * twice).sum().sqrt())


def _largest_gram_norm(upload: FeatureMoments, privacy: Privacy, num_classes: int) -> float:
    """Bound the Frobenius norm, given that classes may have been withheld for their small counts."""
    withheld = privacy.smallest_count + MOST_DEVIATIONS * privacy.count_noise
    samples = int(upload.counts.sum()) + withheld * num_classes
    entries = upload.feature_dim * (upload.feature_dim + 1) / 2
    noise = privacy.gram_noise * (math.sqrt(entries) + MOST_DEVIATIONS)
    return privacy.clip_norm**2 * samples + noise
