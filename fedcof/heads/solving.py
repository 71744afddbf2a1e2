"""Symmetric positive definite systems, solved whole or in the space of few rows."""

from __future__ import annotations

import torch
from torch import Tensor

from fedcof.errors import UserError


class SingularSystemError(UserError):
    """A system without a solution; who knows what it was made of says more than this."""


def cholesky_factor(matrix: Tensor) -> Tensor:
    """Factorise a symmetric positive definite matrix as L L^T.

    Parameters
    ----------
    matrix : Tensor of shape (d, d), float64
        The matrix.

    Returns
    -------
    Tensor of shape (d, d), float64
        L, lower triangular.

    Raises
    ------
    SingularSystemError
        If it is not positive definite.
    """
    factor, failed_at = torch.linalg.cholesky_ex(matrix)
    if int(failed_at) or not bool(factor.diagonal().isfinite().all()):
        raise SingularSystemError(
            "The system is singular because there are fewer independent uploads than feature dimensions: "
            "give a larger shrinkage (for fed3r a larger ridge-penalty), or leave-one-out."
        )
    lower: Tensor = factor
    return lower


def solve_positive_definite(matrix: Tensor, right_hand_side: Tensor) -> Tensor:
    """Solve a symmetric positive definite system by Cholesky's factorisation.

    Parameters
    ----------
    matrix : Tensor of shape (d, d), float64
        Left-hand side.
    right_hand_side : Tensor of shape (d, C), float64
        One column per class.

    Returns
    -------
    Tensor of shape (d, C), float64
        The solution.

    Raises
    ------
    SingularSystemError
        If the matrix is not positive definite.
    """
    return torch.cholesky_solve(right_hand_side, cholesky_factor(matrix))


def solve_factored(factor: Tensor, ridge: float, right_hand_side: Tensor) -> Tensor:
    """Solve (Z^T Z + ridge I) A = B for A as (B - Z^T (Z Z^T + ridge I)^-1 Z B) / ridge, Woodbury's identity."""
    small = factor @ factor.T
    small.diagonal().add_(ridge)
    inner = solve_positive_definite(small, factor @ right_hand_side)
    return torch.addmm(right_hand_side, factor.T, inner, alpha=-1).div_(ridge)
