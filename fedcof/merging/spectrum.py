"""Singular values and vectors, with signs that are always the same."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

RESOLUTION = 1e-9
"""What is shorter than this share of what it was made of is rounding, and no direction of its own.

Clients' numbers have 24 bits and the sums of them 53, so this lies between what a client can mean and what
summation leaves behind.
"""


class Spectrum(NamedTuple):
    """Singular triplets of a matrix (m, n), the largest value first."""

    left: Tensor
    """(m, q), orthonormal columns, in each of which the entry of the largest magnitude is positive."""
    values: Tensor
    """(q,), not negative."""
    right: Tensor
    """(n, q), orthonormal columns."""

    def matrix(self) -> Tensor:
        """Multiply it out, to (m, n)."""
        return self.left * self.values @ self.right.T

    def first(self, count: int) -> Spectrum:
        """Give the first so many triplets."""
        return Spectrum(self.left[:, :count], self.values[:count], self.right[:, :count])

    def above(self, floor: float) -> Spectrum:
        """Give the triplets whose values are larger than a number."""
        return self.first(int((self.values > floor).sum()))


def spectrum(matrix: Tensor) -> Spectrum:
    """Decompose a matrix.

    Parameters
    ----------
    matrix : Tensor of shape (m, n), float64
        Finite.

    Returns
    -------
    Spectrum
        min(m, n) triplets.
    """
    # LAPACK takes three times as long where the matrix lies down.
    lies = matrix.shape[0] < matrix.shape[1]
    left, values, right = torch.linalg.svd(matrix.T.contiguous() if lies else matrix, full_matrices=False)
    return _signed(right.T, values, left) if lies else _signed(left, values, right.T)


def leading(matrix: Tensor, count: int) -> Spectrum:
    """Find the first singular triplets of a matrix.

    Few of them come from the eigenvectors of the smaller Gram matrix, which is several times faster. A triplet
    whose value is below 1e-5 of the largest is then less exact than :func:`spectrum` has it; what the triplets
    multiply out to is not.

    Parameters
    ----------
    matrix : Tensor of shape (m, n), float64
        Finite.
    count : int
        How many, at least 1.

    Returns
    -------
    Spectrum
        At most min(m, n) triplets.
    """
    if 4 * count >= min(matrix.shape):
        return spectrum(matrix).first(count)
    lies = matrix.shape[0] < matrix.shape[1]
    wide = matrix if lies else matrix.T
    vectors = torch.linalg.eigh(wide @ wide.T)[1][:, -count:]
    left, values, right = spectrum(vectors.T @ wide)
    return _signed(vectors @ left, values, right) if lies else _signed(right, values, vectors @ left)


def polar_factor(matrix: Tensor) -> Tensor:
    """Orthogonalise columns: the nearest matrix whose singular values are all 1, or 0 where the columns' are.

    Parameters
    ----------
    matrix : Tensor of shape (m, q), float64
        The columns.

    Returns
    -------
    Tensor of shape (m, q), float64
        P Q^T, for the matrix P diag(s) Q^T.
    """
    if not matrix.shape[1]:
        return matrix
    parts = spectrum(matrix)
    left, _, right = parts.above(RESOLUTION * float(parts.values[0]))
    return left @ right.T


def _signed(left: Tensor, values: Tensor, right: Tensor) -> Spectrum:
    """Turn each pair of vectors so that the left one's largest entry is positive."""
    largest = left.gather(0, left.abs().argmax(dim=0, keepdim=True))
    signs = torch.where(largest < 0, -1.0, 1.0).to(left.dtype)
    return Spectrum(left * signs, values, right * signs)
