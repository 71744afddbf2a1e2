"""A within-class scatter of few rows, kept as these rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fedcof.covariance.blocks import classes_of_block, noise_of_block
from fedcof.covariance.estimators import class_weights_of
from fedcof.covariance.shrunk import noise_to_subtract
from fedcof.covariance.totals import ClassTotals
from fedcof.statistics.class_means import ClassMeanRows

# The smaller system loses about this number of times the machine's epsilon.
LARGEST_SPECTRUM_TO_SHRINKAGE = 1e8


@dataclass(frozen=True, eq=False)
class FactoredScatter:
    """A within-class scatter X^T X + ridge I whose rows are fewer than its dimension.

    Attributes
    ----------
    factor : Tensor of shape (R, d), float64
        Weighted residuals X.
    ridge : float
        Multiple of the identity, above 0.
    noise : float
        How much of the diagonal of X^T X is known noise.
    """

    factor: Tensor
    ridge: float
    noise: float = 0.0


def factored_scatter(
    uploads: Sequence[ClassMeanRows], totals: ClassTotals, estimator: str, shrinkage: float | str
) -> FactoredScatter | None:
    """Keep the within-class scatter as its rows where they are fewer than d, for a solve in their space.

    Parameters
    ----------
    uploads : sequence of ClassMeans or EncodedClassMeans
        All rows, R of them.
    totals : ClassTotals
        The same rows added up.
    estimator, shrinkage
        See :func:`fedcof.covariance.shrunk.shrunk_scatter`.

    Returns
    -------
    FactoredScatter or None
        None where the smaller system does not pay or would lose digits: R at least d, a shrinkage to be
        estimated, or one that is tiny against the spectrum.
    """
    num_rows, dim = sum(upload.num_rows for upload in uploads), totals.means.shape[1]
    if num_rows >= dim or isinstance(shrinkage, str):
        return None
    weights = class_weights_of(totals, estimator)
    block = [(upload, slice(0, upload.num_rows)) for upload in uploads]
    ids, counts = classes_of_block(block)
    factor = torch.cat([upload.rows(part).to(torch.float64) for upload, part in block])
    factor.sub_(totals.means[ids]).mul_((weights[ids] * counts).sqrt()[:, None])
    ridge = shrinkage * float(totals.sample_degrees_of_freedom.sum())
    noise_of_rows = counts * noise_of_block(block) * (1 - counts / totals.counts[ids])
    noise = float((weights[ids] * noise_of_rows).sum())
    ridge -= noise_to_subtract(ridge, noise)
    spectrum = float(factor.square().sum() + totals.num_samples * totals.global_mean.square().sum())
    return FactoredScatter(factor, ridge, noise) if ridge * LARGEST_SPECTRUM_TO_SHRINKAGE > spectrum else None
