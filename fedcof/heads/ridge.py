"""The ridge classifier in closed form."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from fedcof.covariance.factored import FactoredScatter
from fedcof.covariance.totals import ClassTotals
from fedcof.heads.head import Head
from fedcof.heads.linear import LinearClassifier, as_classifier, unit_length
from fedcof.heads.solving import solve_factored, solve_positive_definite


def ridge(scatter: Tensor | FactoredScatter, totals: ClassTotals) -> LinearClassifier:
    """Solve the ridge classifier from the within-class scatter (FedCOF, arXiv 2412.14326).

    The Gram matrix G = W + N mu mu^T leaves the between-class scatter out on purpose; each class's vector of
    G^-1 [N_1 mu_1 ... N_C mu_C] is scaled to unit length, and there is no bias.

    Parameters
    ----------
    scatter : Tensor of shape (d, d), float64, or FactoredScatter
        Within-class scatter W, shrunk; a factored one is solved in the space of its rows.
    totals : ClassTotals
        Class counts and means.

    Returns
    -------
    LinearClassifier
        Unit-length weights; zero for a class that nobody has.

    Raises
    ------
    UserError
        If G is not positive definite.
    """
    mean = totals.global_mean
    class_sums = totals.counts[:, None] * totals.means
    if isinstance(scatter, FactoredScatter):
        factor = torch.cat([scatter.factor, mean[None] * totals.num_samples**0.5])
        weight = solve_factored(factor, scatter.ridge, class_sums.T).T
        return as_classifier(unit_length(weight), torch.zeros(len(weight)), totals.present)
    gram = torch.addr(scatter, mean, mean, alpha=totals.num_samples)
    return ridge_from_gram(gram, class_sums, totals.present)


def ridge_from_gram(gram: Tensor, class_sums: Tensor, present: Tensor) -> LinearClassifier:
    """Solve the ridge classifier of a given Gram matrix (Fed3R, Fani et al., ICML 2024).

    Parameters
    ----------
    gram : Tensor of shape (d, d), float64
        Gram matrix with its penalty, G + lambda I.
    class_sums : Tensor of shape (C, d), float64
        Sum B of the feature vectors of each class.
    present : Tensor of shape (C,), bool
        Which classes somebody has.

    Returns
    -------
    LinearClassifier
        The vectors of (G + lambda I)^-1 B scaled to unit length, no bias.

    Raises
    ------
    UserError
        If the matrix is not positive definite.
    """
    weight = unit_length(solve_positive_definite(gram, class_sums.T).T)
    return as_classifier(weight, torch.zeros(len(weight)), present)


class Ridge(Head):
    """The ridge classifier, as FedCOF's head."""

    name: ClassVar[str] = "ridge"
    unit_length: ClassVar[bool] = True
    takes_factored: ClassVar[bool] = True

    def solve(self, scatter: Tensor | FactoredScatter, totals: ClassTotals) -> LinearClassifier:
        """Solve; see :func:`ridge`."""
        return ridge(scatter, totals)


RIDGE = Ridge()
