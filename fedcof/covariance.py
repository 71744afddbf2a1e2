r"""The within-class covariance, rebuilt without bias from how class means scatter between rows.

The mean of n samples of class c has covariance :math:`\Sigma_c / n`. So, for the :math:`K_c` rows of class c,

.. math:: S_c = \frac{1}{K_c - 1} \sum_{r \in c} n_r (m_r - \mu_c)(m_r - \mu_c)^T, \qquad E[S_c] = \Sigma_c

(FedCOF, arXiv 2412.14326). Everything below is one weighted product :math:`X^T X` over rows; no
matrix is ever made per class.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from fedcof.errors import UserError, unknown_name
from fedcof.shrinkage import LEDOIT_WOLF, Evidence, check_shrinkage, shrinkage_amount
from fedcof.statistics import ClassMeanRows

ESTIMATORS = ["per-class", "pooled"]

ROWS_PER_BLOCK = 4096
COLUMNS_PER_TILE = 256
MOST_HALVINGS = 8
# Beyond this ratio of the covariance's norm to gamma, float32 products moved the classifier by more than 1e-4.
LARGEST_SPECTRUM_IN_FLOAT32 = 2e4
# The smaller system loses about this number of times the machine's epsilon.
LARGEST_SPECTRUM_TO_SHRINKAGE = 1e8


@dataclass(frozen=True, eq=False)
class ClassCounts:
    """How many samples and rows each class has.

    Attributes
    ----------
    counts : Tensor of shape (C,), float64
        Number of samples N_c; zero for a class that nobody has.
    rows : Tensor of shape (C,), float64
        Number of rows K_c.
    """

    counts: Tensor
    rows: Tensor

    @property
    def present(self) -> Tensor:
        """Which classes somebody has: shape (C,), bool."""
        return self.counts > 0

    @property
    def num_samples(self) -> float:
        """Number of samples N of all classes."""
        return float(self.counts.sum())

    @property
    def sample_degrees_of_freedom(self) -> Tensor:
        """N_c - 1, and zero for a class that nobody has: shape (C,), float64."""
        return (self.counts - 1).clamp(min=0)

    @property
    def row_degrees_of_freedom(self) -> Tensor:
        """K_c - 1, and zero for a class that nobody has: shape (C,), float64."""
        return (self.rows - 1).clamp(min=0)


@dataclass(frozen=True, eq=False)
class ClassTotals(ClassCounts):
    """What all rows of each class add up to.

    Attributes
    ----------
    means : Tensor of shape (C, d), float64
        Class means mu_c; zero for a class that nobody has.
    """

    means: Tensor

    @property
    def global_mean(self) -> Tensor:
        """Mean mu of all samples: shape (d,), float64."""
        return self.counts @ self.means / self.counts.sum()


@dataclass(frozen=True, eq=False)
class FactoredScatter:
    """A within-class scatter X^T X + ridge I whose rows are fewer than its dimension.

    Attributes
    ----------
    factor : Tensor of shape (R, d), float64
        Weighted residuals X.
    ridge : float
        Multiple of the identity, above 0.
    """

    factor: Tensor
    ridge: float


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
    device : str
        Where to compute.
    exact : bool
        Whether to handle all rows in float64.
    """

    def __init__(
        self,
        num_classes: int,
        feature_dim: int,
        row_weights: Tensor | None = None,
        totals: ClassTotals | None = None,
        device: str = "cpu",
        exact: bool = False,
    ) -> None:
        def zeros(*shape: int) -> Tensor:
            return torch.zeros(shape, dtype=torch.float64, device=device)

        self.device = device
        self.exact = exact
        self.fourth_moment = 0.0
        self._row_weights = None if row_weights is None else row_weights.to(device)
        self._centred = torch.full((num_classes,), totals is not None)
        self._centres = zeros(num_classes, feature_dim) if totals is None else totals.means.to(device)
        self._class_counts = None if totals is None else totals.counts.to(device)
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
        for block in _blocks(uploads):
            rows = _decode(block, buffers, self.exact).to(self.device)
            ids, counts = (tensor.to(self.device) for tensor in _classes_of(block))
            self._add_counts(ids, counts, _noise_of(block).to(self.device))
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
        _add_product(upper, self._offsets().mul_(weights.sqrt()[:, None]), sign=-1)
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
                self._centres[class_id] = upload.rows(slice(within, within + 1))[0].to(self.device)
                self._centred[class_id] = True

    def _add_counts(self, ids: Tensor, counts: Tensor, noise: Tensor) -> None:
        self._counts.index_add_(0, ids, counts)
        self._rows += torch.bincount(ids, minlength=len(self._rows))
        weighted = counts * noise
        self._noise.index_add_(0, ids, torch.stack([weighted, counts * weighted], dim=1))

    def _add_rows(self, rows: Tensor, ids: Tensor, counts: Tensor) -> None:
        rows -= self._centres.to(rows.dtype).index_select(0, ids)
        self._sums += _class_sums(rows, ids, counts, len(self._rows))
        weights = counts if self._row_weights is None else counts * self._row_weights[ids]
        rows *= weights.sqrt().to(rows.dtype)[:, None]
        if self._class_counts is not None:
            # A row pulls its own class mean along, so what it is off by has 1 - n_r / N_c of a row's covariance.
            freedom = (1 - counts / self._class_counts[ids]).clamp(min=torch.finfo(torch.float64).eps)
            fourth_powers = torch.linalg.vector_norm(rows, dim=1).to(torch.float64).pow(4)
            self.fourth_moment += float((fourth_powers / freedom).sum())
        _add_product(self._products, rows)


