r"""How to spend a number of bytes on class means: how many groups per class, and how fine a step.

Every row, times sqrt(n), is a sample of covariance :math:`\Sigma + q I`, where q = step^2 / 12 is the same for all
rows. K rows estimate :math:`\Sigma`, once q I is taken off, with the relative variance

.. math:: \frac1K \Big(\frac1d \sum_i \frac{\lambda_i + q}{\lambda_i}\Big)^2 = \frac{(1 + h\,q/\sigma^2)^2}{K},
          \qquad \sigma^2 = \frac1d\sum_i \lambda_i,\quad h = \frac{\sigma^2}{d} \sum_i \frac1{\lambda_i}

in the mean over pairs of eigendirections. More groups make K larger, a coarser step pays for them: the plan is the
pair of both, within the budget, for which this is least. It needs the client's own samples only, and no test data.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedcof.errors import UserError
from fedcof.statistics.class_means import ClassMeans, class_means
from fedcof.wire.coded_means import write_class_means
from fedcof.wire.coded_rows import ScaledRows

# h above: an arithmetic over a harmonic mean of eigenvalues. A client has too few samples to tell its own; 3.2 was
# measured on CIFAR-100, and the plan hardly depends on it.
SPECTRUM = 4.0
# A finer step than this would change the error above by less than 2 %, so bytes are left over instead.
SMALLEST_NOISE = 0.002
# Rounding noise of this many times the sampling noise is as good as no upload.
LARGEST_NOISE = 16.0
LARGEST_RATIO_OF_GROUPS = 1.25
BISECTIONS = 24
MOST_ATTEMPTS = 8

RowsOf = Callable[[int], ClassMeans]


@dataclass(frozen=True)
class UploadPlan:
    """How to send a client's class means.

    Parameters
    ----------
    groups : int
        Rows per class, for :func:`fedcof.class_means`.
    step : float
        Step of a mean of one sample, in the backbone's units, for :func:`fedcof.wire.encoding.encode_class_means`.
    noise : float
        Variance of the rounding noise over that of the sampling noise, step^2 / (12 sigma^2).
    num_bytes : float
        Predicted size.
    """

    groups: int
    step: float
    noise: float
    num_bytes: float


def within_class_deviation(features: Tensor, labels: Tensor) -> float:
    """Estimate the standard deviation of a coordinate within a class, pooled over classes and coordinates.

    Parameters
    ----------
    features : Tensor of shape (n, d), floating point
        Feature vectors of the client's samples.
    labels : Tensor of shape (n,), integer
        Class of each sample.

    Returns
    -------
    float
        In the backbone's units, above 0. Where no class has two samples, the deviation around the client's mean;
        for one sample alone, its root mean square.
    """
    exact = features.to(torch.float64)
    means = class_means(features, labels)
    degrees = len(labels) - means.num_rows
    if degrees > 0:
        inside = torch.searchsorted(means.class_ids, labels.to(torch.int64))
        squares = float((exact - means.means.to(torch.float64)[inside]).square().sum()) / degrees
    elif len(labels) > 1:
        squares = float((exact - exact.mean(dim=0)).square().sum()) / (len(labels) - 1)
    else:
        squares = 0.0
    size = float(exact.square().sum()) / max(len(labels), 1)
    # Samples that are all alike still need a step above 0.
    squares = max(squares, 1e-12 * size) if squares else size
    return float(np.sqrt(squares / max(features.shape[1], 1))) or 1.0


def step_of(noise: float, deviation: float) -> float:
    """Give the step whose rounding noise is a share of the sampling noise.

    Parameters
    ----------
    noise : float
        Variance of the rounding noise over that of the sampling noise, above 0.
    deviation : float
        Standard deviation of a coordinate within a class, in the backbone's units.

    Returns
    -------
    float
        Step of a mean of one sample, in the backbone's units.
    """
    return float(np.sqrt(12 * noise)) * deviation


def plan_upload(rows_of: RowsOf, features: Tensor, labels: Tensor, num_bytes: float) -> UploadPlan:
    """Choose groups and step so that a number of bytes is spent best.

    Parameters
    ----------
    rows_of : callable
        Takes a number of groups, and gives the rows that would be sent.
    features : Tensor of shape (n, d), floating point
        Feature vectors of the client's samples, at least one.
    labels : Tensor of shape (n,), integer
        Class of each sample.
    num_bytes : float
        Bytes for the numbers of the whole upload, without the message around them.

    Returns
    -------
    UploadPlan
        Predicted to be within the budget; within a few per cent of it unless there is nothing left to gain.

    Raises
    ------
    UserError
        If not even the coarsest step of one group fits.
    """
    deviation = within_class_deviation(features, labels)
    best: UploadPlan | None = None
    lowest = float("inf")
    for groups in _numbers_of_groups(labels):
        means = rows_of(groups)
        rows = ScaledRows.of(means)
        plan = _finest_within(rows, groups, deviation, num_bytes)
        if plan is None:
            break
        error = (1 + SPECTRUM * plan.noise) ** 2 / max(means.num_rows, 1)
        if error >= lowest:
            break
        best, lowest = plan, error
    if best is None:
        means = rows_of(1)
        least = ScaledRows.of(means).expected_bytes(step_of(LARGEST_NOISE, deviation))
        raise UserError(
            f"{num_bytes:,.0f} bytes are too few for this client's {means.num_rows} classes: "
            f"give at least {1.05 * least:,.0f}."
        )
    return best


def write_within_budget(
    rows_of: RowsOf, features: Tensor, labels: Tensor, num_bytes: int, dither_seed: int
) -> tuple[UploadPlan, NDArray[np.uint8]]:
    """Plan an upload and write it, never above the budget.

    Parameters
    ----------
    rows_of : callable
        Takes a number of groups, and gives the rows that would be sent.
    features : Tensor of shape (n, d), floating point
        Feature vectors of the client's samples.
    labels : Tensor of shape (n,), integer
        Class of each sample.
    num_bytes : int
        Bytes for the numbers of the whole upload, without the message around them.
    dither_seed : int
        Seed of the dither.

    Returns
    -------
    plan : UploadPlan
        What was chosen.
    stream : ndarray of shape (bytes,), uint8
        As :func:`fedcof.wire.coded_means.write_class_means` makes it.

    Raises
    ------
    UserError
        If the budget is too small for one row per class.
    """
    if not len(labels):
        return UploadPlan(1, 1.0, 0.0, 0.0), write_class_means(rows_of(1), 1.0, dither_seed)
    target = float(num_bytes)
    for _ in range(MOST_ATTEMPTS):
        plan = plan_upload(rows_of, features, labels, target)
        stream = write_class_means(rows_of(plan.groups), plan.step, dither_seed)
        if len(stream) <= num_bytes:
            return plan, stream
        # The prediction was low by this much; the rest is for what changes with the step.
        target *= 0.998 * num_bytes / len(stream)
    raise UserError(f"{num_bytes:,} bytes are too few for this client's classes: give more.")


def _numbers_of_groups(labels: Tensor) -> Iterator[int]:
    """List 1, 2, 3, ... in ever larger strides, up to one row per sample."""
    most = int(labels.to(torch.int64).bincount().max()) if len(labels) else 1
    groups = 1
    while groups < most:
        yield groups
        groups = max(groups + 1, int(groups * LARGEST_RATIO_OF_GROUPS))
    yield most


def _finest_within(rows: ScaledRows, groups: int, deviation: float, num_bytes: float) -> UploadPlan | None:
    """Find the finest step whose predicted size fits, by bisection of the noise's logarithm; None if none does."""
    coarse, fine = np.log(LARGEST_NOISE), np.log(SMALLEST_NOISE)
    if rows.expected_bytes(step_of(LARGEST_NOISE, deviation)) > num_bytes:
        return None
    for _ in range(BISECTIONS):
        middle = (coarse + fine) / 2
        if rows.expected_bytes(step_of(np.exp(middle), deviation)) <= num_bytes:
            coarse = middle
        else:
            fine = middle
    step = step_of(np.exp(coarse), deviation)
    return UploadPlan(groups, step, float(np.exp(coarse)), rows.expected_bytes(step))
