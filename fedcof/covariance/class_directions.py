r"""The directions in which each class's samples scatter most, beside what all classes have in common.

With the shrunk pooled covariance S and a whitening T, T T^T = S^-1, the rows of class c are whitened to
:math:`r = \sqrt{n_r} (m_r - \mu_c) T`. The leading eigenvectors v of :math:`\frac{1}{K_c - 1} \sum r^T r` and their
eigenvalues s^2 are what the class has of its own; no matrix of size d x d is made for any class.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from fedcof.covariance.blocks import classes_of_block, decode_block, noise_of_block, row_blocks
from fedcof.covariance.totals import ClassTotals
from fedcof.statistics.class_means import ClassMeanRows

# Rows of whole classes are together in memory; this many numbers of them, 64 MB in float32.
MOST_NUMBERS = 2**24
ROWS_PER_BATCH = 2048


@dataclass(frozen=True, eq=False)
class ClassDirections:
    """Leading directions of each class's own covariance.

    Attributes
    ----------
    variances : Tensor of shape (C, rank), float64
        Variance s^2 along each direction, in units of the pooled covariance; zero where a class has fewer.
    directions : Tensor of shape (C, rank, d), float32 or float64
        Vectors u = T v: (x - mu_c) . u is the whitened coordinate of x; zero where a class has fewer.
    """

    variances: Tensor
    directions: Tensor


def class_directions(
    uploads: Sequence[ClassMeanRows], totals: ClassTotals, factor: Tensor, rank: int
) -> ClassDirections:
    """Find the leading directions of every class that has two rows.

    Parameters
    ----------
    uploads : sequence of ClassMeans or EncodedClassMeans
        All rows, R of them. Known noise of theirs is taken off the variances.
    totals : ClassTotals
        The same rows added up.
    factor : Tensor of shape (d, d), float64
        Cholesky factor L of the pooled covariance L L^T, lower triangular: T is the transpose of its inverse.
    rank : int
        Most directions of a class, from 0.

    Returns
    -------
    ClassDirections
        As many as the class with the most rows can have, and at most ``rank``.
    """
    most = int(totals.row_degrees_of_freedom.max()) if len(totals.rows) else 0
    rank = max(min(rank, most, len(factor)), 0)
    dtype = torch.float64 if any(upload.dtype == torch.float64 for upload in uploads) else torch.float32
    variances = torch.zeros(len(totals.rows), rank, dtype=torch.float64)
    directions = torch.zeros(len(totals.rows), rank, len(factor), dtype=dtype)
    if not rank:
        return ClassDirections(variances, directions)
    lower = factor.to(dtype)
    for classes, rows in _rows_of_classes(uploads, totals, dtype):
        torch.linalg.solve_triangular(lower.mT, rows, upper=True, left=False, out=rows)
        done = first = 0
        for batch in _batches(totals.rows[classes].to(torch.int64).tolist()):
            members = classes[first : first + len(batch)]
            found, vectors = _leading(torch.split(rows[done : done + sum(batch)], batch), rank)
            variances[members, : found.shape[1]] = found / totals.row_degrees_of_freedom[members, None]
            directions[members, : found.shape[1]] = vectors
            first, done = first + len(batch), done + sum(batch)
    flat = directions.view(-1, len(factor))
    torch.linalg.solve_triangular(lower, flat, upper=False, left=False, out=flat)
    if any(upload.noise is not None for upload in uploads):
        lengths = torch.linalg.vector_norm(directions, dim=2, dtype=torch.float64)
        variances -= _noise_of_classes(uploads, totals)[:, None] * lengths.square()
    return ClassDirections(variances.clamp_(min=0), directions)


def _noise_of_classes(uploads: Sequence[ClassMeanRows], totals: ClassTotals) -> Tensor:
    """Variance that known noise adds to every coordinate of a class's covariance: shape (C,), float64."""
    sums = torch.zeros_like(totals.counts)
    for upload in uploads:
        block = [(upload, slice(0, upload.num_rows))]
        ids, counts = classes_of_block(block)
        sums.index_add_(0, ids, counts * noise_of_block(block) * (1 - counts / totals.counts[ids]))
    return sums / totals.row_degrees_of_freedom.clamp(min=1)


