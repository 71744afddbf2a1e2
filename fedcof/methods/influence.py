r"""What each client has done to a classifier: the same one without it, by downdating and not by solving again.

With P the scatter of all rows, weighted by class, the system of the linear heads is
:math:`A = \alpha P + \beta I`, and :math:`+ N \mu \mu^T` for ridge. Without client k, with rows r of class c and
:math:`e_r = m_r - \mu_c`, their mean :math:`\bar e_c` of :math:`n_c` samples, and the class's other N' samples,

.. math:: P_k = P - \sum_r w_c n_r e_r e_r^T - \sum_c w_c \frac{n_c^2}{N'_c} \bar e_c \bar e_c^T

which is of low rank, and class means and counts are updated exactly. In the eigenvectors of P, found once, every
:math:`\alpha_k P + \beta_k I` is diagonal, so that each client costs products of its few rows alone (Woodbury).

Held as they are for the whole federation: the weights :math:`w_c` of ``per-class`` and ``paper``, and the amount of
shrinkage. For ``pooled`` with a number gamma it is therefore the classifier of the other clients, up to rounding.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from fedcof.covariance.blocks import ROWS_PER_BLOCK
from fedcof.covariance.choices import POOLED
from fedcof.covariance.estimators import class_weights_of
from fedcof.covariance.totals import ClassTotals
from fedcof.covariance.unseen import is_unseen
from fedcof.errors import UserError
from fedcof.heads.lda import LDA
from fedcof.heads.linear import unit_length
from fedcof.methods.fedcof import FedCOF
from fedcof.statistics.class_means import ClassMeanRows

# Of the rows of all clients, and of test samples, as many are classified without each of so many clients.
MOST_SAMPLES, MOST_CLASSIFIED = 1000, 100
# Numbers of the classifiers that are solved together: so few that they stay in the cache of a core.
NUMBERS_OF_BATCH = 2**20


@dataclass(frozen=True, eq=False)
class Influence:
    """What each of K clients has done.

    Attributes
    ----------
    sources : list of int
        Numbers of the clients, the one with the largest distance first.
    distances : Tensor of shape (K,), float64
        Frobenius norm of what the weights change by without it, over that of the weights.
    accuracy_of_means : Tensor of shape (K,), float64
        What the accuracy on the other clients' class means gains without it, each weighted by its samples: up to
        1,000 of them, drawn at random. NaN beyond the first 100 clients, which would cost far more than all the
        rest, and where nobody else has any of those.
    accuracy : Tensor of shape (K,), float64, or None
        What the accuracy on test samples gains without it; NaN beyond the first 100 clients.
    """

    sources: list[int]
    distances: Tensor
    accuracy_of_means: Tensor
    accuracy: Tensor | None = None


def influence(aggregator: FedCOF, features: Tensor | None = None, labels: Tensor | None = None) -> Influence:
    """Find out what each client has done to a classifier; of the quadratic head, to its linear counterpart.

    Parameters
    ----------
    aggregator : FedCOF
        With all uploads. What class names know has no part in it.
    features : Tensor of shape (n, d), floating point, optional
        Test samples; the first 1,000 are looked at.
    labels : Tensor of shape (n,), int64, optional
        Their classes.

    Returns
    -------
    Influence
        Of at least two clients.

    Raises
    ------
    UserError
        If there is one client alone, or the uploads were let go.
    """
    uploads = aggregator.uploads()
    if len(uploads) < 2:
        raise UserError("Influence is what changes without a client, but there is one alone: ask more clients.")
    whole = _Whole.of(aggregator)
    parts = list(_parts(list(uploads.values()), whole))
    others = _rows_to_classify(list(uploads.values()), whole)
    tested = None
    if features is not None and labels is not None:
        tested = _Samples.of(features[:MOST_SAMPLES], labels[:MOST_SAMPLES], whole)
    reference = whole.without([])
    size = max(NUMBERS_OF_BATCH // whole.means.numel(), 1)
    batches = torch.split(torch.arange(len(parts)), size)
    found = [reference.distances(whole.without([parts[place] for place in batch.tolist()])) for batch in batches]
    distances, order = torch.cat(found).sort(descending=True, stable=True)
    means, tests = (torch.full_like(distances, torch.nan) for _ in range(2))
    for start, batch in enumerate(torch.split(order[:MOST_CLASSIFIED], size)):
        classifiers = whole.without([parts[place] for place in batch.tolist()])
        here = slice(start * size, start * size + len(batch))
        means[here] = others.gain(classifiers, reference, batch)
        if tested:
            tests[here] = tested.gain(classifiers, reference, batch)
    numbers = list(uploads)
    return Influence([numbers[place] for place in order.tolist()], distances, means, tests if tested else None)


@dataclass(frozen=True, eq=False)
class _Part:
    """What one client has sent: its sums, and its rows' residuals in the eigenvectors of the scatter."""

    class_ids: Tensor
    counts: Tensor
    rows: Tensor
    means: Tensor
    factor: Tensor