def class_totals(uploads: ClassMeanRows | Sequence[ClassMeanRows], num_classes: int) -> ClassTotals:
    """Add the rows of each class up.

    Parameters
    ----------
    uploads : ClassMeans or EncodedClassMeans, or a sequence of them
        All rows, R of them.
    num_classes : int
        Number of classes C.

    Returns
    -------
    ClassTotals
        Counts, means and numbers of rows per class.
    """
    uploads = _as_sequence(uploads)
    totals = class_counts(uploads, num_classes)
    sums = torch.zeros(num_classes, uploads[0].feature_dim, dtype=torch.float64)
    buffers: dict[torch.dtype, Tensor] = {}
    for block in _blocks(uploads):
        sums += _class_sums(_decode(block, buffers), *_classes_of(block), num_classes)
    return ClassTotals(counts=totals.counts, rows=totals.rows, means=sums / totals.counts.clamp(min=1)[:, None])


def class_counts(uploads: Sequence[ClassMeanRows], num_classes: int) -> ClassCounts:
    """Count the samples and rows of each class, without a look at the means.

    Parameters
    ----------
    uploads : sequence of ClassMeans or EncodedClassMeans
        All rows.
    num_classes : int
        Number of classes C.

    Returns
    -------
    ClassCounts
        Samples and rows per class.
    """
    ids = torch.cat([upload.class_ids for upload in uploads])
    counts = torch.cat([upload.counts for upload in uploads]).to(torch.float64)
    return ClassCounts(
        counts=torch.zeros(num_classes, dtype=torch.float64).index_add_(0, ids, counts),
        rows=torch.bincount(ids, minlength=num_classes).to(torch.float64),
    )


def within_class_scatter(
    uploads: ClassMeanRows | Sequence[ClassMeanRows],
    totals: ClassTotals,
    estimator: str = "per-class",
    shrinkage: float | str = 1.0,
    device: str = "cpu",
) -> Tensor:
    r"""Rebuild the within-class scatter of all samples from class means.

    ``per-class`` is the paper's estimator, :math:`W = \sum_c (N_c - 1)(S_c + \gamma I)` (arXiv 2412.14326);
    ``pooled`` takes one covariance for all classes, so that classes with many rows speak for those
    with few. In both a class with one row adds no scatter of its own.

    Parameters
    ----------
    uploads : ClassMeans or EncodedClassMeans, or a sequence of them
        All rows, R of them.
    totals : ClassTotals
        The same rows added up by :func:`class_totals`.
    estimator : {"per-class", "pooled"}
        How the classes' scatter is put together.
    shrinkage : float or {"leave-one-out", "ledoit-wolf", "oas"}
        Gamma, in squared feature units; or an estimator of the amount from the rows themselves.
    device : str
        Where to compute, as PyTorch names it.

    Returns
    -------
    Tensor of shape (d, d), float64
        The scatter W, symmetric.

    Raises
    ------
    UserError
        If a name is unknown, gamma is negative, or the shrinkage cannot be estimated from so few rows.
    """
    check_shrinkage(shrinkage)
    row_weights = _class_weights(totals, estimator)
    num_classes, dim = totals.means.shape
    scatter_sum = ScatterSum(num_classes, dim, _row_weights_of(estimator, row_weights), totals, device)
    return shrunk_scatter(scatter_sum.add(_as_sequence(uploads)), estimator, shrinkage)


def sum_scatter(
    uploads: Sequence[ClassMeanRows],
    num_classes: int,
    estimator: str,
    shrinkage: float | str,
    device: str = "cpu",
) -> ScatterSum:
    """Sum the scatter of all rows: in one pass, or two for Ledoit-Wolf's fourth moments around the class means.

    Where gamma is so small against the spectrum that float32 would cost digits, the sum is taken again in float64.

    Parameters
    ----------
    uploads : sequence of ClassMeans or EncodedClassMeans
        All rows.
    num_classes : int
        Number of classes C.
    estimator, shrinkage, device
        See :func:`within_class_scatter`.

    Returns
    -------
    ScatterSum
        For :func:`shrunk_scatter`.
    """
    weights = _row_weights_of(estimator, _class_weights(class_counts(uploads, num_classes), estimator))
    totals = class_totals(uploads, num_classes) if shrinkage == LEDOIT_WOLF else None
    dim = uploads[0].feature_dim
    scatter_sum = ScatterSum(num_classes, dim, weights, totals, device).add(uploads)
    if _float32_suffices(scatter_sum, estimator, shrinkage):
        return scatter_sum
    return ScatterSum(num_classes, dim, weights, totals, device, exact=True).add(uploads)


