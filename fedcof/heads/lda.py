"""Linear discriminant analysis in closed form."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from fedcof.covariance.factored import FactoredScatter
from fedcof.covariance.totals import ClassTotals
from fedcof.heads.head import Head
from fedcof.heads.linear import LinearClassifier, as_classifier
from fedcof.heads.solving import solve_factored, solve_positive_definite


def linear_discriminant(scatter: Tensor | FactoredScatter, totals: ClassTotals) -> LinearClassifier:
    """Solve linear discriminant analysis from the within-class scatter.

    With Sigma = W / sum_c (N_c - 1): weight_c = Sigma^-1 mu_c and bias_c = -1/2 mu_c^T Sigma^-1 mu_c + log prior_c.
    The classes that somebody has are taken to be equally likely. Where no class has two samples, Sigma is W.

    Parameters
    ----------
    scatter : Tensor of shape (d, d), float64, or FactoredScatter
        Within-class scatter W, shrunk; a factored one is solved in the space of its rows.
    totals : ClassTotals
        Class counts and means.

    Returns
    -------
    LinearClassifier
        Weights and biases; zero for a class that nobody has.

    Raises
    ------
    UserError
        If Sigma is not positive definite.
    """
    present = totals.present
    degrees = totals.sample_degrees_of_freedom.sum().clamp(min=1)
    if isinstance(scatter, FactoredScatter):
        weight = solve_factored(scatter.factor, scatter.ridge, totals.means.T).T * degrees
    else:
        weight = solve_positive_definite(scatter / degrees, totals.means.T).T
    prior = 1 / present.sum(dtype=torch.float64)
    bias = -(weight * totals.means).sum(dim=1) / 2 + prior.log()
    return as_classifier(weight, bias, present)


class LinearDiscriminant(Head):
    """Linear discriminant analysis, as FedCOF's head; all classes that somebody has are equally likely."""

    name: ClassVar[str] = "lda"
    unit_length: ClassVar[bool] = False
    takes_factored: ClassVar[bool] = True

    def solve(self, scatter: Tensor | FactoredScatter, totals: ClassTotals) -> LinearClassifier:
        """Solve; see :func:`linear_discriminant`."""
        return linear_discriminant(scatter, totals)


LDA = LinearDiscriminant()