def _parts(uploads: list[ClassMeanRows], whole: _Whole) -> Iterator[_Part]:
    """Look at uploads, many of which are rotated at once."""
    vectors = whole.vectors.to(whole.dtype)
    together: list[ClassMeanRows] = []
    for place, upload in enumerate(uploads):
        together.append(upload)
        if sum(one.num_rows for one in together) < ROWS_PER_BLOCK and place < len(uploads) - 1:
            continue
        ids = torch.cat([one.class_ids for one in together])
        means = torch.cat([one.rows(slice(0, one.num_rows)) for one in together]).double()
        yield from _parts_of(together, ids, means.sub_(whole.totals.means[ids]).to(whole.dtype) @ vectors, whole)
        together = []


def _parts_of(uploads: list[ClassMeanRows], class_ids: Tensor, residuals: Tensor, whole: _Whole) -> Iterator[_Part]:
    """Look at uploads with these rows of classes (R,) and residuals (R, d)."""
    rows_of_upload = [upload.num_rows for upload in uploads]
    owners = torch.arange(len(uploads)).repeat_interleave(torch.tensor(rows_of_upload))
    keys, key_of_row = torch.unique(owners * len(whole.means) + class_ids, return_inverse=True)
    ids, owner_of_key = keys % len(whole.means), keys // len(whole.means)
    classes_of_upload = torch.bincount(owner_of_key, minlength=len(uploads)).tolist()
    samples, rows = torch.cat([upload.counts for upload in uploads]).double(), torch.bincount(key_of_row).double()
    counts = torch.zeros(len(ids), dtype=torch.float64).index_add_(0, key_of_row, samples)
    # Where nobody else has the class, its mean is the client's own.
    shared = whole.totals.rows[ids] - rows > 0.5
    pull = whole.class_weights[ids] * counts.square()
    pull /= torch.where(shared, whole.totals.counts[ids] - counts, torch.inf)
    if single := len(ids) == len(samples):
        means = residuals[key_of_row.argsort()]
        pull += whole.class_weights[ids] * counts
    else:
        sums = torch.zeros(len(ids), residuals.shape[1], dtype=torch.float64)
        sums.index_add_(0, key_of_row, samples[:, None] * residuals)
        means = sums.div_(counts[:, None]).to(whole.dtype)
        residuals = (whole.class_weights[class_ids] * samples).sqrt().to(whole.dtype)[:, None] * residuals
    pulled = pull.sqrt().to(whole.dtype)[:, None] * means
    split = [torch.split(field, classes_of_upload) for field in (ids, counts, rows, means, pulled)]
    for of_rows, own_ids, own_counts, own_rows, own_means, own_pulled in zip(
        torch.split(residuals, rows_of_upload), *split, strict=True
    ):
        factor = own_pulled if single else torch.cat([of_rows, own_pulled])
        yield _Part(own_ids, own_counts, own_rows, own_means, factor)