def _rows_of_classes(
    uploads: Sequence[ClassMeanRows], totals: ClassTotals, dtype: torch.dtype
) -> Iterator[tuple[Tensor, Tensor]]:
    """Give sqrt(n_r) (m_r - mu_c), class by class, those of few rows first, of as many classes as memory takes.

    The memory is used again for the next classes.
    """
    ids, counts = classes_of_block([(upload, slice(0, upload.num_rows)) for upload in uploads])
    several = torch.nonzero(totals.rows >= 2)[:, 0]
    several = several[torch.argsort(totals.rows[several], stable=True)]
    means, roots = totals.means.to(dtype), counts.sqrt().to(dtype)
    blocks = list(row_blocks(uploads))
    parts = list(_within_memory(several, totals.rows, means.shape[1]))
    most = max((int(totals.rows[classes].sum()) for classes in parts), default=0)
    memory = torch.empty(most, means.shape[1], dtype=dtype)
    buffers: dict[torch.dtype, Tensor] = {}
    for classes in parts:
        rank_of = torch.full((len(totals.rows),), -1)
        rank_of[classes] = torch.arange(len(classes))
        wanted = torch.nonzero(rank_of[ids] >= 0)[:, 0]
        place = torch.full((len(ids),), -1)
        place[wanted[torch.argsort(rank_of[ids[wanted]], stable=True)]] = torch.arange(len(wanted))
        rows = memory[: len(wanted)]
        done = 0
        for block in blocks:
            decoded = decode_block(block, buffers, exact=dtype == torch.float64)
            mine = torch.nonzero(place[done : done + len(decoded)] >= 0)[:, 0]
            inside = mine + done
            rows[place[inside]] = (decoded[mine] - means[ids[inside]]).mul_(roots[inside, None])
            done += len(decoded)
        yield classes, rows


def _within_memory(classes: Tensor, rows: Tensor, dim: int) -> Iterator[Tensor]:
    start, room = 0, MOST_NUMBERS // dim
    sizes = rows[classes].tolist()
    total = 0.0
    for place, size in enumerate(sizes):
        if total + size > room and place > start:
            yield classes[start:place]
            start, total = place, 0.0
        total += size
    if start < len(sizes):
        yield classes[start:]


def _batches(sizes: list[int]) -> Iterator[list[int]]:
    """Put classes of about as many rows together, so that few rows are padding."""
    batch: list[int] = []
    for size in sizes:
        # Sizes ascend, so the last is the largest of its batch.
        if batch and ((len(batch) + 1) * size > ROWS_PER_BATCH or size > 2 * batch[0]):
            yield batch
            batch = []
        batch.append(size)
    if batch:
        yield batch


def _leading(parts: Sequence[Tensor], rank: int) -> tuple[Tensor, Tensor]:
    """Leading eigenvalues (B, r), float64, and eigenvectors (B, r, d) of each part's X^T X."""
    rows = pad_sequence(list(parts), batch_first=True)
    few = rows.shape[1] <= rows.shape[2]
    small = rows @ rows.mT if few else rows.mT @ rows
    values, vectors = torch.linalg.eigh(small.to(torch.float64))
    rank = min(rank, values.shape[1])
    values = values[:, -rank:].flip(1).clamp(min=0)
    vectors = vectors[:, :, -rank:].flip(2).mT.to(rows.dtype)
    if few:
        vectors = vectors @ rows
        lengths = torch.linalg.vector_norm(vectors, dim=2, keepdim=True)
        # Padding and the rows' mean leave directions of no length.
        seen = lengths.square() > values[:, :1, None].to(rows.dtype) * 100 * torch.finfo(rows.dtype).eps
        vectors = torch.where(seen, vectors / torch.where(seen, lengths, 1.0), 0.0)
        values = values * seen[:, :, 0]
    return values, vectors
