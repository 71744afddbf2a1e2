r"""The within-class covariance, rebuilt without bias from how class means scatter between rows.

The mean of n samples of class c has covariance :math:`\Sigma_c / n`. So, for the :math:`K_c` rows of class c,

.. math:: S_c = \frac{1}{K_c - 1} \sum_{r \in c} n_r (m_r - \mu_c)(m_r - \mu_c)^T, \qquad E[S_c] = \Sigma_c

(FedCOF, arXiv 2412.14326). Everything below is one weighted product :math:`X^T X` over rows; no
matrix is ever made per class.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor

from fedcof.covariance.blocks import (
    class_sums,
    classes_of_block,
    decode_block,
    noise_of_block,
    row_blocks,
)
from fedcof.covariance.choices import LEDOIT_WOLF, POOLED
from fedcof.covariance.estimators import class_weights_of, row_weights_of
from fedcof.covariance.totals import ClassTotals, class_counts, class_totals
from fedcof.statistics.class_means import ClassMeanRows

COLUMNS_PER_TILE = 256

# Rows between 2^-40 and 2^40 have sums of products that are far within float32's range.
LARGEST_EXPONENT_TO_SQUARE = 40


# Beyond this ratio of the covariance's norm to gamma, float32 products moved the classifier by more than 1e-4.
LARGEST_SPECTRUM_IN_FLOAT32 = 2e4


class ScatterSum:
    r"""A sum of weighted scatters that takes rows in as they come, in one pass and flat memory.

    Rows are centred on a centre a_c of their class that is fixed when the class is first seen: its row of most
    samples. What that adds is taken off at the end,

    .. math:: \sum_r n_r (m_r - \mu_c)(m_r - \mu_c)^T = \sum_r n_r (m_r - a_c)(m_r - a_c)^T
              - N_c (\mu_c - a_c)(\mu_c - a_c)^T

    and is at most about as large as the scatter where the rows of a class come together, so that no digits are
    lost. Rows of float32 or less are multiplied in float32 a block at a time and summed over the blocks in
    float64; rows of float64 are handled in float64 throughout.

    Parameters
    ----------
    num_classes : int
        Number of classes C.
    feature_dim : int
        Dimension d of the feature vectors.
    row_weights : Tensor of shape (C,), float64, optional
        Weight of the rows of each class; without it all weigh 1.
    totals : ClassTotals, optional
        What all rows add up to, where it is known: rows are then centred on the class means, and the sum of the
        rows' fourth powers is kept for Ledoit-Wolf.
    exact : bool
        Whether to handle all rows in float64.

    Attributes
    ----------
    exact : bool
        Whether all rows so far were handled in float64.
    fourth_moment : float
        Sum of the rows' fourth powers, where the totals were given.
    """

    def __init__(
        self,
        num_classes: int,
        feature_dim: int,
        row_weights: Tensor | None = None,
        totals: ClassTotals | None = None,
        exact: bool = False,
    ) -> None:
        def zeros(*shape: int) -> Tensor:
            return torch.zeros(shape, dtype=torch.float64)

        self._in_float64 = exact
        self.exact = True
        self.fourth_moment = 0.0
        self._row_weights = row_weights
        self._centred = torch.full((num_classes,), totals is not None)
        self._centres = zeros(num_classes, feature_dim) if totals is None else totals.means
        self._class_counts = None if totals is None else totals.counts
        self._counts, self._rows = zeros(num_classes), zeros(num_classes)
        self._noise = zeros(num_classes, 2)
        self._sums = zeros(num_classes, feature_dim)
        self._products = zeros(feature_dim, feature_dim)

    def add(self, uploads: Sequence[ClassMeanRows]) -> Self:
        """Add rows, in the order given.

        Parameters
        ----------
        uploads : sequence of ClassMeans or EncodedClassMeans
            Read block by block; never decoded or put together as a whole.

        Returns
        -------
        ScatterSum
            This sum itself.
        """
        self._centre_new_classes(uploads)
        buffers: dict[torch.dtype, Tensor] = {}
        for block in row_blocks(uploads):
            ids, counts = classes_of_block(block)
            self._add_counts(ids, counts, noise_of_block(block))
            rows = decode_block(block, buffers, self._in_float64)
            self.exact = self.exact and rows.dtype == torch.float64
            self._add_rows(rows, ids, counts)
        return self

    def norm(self) -> float:
        """Bound the Frobenius norm of the scatter, within a small factor and without finishing the sum."""
        return float(torch.linalg.matrix_norm(self._products)) * 2**0.5

    def copy(self) -> ScatterSum:
        """Copy the sum, so that the copy can go on alone."""
        other = ScatterSum.__new__(ScatterSum)
        for name, value in vars(self).items():
            setattr(other, name, value.clone() if isinstance(value, Tensor) else value)
        return other

    def totals(self) -> ClassTotals:
        """Add the rows of each class up; see :func:`class_totals`."""
        means = (self._centres + self._offsets()) * (self._counts > 0)[:, None]
        return ClassTotals(counts=self._counts, rows=self._rows, means=means)

    def scatter(self) -> Tensor:
        """Compute the weighted scatter around the class means: shape (d, d), float64, symmetric."""
        weights = self._counts if self._row_weights is None else self._counts * self._row_weights
        upper = self._products.clone()
        _add_product(upper, self._offsets().mul_(weights.sqrt()[:, None]), factor=-1.0)
        upper.triu_()
        diagonal = upper.diagonal().clone()
        upper += upper.T.clone()
        upper.diagonal().copy_(diagonal)
        return upper

    def noise_on_diagonal(self, class_weights: Tensor) -> float:
        """Compute the expected excess on the diagonal: sum_c weight_c (sum n_r v_r - sum n_r^2 v_r / N_c)."""
        noise, left_by_centring = self._noise.unbind(dim=1)
        return float((class_weights * (noise - left_by_centring / self._counts.clamp(min=1))).sum())

    def _offsets(self) -> Tensor:
        """mu_c - a_c: shape (C, d)."""
        return self._sums / self._counts.clamp(min=1)[:, None]

    def _centre_new_classes(self, uploads: Sequence[ClassMeanRows]) -> None:
        if bool(self._centred.all()):
            return
        class_ids = torch.cat([upload.class_ids for upload in uploads])
        counts = torch.cat([upload.counts for upload in uploads])
        ends = torch.tensor([upload.num_rows for upload in uploads]).cumsum(0)
        by_count = torch.argsort(counts, descending=True, stable=True)
        by_class = by_count[torch.argsort(class_ids[by_count], stable=True)]
        classes, sizes = torch.unique_consecutive(class_ids[by_class], return_counts=True)
        largest = by_class[sizes.cumsum(0) - sizes]
        holders = torch.searchsorted(ends, largest, right=True)
        for class_id, holder, row in zip(classes.tolist(), holders.tolist(), largest.tolist(), strict=True):
            if not self._centred[class_id]:
                upload = uploads[holder]
                within = row - int(ends[holder]) + upload.num_rows
                self._centres[class_id] = upload.rows(slice(within, within + 1))[0]
                self._centred[class_id] = True

    def _add_counts(self, ids: Tensor, counts: Tensor, noise: Tensor) -> None:
        self._counts.index_add_(0, ids, counts)
        self._rows += torch.bincount(ids, minlength=len(self._rows))
        weighted = counts * noise
        self._noise.index_add_(0, ids, torch.stack([weighted, counts * weighted], dim=1))

    def _add_rows(self, rows: Tensor, ids: Tensor, counts: Tensor) -> None:
        rows -= self._centres.to(rows.dtype).index_select(0, ids)
        self._sums += class_sums(rows, ids, counts, len(self._rows))
        weights = counts if self._row_weights is None else counts * self._row_weights[ids]
        rows *= weights.sqrt().to(rows.dtype)[:, None]
        square = _bring_near_one(rows)
        if self._class_counts is not None:
            # A row pulls its own class mean along, so what it is off by has 1 - n_r / N_c of a row's covariance.
            freedom = (1 - counts / self._class_counts[ids]).clamp(min=torch.finfo(torch.float64).eps)
            fourth_powers = torch.linalg.vector_norm(rows, dim=1).to(torch.float64).pow(4)
            self.fourth_moment += float((fourth_powers / freedom).sum()) * square**2
        _add_product(self._products, rows, square)


def sum_scatter(
    uploads: Sequence[ClassMeanRows],
    num_classes: int,
    estimator: str,
    shrinkage: float | str,
    exact: bool = False,
) -> ScatterSum:
    """Sum the scatter of all rows: in one pass, or two for Ledoit-Wolf's fourth moments around the class means.

    Where gamma is so small against the spectrum that float32 would cost digits, the sum is taken again in float64.

    Parameters
    ----------
    uploads : sequence of ClassMeans or EncodedClassMeans
        All rows.
    num_classes : int
        Number of classes C.
    estimator, shrinkage
        See :func:`fedcof.covariance.shrunk.shrunk_scatter`.
    exact : bool
        Whether to handle all rows in float64 from the start.

    Returns
    -------
    ScatterSum
        For :func:`shrunk_scatter`.
    """
    weights = row_weights_of(estimator, class_weights_of(class_counts(uploads, num_classes), estimator))
    totals = class_totals(uploads, num_classes) if shrinkage == LEDOIT_WOLF else None
    dim = uploads[0].feature_dim
    scatter_sum = ScatterSum(num_classes, dim, weights, totals, exact).add(uploads)
    if exact or _float32_suffices(scatter_sum, estimator, shrinkage):
        return scatter_sum
    return ScatterSum(num_classes, dim, weights, totals, exact=True).add(uploads)


def _float32_suffices(scatter_sum: ScatterSum, estimator: str, shrinkage: float | str) -> bool:
    """Tell whether gamma keeps the system's condition within what float32 products bear."""
    if isinstance(shrinkage, str):
        return True
    totals = scatter_sum.totals()
    pooled = estimator == POOLED
    degrees = totals.row_degrees_of_freedom if pooled else totals.sample_degrees_of_freedom
    return scatter_sum.norm() <= LARGEST_SPECTRUM_IN_FLOAT32 * shrinkage * float(degrees.sum())


def _bring_near_one(rows: Tensor) -> float:
    """Divide by a power of two, in place, rows whose squares float32 might not hold; gives that power's square."""
    _, exponent = math.frexp(float(rows.abs().max())) if rows.numel() else (0.0, 0)
    if abs(exponent) <= LARGEST_EXPONENT_TO_SQUARE:
        return 1.0
    rows.mul_(2.0**-exponent)
    return 4.0**exponent


def _add_product(target: Tensor, rows: Tensor, factor: float = 1.0) -> None:
    """Add a multiple of X^T X to the upper triangle; what the tiles on the diagonal leave below it is of no use."""
    for first in range(0, len(target), COLUMNS_PER_TILE):
        tile = slice(first, first + COLUMNS_PER_TILE)
        target[tile, first:].add_(rows[:, tile].T @ rows[:, first:], alpha=factor)