@dataclass(frozen=True, eq=False)
class _Linear:
    """Linear classifiers, a batch of b: weight (b, C, d) in the eigenvectors, bias (b, C), present (b, C)."""

    weight: Tensor
    bias: Tensor
    present: Tensor

    def distances(self, others: _Linear) -> Tensor:
        """Compare one classifier with others: shape (b,), float64."""
        norms = torch.linalg.vector_norm(others.weight - self.weight, dim=2).double()
        changed: Tensor = norms.square().sum(dim=1).sqrt() / torch.linalg.vector_norm(self.weight).double()
        return changed


@dataclass(frozen=True, eq=False)
class _Whole:
    """The system of all clients, in the eigenvectors of its scatter."""

    totals: ClassTotals
    values: Tensor
    vectors: Tensor
    means: Tensor
    class_weights: Tensor
    alpha: float
    beta: float
    is_pooled: bool
    is_estimated: bool
    is_ridge: bool
    dtype: torch.dtype

    @staticmethod
    def of(aggregator: FedCOF) -> _Whole:
        """Take the system of an aggregator apart."""
        plain, shrunk, totals = aggregator.plain_and_shrunk()
        is_pooled, is_estimated = aggregator.estimator == POOLED, isinstance(aggregator.shrinkage, str)
        weights = class_weights_of(totals, aggregator.estimator)
        alpha = (float(weights[0]) if is_pooled else 1.0) * (1 - shrunk.amount if is_estimated else 1)
        if is_unseen(totals, aggregator.shrinkage):
            alpha = 0.0
        beta = float((shrunk.scatter.trace() - alpha * plain.trace()) / len(plain))
        values, vectors = torch.linalg.eigh(plain)
        exact = any(upload.dtype == torch.float64 for upload in aggregator.uploads().values())
        dtype = torch.float64 if exact else torch.float32
        return _Whole(
            totals,
            values.clamp(min=0),
            vectors,
            (totals.means @ vectors).to(dtype),
            torch.ones_like(weights) if is_pooled else weights,
            alpha,
            beta,
            is_pooled,
            is_estimated,
            aggregator.linear_head != LDA.name,
            dtype,
        )

    def without(self, parts: list[_Part]) -> _Linear:
        """Solve without each of some clients; of none, with all of them."""
        size = max(len(parts), 1)
        counts, rows, sums = (
            values.expand(size, *values.shape).clone()
            for values in (
                self.totals.counts,
                self.totals.rows,
                self.totals.counts[:, None].to(self.dtype) * self.means,
            )
        )
        for place, part in enumerate(parts):
            counts[place, part.class_ids] -= part.counts
            rows[place, part.class_ids] -= part.rows
            own = part.means + self.means[part.class_ids]
            sums[place, part.class_ids] -= part.counts[:, None].to(self.dtype) * own
        gone = rows < 0.5
        counts[gone], sums[gone] = 0.0, 0.0
        none = torch.zeros(0, len(self.values), dtype=self.dtype)
        factor = pad_sequence([part.factor for part in parts] or [none], batch_first=True)
        samples = (counts - 1).clamp(min=0).sum(dim=1)
        alpha, beta = self._shrunk(rows, samples, factor)
        total = counts.sum(dim=1)
        if self.is_ridge:
            mean = sums.sum(dim=1) / total.sqrt().to(self.dtype)[:, None]
            weight = unit_length(_solved(self.values, alpha, beta, factor, mean, sums))
            return _Linear(weight, torch.zeros_like(counts), ~gone)
        means = sums / counts.clamp(min=1e-30).to(self.dtype)[:, :, None]
        scale = samples.clamp(min=1).to(self.dtype)[:, None, None]
        weight = _solved(self.values, alpha, beta, factor, None, means) * scale
        return _Linear(weight, -(weight * means).sum(dim=2) / 2, ~gone)

    def _shrunk(self, rows: Tensor, samples: Tensor, factor: Tensor) -> tuple[Tensor, Tensor]:
        """Give alpha and beta (b,) without each client, with the amount of shrinkage held."""
        everyone = self.totals.sample_degrees_of_freedom.sum()
        grows = torch.ones_like(samples)
        if self.is_pooled:
            degrees = self.totals.row_degrees_of_freedom.sum().clamp(min=1)
            grows = samples / (rows - 1).clamp(min=0).sum(dim=1).clamp(min=1) / (everyone / degrees)
        if not self.is_estimated or not self.alpha:
            return self.alpha * grows, self.beta * samples / everyone
        trace = self.values.sum()
        return self.alpha * grows, self.beta * grows * (trace - factor.square().sum(dim=(1, 2)).double()) / trace