def _float32_suffices(scatter_sum: ScatterSum, estimator: str, shrinkage: float | str) -> bool:
    """Tell whether gamma keeps the system's condition within what float32 products bear."""
    if isinstance(shrinkage, str):
        return True
    totals = scatter_sum.totals()
    pooled = estimator == "pooled"
    degrees = totals.row_degrees_of_freedom if pooled else totals.sample_degrees_of_freedom
    return scatter_sum.norm() <= LARGEST_SPECTRUM_IN_FLOAT32 * shrinkage * float(degrees.sum())


def shrunk_scatter(scatter_sum: ScatterSum, estimator: str, shrinkage: float | str) -> Tensor:
    """Finish the within-class scatter: weigh it, shrink it and take known noise off.

    Parameters
    ----------
    scatter_sum : ScatterSum
        All rows, weighted by class for ``per-class`` and unweighted for ``pooled``. For ``ledoit-wolf`` it must
        have been centred on the class means.
    estimator, shrinkage
        See :func:`within_class_scatter`.

    Returns
    -------
    Tensor of shape (d, d), float64
        The scatter W, symmetric.

    Raises
    ------
    UserError
        If the shrinkage cannot be estimated from so few rows.
    """
    totals = scatter_sum.totals()
    class_weights = _class_weights(totals, estimator)
    scale = float(class_weights[0]) if estimator == "pooled" else 1.0
    scatter = scatter_sum.scatter().mul_(scale)
    _shrink(scatter, totals, shrinkage, class_weights, scatter_sum.fourth_moment * scale**2)
    noise = scatter_sum.noise_on_diagonal(class_weights)
    if noise > 0:
        _subtract_noise(scatter, noise)
    return scatter


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
        See :func:`within_class_scatter`.

    Returns
    -------
    FactoredScatter or None
        None where the smaller system does not pay or would lose digits: R at least d, a shrinkage to be
        estimated, or one that is tiny against the spectrum.
    """
    num_rows, dim = sum(upload.num_rows for upload in uploads), totals.means.shape[1]
    if num_rows >= dim or isinstance(shrinkage, str):
        return None
    weights = _class_weights(totals, estimator)
    block = [(upload, slice(0, upload.num_rows)) for upload in uploads]
    ids, counts = _classes_of(block)
    factor = torch.cat([upload.rows(part).to(torch.float64) for upload, part in block])
    factor.sub_(totals.means[ids]).mul_((weights[ids] * counts).sqrt()[:, None])
    ridge = shrinkage * float(totals.sample_degrees_of_freedom.sum())
    noise = counts * _noise_of(block) * (1 - counts / totals.counts[ids])
    ridge -= _noise_to_subtract(ridge, float((weights[ids] * noise).sum()))
    spectrum = float(factor.square().sum() + totals.num_samples * totals.global_mean.square().sum())
    return FactoredScatter(factor, ridge) if ridge * LARGEST_SPECTRUM_TO_SHRINKAGE > spectrum else None


def _noise_to_subtract(smallest_eigenvalue: float, amount: float) -> float:
    """As :func:`_subtract_noise`, where the smallest eigenvalue is known."""
    for _ in range(MOST_HALVINGS):
        if smallest_eigenvalue > 2 * amount:
            return amount
        amount /= 2
    return 0.0


def _class_weights(totals: ClassCounts, estimator: str) -> Tensor:
    """Weight of the rows of each class, shape (C,): W = sum_r weight_c n_r (m_r - mu_c)(m_r - mu_c)^T."""
    row_degrees = totals.row_degrees_of_freedom
    sample_degrees = totals.sample_degrees_of_freedom
    if estimator == "per-class":
        return torch.where(row_degrees > 0, sample_degrees / row_degrees.clamp(min=1), 0.0)
    if estimator == "pooled":
        return torch.full_like(row_degrees, float(sample_degrees.sum() / row_degrees.sum().clamp(min=1)))
    raise unknown_name("estimator", estimator, ESTIMATORS)


def _row_weights_of(estimator: str, class_weights: Tensor) -> Tensor | None:
    """Weights known before the sum; the one weight of ``pooled`` is put on at its end."""
    return None if estimator == "pooled" else class_weights


def _shrink(
    scatter: Tensor, totals: ClassTotals, shrinkage: float | str, class_weights: Tensor, fourth_moment: float
) -> None:
    """Add the multiple of the identity that the shrinkage asks for, in place."""
    if not isinstance(shrinkage, str):
        scatter.diagonal().add_(shrinkage * float(totals.sample_degrees_of_freedom.sum()))
        return
    row_degrees = totals.row_degrees_of_freedom
    if float(row_degrees.sum()) < 2:
        raise UserError(
            f"The shrinkage {shrinkage} cannot be estimated because it takes two classes with two rows, or one "
            "with three: give a number, or let clients send more groups per class."
        )
    # Classes with one row have no part in the scatter.
    total_weight = float(class_weights @ row_degrees)
    evidence = Evidence(
        degrees=float(row_degrees.sum()),
        effective_degrees=total_weight**2 / float(class_weights.square() @ row_degrees),
        fourth_moment=fourth_moment / total_weight**2,
    )
    amount = shrinkage_amount(scatter / total_weight, evidence, shrinkage)
    mean_eigenvalue = float(scatter.diagonal().mean())
    scatter.mul_(1 - amount).diagonal().add_(amount * mean_eigenvalue)


def _subtract_noise(scatter: Tensor, amount: float) -> None:
    """Take known noise off the diagonal, in place, or as much of it as leaves half of every eigenvalue.

    Noise that is not small against the spectrum does less harm where it is, as shrinkage, than taken away.
    """
    identity = torch.eye(len(scatter), dtype=scatter.dtype, device=scatter.device)
    for _ in range(MOST_HALVINGS):
        if not int(torch.linalg.cholesky_ex(scatter - 2 * amount * identity).info):
            scatter.diagonal().sub_(amount)
            return
        amount /= 2


Block = list[tuple[ClassMeanRows, slice]]


def _as_sequence(uploads: ClassMeanRows | Sequence[ClassMeanRows]) -> Sequence[ClassMeanRows]:
    return uploads if isinstance(uploads, Sequence) else [uploads]


def _blocks(uploads: Sequence[ClassMeanRows]) -> Iterator[Block]:
    """Put the rows of uploads together, in order, into blocks of at most ``ROWS_PER_BLOCK`` rows."""
    block: Block = []
    room = ROWS_PER_BLOCK
    for upload in uploads:
        start = 0
        while start < upload.num_rows:
            stop = min(start + room, upload.num_rows)
            block.append((upload, slice(start, stop)))
            room -= stop - start
            start = stop
            if not room:
                yield block
                block, room = [], ROWS_PER_BLOCK
    if block:
        yield block


def _decode(block: Block, buffers: dict[torch.dtype, Tensor], exact: bool = False) -> Tensor:
    """Decode a block's means into a buffer that the next block of the same type uses again."""
    exact = exact or any(upload.dtype == torch.float64 for upload, _ in block)
    dtype = torch.float64 if exact else torch.float32
    num_rows = sum(part.stop - part.start for _, part in block)
    if dtype not in buffers or len(buffers[dtype]) < num_rows:
        buffers[dtype] = torch.empty(num_rows, block[0][0].feature_dim, dtype=dtype)
    rows = buffers[dtype][:num_rows]
    return torch.cat([upload.rows(part) for upload, part in block], out=rows)


