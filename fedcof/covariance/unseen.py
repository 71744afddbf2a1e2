"""What stands in for a covariance where rows are so few that nothing shows how samples of a class scatter."""

from __future__ import annotations

from logging import getLogger

import torch
from torch import Tensor

from fedcof.covariance.totals import ClassCounts, ClassTotals

FEWEST_DEGREES = 2

_logger = getLogger(__name__)


def is_unseen(counts: ClassCounts, shrinkage: float | str) -> bool:
    """Tell whether an amount of shrinkage is to be estimated from rows that are too few for any.

    Parameters
    ----------
    counts : ClassCounts
        Samples and rows of each class.
    shrinkage : float or str
        As the key has it. A number needs no estimate: who gives one has said what is to be added to nothing.

    Returns
    -------
    bool
        True unless two classes have two rows, or one has three.
    """
    return isinstance(shrinkage, str) and float(counts.row_degrees_of_freedom.sum()) < FEWEST_DEGREES


def scatter_of_sphere(totals: ClassTotals) -> Tensor:
    """Give the scatter W of samples that vary as much in every direction.

    How much is what class means vary around the mean of all samples, on average over the dimensions: more than
    within a class, but the only scale there is. No head depends much on it.

    Parameters
    ----------
    totals : ClassTotals
        Class counts and means.

    Returns
    -------
    Tensor of shape (d, d), float64
        A multiple of the identity.
    """
    dim = totals.means.shape[1]
    squares = (totals.means - totals.global_mean).square().sum(dim=1)
    variance = float(totals.counts @ squares) / (totals.num_samples * dim) or 1.0
    degrees = float(totals.sample_degrees_of_freedom.sum().clamp(min=1))
    return torch.eye(dim, dtype=torch.float64).mul_(variance * degrees)


def warn_unseen() -> None:
    """Say that there is no covariance; as a log record, see :func:`fedcof.covariance.shrinkage.warn_at_edge`."""
    _logger.warning(
        "How samples of a class scatter is seen from two classes with two rows, or one with three, and there are "
        "not so many: all directions are taken to be alike, which leaves little more than the nearest class mean. "
        "For a covariance give more samples of a class, or set groups to more, so that clients send more rows."
    )