def _solved(
    values: Tensor, alpha: Tensor, beta: Tensor, factor: Tensor, mean: Tensor | None, right: Tensor
) -> Tensor:
    """Solve (alpha (diag(values) - Z^T Z) + beta I + mean mean^T) x = right, a batch: shape (b, C, d)."""
    inverse = (1 / (alpha[:, None] * values + beta[:, None])).to(right.dtype)
    signs = -1 / alpha.clamp(min=torch.finfo(torch.float64).tiny)[:, None].expand(factor.shape[:2])
    if mean is not None:
        factor = torch.cat([factor, mean[:, None]], dim=1)
        signs = torch.cat([signs, signs.new_ones(len(signs), 1)], dim=1)
    scaled = factor * inverse[:, None]
    inner = (scaled @ factor.mT).double() + torch.diag_embed(signs)
    small = torch.linalg.solve(inner, (scaled @ right.mT).double()).to(right.dtype)
    return torch.baddbmm(right * inverse[:, None], small.mT, scaled, alpha=-1)


@dataclass(frozen=True, eq=False)
class _Samples:
    """Samples to classify, in the eigenvectors: features (n, d) float32, labels, weights and owners (n,)."""

    features: Tensor
    labels: Tensor
    weights: Tensor
    owners: Tensor

    @staticmethod
    def of(features: Tensor, labels: Tensor, whole: _Whole) -> _Samples:
        """Take samples of nobody, of one weight."""
        ones = torch.ones(len(labels), dtype=torch.float64)
        return _Samples((features.double() @ whole.vectors).float(), labels, ones, torch.full_like(labels, -1))

    def gain(self, found: _Linear, reference: _Linear, clients: Tensor) -> Tensor:
        """Compute what the accuracy gains on all samples but each client's own: shape (b,), float64."""
        weights = self.weights * (self.owners != clients[:, None])
        gained = self._right(found).double() - self._right(reference).double()
        return (gained * weights).sum(dim=1) / weights.sum(dim=1)

    def _right(self, classifiers: _Linear) -> Tensor:
        scores = self.features @ classifiers.weight.float().mT + classifiers.bias.float()[:, None]
        scores.masked_fill_(~classifiers.present[:, None], -torch.inf)
        return scores.argmax(dim=2) == self.labels


def _rows_to_classify(uploads: list[ClassMeanRows], whole: _Whole) -> _Samples:
    """Draw rows of all clients."""
    owners = torch.arange(len(uploads)).repeat_interleave(torch.tensor([upload.num_rows for upload in uploads]))
    drawn = torch.randperm(len(owners), generator=torch.Generator().manual_seed(0))[:MOST_SAMPLES].sort().values
    starts = torch.searchsorted(owners, owners)
    rows = [uploads[owner].rows(slice(row, row + 1)) for owner, row in _places(owners, starts, drawn)]
    labels = torch.cat([upload.class_ids for upload in uploads])[drawn]
    counts = torch.cat([upload.counts.double() for upload in uploads])[drawn]
    return _Samples((torch.cat(rows).double() @ whole.vectors).float(), labels, counts, owners[drawn])


def _places(owners: Tensor, starts: Tensor, drawn: Tensor) -> Iterator[tuple[int, int]]:
    return zip(owners[drawn].tolist(), (drawn - starts[drawn]).tolist(), strict=True)
