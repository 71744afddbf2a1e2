r"""How to spend a number of bytes on class means: how many groups per class, and how fine a step.

Every row, times sqrt(n), is a sample of covariance :math:`\Sigma + q I`, where q = step^2 / 12 is the same for all
rows. K rows estimate :math:`\Sigma`, once q I is taken off, with the relative variance

.. math:: \frac1K \Big(\frac1d \sum_i \frac{\lambda_i + q}{\lambda_i}\Big)^2 = \frac{(1 + h\,q/\sigma^2)^2}{K},
          \qquad \sigma^2 = \frac1d\sum_i \lambda_i,\quad h = \frac{\sigma^2}{d} \sum_i \frac1{\lambda_i}

in the mean over pairs of eigendirections. More groups make K larger, a coarser step pays for them: the plan is the
pair of both, within the budget, for which this is least. It needs the client's own samples only, and no test data.

An exponent p on K, for heads that take more from the rows than a pooled covariance, was tried: between 0.5 and 2 it
moved the quadratic head's accuracy by no more than seeds do (docs/results.md), so there is one rule for all heads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedcof.errors import UserError
from fedcof.statistics.class_means import ClassMeans, class_means
from fedcof.wire.coded_means import write_class_means, write_scaled
from fedcof.wire.coded_rows import ScaledRows
from fedcof.wire.upload_price import UploadPrice

# h above: an arithmetic over a harmonic mean of eigenvalues. A client has too few samples to tell its own; 3.2 was
# measured on CIFAR-100, and the plan hardly depends on it.
SPECTRUM = 4.0
# A finer step than this would change the error above by less than 2 %, so bytes are left over instead.
SMALLEST_NOISE = 0.002
# Rounding noise of this many times the sampling noise is as good as no upload.
LARGEST_NOISE = 16.0
LARGEST_RATIO_OF_GROUPS = 1.25
BISECTIONS = 16
MOST_ATTEMPTS = 8
# Sizes are predicted to about half a per cent: most streams then fit at once, and need not be written twice.
MARGIN = 0.996
# The surplus of rows over their expected size, before that of a client's own is known; measured, 1.03 to 1.06.
USUAL_SURPLUS = 1.04

RowsOf = Callable[[int], ClassMeans]
SizesOf = Callable[[NDArray[np.float64]], NDArray[np.float64]]


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
        squares = _squares(exact - means.means.to(torch.float64)[inside]) / degrees
    elif len(labels) > 1:
        squares = _squares(exact - exact.mean(dim=0)) / (len(labels) - 1)
    else:
        squares = 0.0
    size = _squares(exact) / max(len(labels), 1)
    # Samples that are all alike still need a step above 0.
    squares = max(squares, 1e-12 * size) if squares else size
    return float(np.sqrt(squares / max(features.shape[1], 1))) or 1.0


def _squares(numbers: Tensor) -> float:
    return float(torch.linalg.vector_norm(numbers)) ** 2


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
    planner = _Planner(rows_of, features, labels)
    plan = planner.best(num_bytes)
    if plan is None:
        raise planner.too_few(num_bytes)
    return plan


def write_within_budget(
    rows_of: RowsOf,
    features: Tensor,
    labels: Tensor,
    num_bytes: int,
    dither_seed: int,
    around: int = 0,
) -> tuple[UploadPlan, NDArray[np.uint8]]:
    """Plan an upload and write it, never above the budget.

    Parameters
    ----------
    rows_of, features, labels
        See :func:`plan_upload`.
    num_bytes : int
        Bytes for the whole message.
    dither_seed : int
        Seed of the dither.
    around : int
        Bytes of the message beside the stream.

    Returns
    -------
    plan : UploadPlan
        What was chosen.
    stream : ndarray of shape (bytes,), uint8
        As :func:`fedcof.wire.coded_means.write_class_means` makes it; at most ``num_bytes - around`` long.

    Raises
    ------
    UserError
        If the budget is too small for one row per class.
    """
    if not len(labels):
        return UploadPlan(1, 1.0, 0.0, 0.0), write_class_means(rows_of(1), 1.0, dither_seed)
    planner = _Planner(rows_of, features, labels)
    room = num_bytes - around
    target = MARGIN * room
    plan = planner.best(target)
    for _ in range(MOST_ATTEMPTS):
        if plan is None:
            break
        stream = write_scaled(planner.means(plan.groups), planner.rows(plan.groups), plan.step, dither_seed)
        if len(stream) <= room:
            return plan, stream
        # The prediction was low by this much; the rest is for what changes with the step.
        target *= MARGIN * room / len(stream)
        plan = planner.finest(plan.groups, target) or planner.best(target)
    raise planner.too_few(num_bytes, around)


class _Planner:
    """Plans the upload of one client, and measures nothing twice.

    Attributes
    ----------
    means, rows : callable
        Take a number of groups, and give the rows that would be sent, as they are and ready to be rounded.
    """

    def __init__(self, rows_of: RowsOf, features: Tensor, labels: Tensor) -> None:
        self.means = cache(rows_of)
        self.rows = cache(lambda groups: ScaledRows.of(self.means(groups)))
        self._deviation = within_class_deviation(features, labels)
        self._groups = np.array(list(_numbers_of_groups(labels)))
        self._price = UploadPrice.of(self.means(2), self.rows(2), labels)
        self._surplus: dict[int, float] = {}

    def best(self, num_bytes: float) -> UploadPlan | None:
        """Find the plan of least error whose predicted size fits; None if none does."""
        if self._price is None:
            return self._best_by_trial(num_bytes)
        noises = _finest_noises(self._sizes_by_price, len(self._groups), num_bytes)
        num_rows = self._price.num_rows(self._groups)
        errors = self._error(noises, num_rows)
        for place in np.argsort(errors, kind="stable")[: np.isfinite(noises).sum()]:
            groups = int(self._groups[place])
            if self.means(groups).num_rows != num_rows[place]:
                return self._best_by_trial(num_bytes)
            if plan := self.finest(groups, num_bytes):
                return plan
        return self.finest(1, num_bytes)

    def finest(self, groups: int, num_bytes: float) -> UploadPlan | None:
        """Find the finest step of a number of groups whose predicted size fits; None if none does."""
        if groups not in self._surplus:
            near = self._finest(groups, num_bytes, USUAL_SURPLUS)
            step = near.step if near else step_of(LARGEST_NOISE, self._deviation)
            self._surplus[groups] = self.rows(groups).surplus(step)
        return self._finest(groups, num_bytes, self._surplus[groups])

    def too_few(self, num_bytes: float, around: int = 0) -> UserError:
        """Make the error for a budget that nothing fits into, which says what would."""
        step = step_of(LARGEST_NOISE, self._deviation)
        least = around + self.rows(1).expected_bytes(step, self.rows(1).surplus(step))
        return UserError(
            f"{num_bytes:,.0f} bytes are too few for this client's {self.means(1).num_rows} classes: "
            f"give at least {1.05 * least:,.0f}."
        )

    def _best_by_trial(self, num_bytes: float) -> UploadPlan | None:
        """Try ever more groups until the error rises: where rows are withheld, nothing tells how many there are."""
        best, lowest = 1, np.inf
        for groups in map(int, self._groups):
            plan = self._finest(groups, num_bytes, USUAL_SURPLUS)
            if plan is None:
                break
            error = float(self._error(np.array(plan.noise), np.array(self.means(groups).num_rows)))
            if error >= lowest:
                break
            best, lowest = groups, error
        return self.finest(best, num_bytes)

    def _finest(self, groups: int, num_bytes: float, surplus: float) -> UploadPlan | None:
        rows = self.rows(groups)

        def sizes(noises: NDArray[np.float64]) -> NDArray[np.float64]:
            return np.array([rows.expected_bytes(step_of(noise, self._deviation), surplus) for noise in noises])

        (noise,) = _finest_noises(sizes, 1, num_bytes).tolist()
        if not np.isfinite(noise):
            return None
        step = step_of(noise, self._deviation)
        return UploadPlan(groups, step, noise, rows.expected_bytes(step, surplus))

    def _sizes_by_price(self, noises: NDArray[np.float64]) -> NDArray[np.float64]:
        assert self._price is not None
        return self._price.num_bytes(self._groups, np.sqrt(12 * noises) * self._deviation, USUAL_SURPLUS)

    def _error(self, noises: NDArray[np.float64], num_rows: NDArray[np.int64]) -> NDArray[np.float64]:
        error: NDArray[np.float64] = (1 + SPECTRUM * noises) ** 2 / np.maximum(num_rows, 1)
        return error


def _numbers_of_groups(labels: Tensor) -> Iterator[int]:
    """List 1, 2, 3, ... in ever larger strides, up to one row per sample."""
    most = int(labels.to(torch.int64).bincount().max()) if len(labels) else 1
    groups = 1
    while groups < most:
        yield groups
        groups = max(groups + 1, int(groups * LARGEST_RATIO_OF_GROUPS))
    yield most


def _finest_noises(sizes: SizesOf, number: int, num_bytes: float) -> NDArray[np.float64]:
    """Find the least noises whose sizes fit, by bisection of their logarithms; infinite where none does."""
    coarse, fine = (np.full(number, np.log(noise)) for noise in (LARGEST_NOISE, SMALLEST_NOISE))
    possible = sizes(np.exp(coarse)) <= num_bytes
    for _ in range(BISECTIONS):
        middle = (coarse + fine) / 2
        fits = sizes(np.exp(middle)) <= num_bytes
        coarse, fine = np.where(fits, middle, coarse), np.where(fits, fine, middle)
    return np.where(possible, np.exp(coarse), np.inf)