def _classes_of(block: Block) -> tuple[Tensor, Tensor]:
    """Classes (int64) and counts (float64) of a block's rows."""
    ids = torch.cat([upload.class_ids[part] for upload, part in block])
    return ids, torch.cat([upload.counts[part] for upload, part in block]).to(torch.float64)


def _noise_of(block: Block) -> Tensor:
    """Noise variance of a block's rows, float64."""
    return torch.cat(
        [
            torch.zeros(part.stop - part.start, dtype=torch.float64)
            if (noise := upload.noise) is None
            else noise[part].to(torch.float64)
            for upload, part in block
        ]
    )


def _class_sums(rows: Tensor, ids: Tensor, counts: Tensor, num_classes: int) -> Tensor:
    """Sum of n_r times the rows of each class: shape (C, d), in the rows' type."""
    by_class = torch.argsort(ids, stable=True)
    sizes = torch.bincount(ids, minlength=num_classes)
    weights = counts[by_class].to(rows.dtype)
    starts = sizes.cumsum(0) - sizes
    return embedding_bag(by_class, rows, starts, mode="sum", per_sample_weights=weights)


def _add_product(target: Tensor, rows: Tensor, sign: int = 1) -> None:
    """Add X^T X to the upper triangle of the target; what the tiles on the diagonal leave below it is of no use."""
    for first in range(0, len(target), COLUMNS_PER_TILE):
        tile = slice(first, first + COLUMNS_PER_TILE)
        target[tile, first:].add_(rows[:, tile].T @ rows[:, first:], alpha=sign)
