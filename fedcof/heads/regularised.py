r"""Regularised discriminant analysis in closed form: a covariance for each class, drawn to the pooled one.

Friedman's (1989), from class means alone. Whitened by the shrunk pooled covariance, class c has the covariance
:math:`a I + (1 - a) \sum_j s_j^2 v_j v_j^T` over its leading directions, whose eigenvalues are
:math:`e_j = a + (1 - a) s_j^2`, and the score of x is, with a tilde for what is whitened,

.. math:: -\frac12 \Big[ \frac{|\tilde x - \tilde\mu_c|^2}{a}
          - \sum_j ((\tilde x - \tilde\mu_c)^T v_j)^2 \Big(\frac1a - \frac1{e_j}\Big)
          + \sum_j \log e_j + (d - \rho) \log a \Big] + \log \text{prior}

Rows are means, and so nearer to a normal distribution than samples are: criteria that look at how well rows are
foretold by other rows choose a below 0.9 where 0.96 is better for samples. See docs/method.md for the figures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from fedcof.covariance.class_directions import ClassDirections, class_directions
from fedcof.covariance.totals import ClassTotals
from fedcof.heads.classifier import Classifier
from fedcof.heads.head import Head
from fedcof.heads.lda import linear_discriminant
from fedcof.heads.quadratic import QuadraticClassifier
from fedcof.heads.solving import cholesky_factor
from fedcof.statistics.class_means import ClassMeanRows

# In float64, the directions of all classes would take twice what they take in the classifier.
CLASSES_AT_ONCE = 64


def regularised_discriminant(
    scatter: Tensor,
    totals: ClassTotals,
    rows: Sequence[ClassMeanRows],
    pooled_share: float,
    rank: int,
    means: Tensor | None = None,
) -> QuadraticClassifier:
    """Solve regularised discriminant analysis from the class means.

    The classes that somebody has are taken to be equally likely. A class with one row has the pooled covariance.

    Parameters
    ----------
    scatter : Tensor of shape (d, d), float64
        Within-class scatter W, shrunk.
    totals : ClassTotals
        Class counts and means.
    rows : sequence of ClassMeans or EncodedClassMeans
        The rows that both were made of.
    pooled_share : float
        Share a of the pooled covariance in each class's, above 0 and at most 1; at 1 the scores are those of
        :func:`fedcof.heads.lda.linear_discriminant`, up to what is the same for all classes.
    rank : int
        Most directions of a class that are kept, from 0.
    means : Tensor of shape (C, d), float64, optional
        What the class means are taken to be, where not those of the rows.

    Returns
    -------
    QuadraticClassifier
        Zero for a class that nobody has.

    Raises
    ------
    SingularSystemError
        If the covariance is not positive definite.
    """
    factor = cholesky_factor(scatter / totals.sample_degrees_of_freedom.sum().clamp(min=1))
    own = class_directions(rows, totals, factor, rank if pooled_share < 1 else 0)
    shares = torch.where(totals.rows > 1, pooled_share, 1.0).to(torch.float64)
    return _classifier(totals if means is None else replace(totals, means=means), factor, own, shares)


def _classifier(totals: ClassTotals, factor: Tensor, own: ClassDirections, shares: Tensor) -> QuadraticClassifier:
    present = totals.present
    centre = totals.global_mean
    means = (totals.means - centre) * present[:, None]
    solved = torch.cholesky_solve(means.T, factor).T
    values = shares[:, None] + (1 - shares[:, None]) * own.variances
    log_determinant = values.log().sum(dim=1) + (len(factor) - own.variances.shape[1]) * shares.log()
    prior = 1 / present.sum(dtype=torch.float64)
    bias = -((means * solved).sum(dim=1) / shares + log_determinant) / 2 + prior.log()
    gain = (1 / shares[:, None] - 1 / values).clamp(min=0).sqrt()
    distances = [
        (directions.to(torch.float64) @ mean[:, :, None])[:, :, 0]
        for directions, mean in zip(
            torch.split(own.directions, CLASSES_AT_ONCE), torch.split(means, CLASSES_AT_ONCE), strict=True
        )
    ]
    # In place, because they are the largest part of the classifier.
    own.directions.mul_(gain[:, :, None].to(own.directions.dtype))
    # What all classes have in common decides nothing.
    curvature = 1 / shares - 1 / shares[present].min()
    needed = bool((curvature[present] != 0).any())
    whitening = _inverse_of_transpose(factor) if needed else factor[:, :0]
    return QuadraticClassifier(
        weight=_as_stored(solved / shares[:, None] * present[:, None]),
        bias=_as_stored(bias * present),
        directions=_as_stored(own.directions),
        offsets=_as_stored(torch.cat(distances) * gain),
        curvature=_as_stored(curvature * present),
        whitening=_as_stored(whitening),
        centre=_as_stored(centre),
        present=present,
    )


def _inverse_of_transpose(factor: Tensor) -> Tensor:
    identity = torch.eye(len(factor), dtype=factor.dtype)
    inverse: Tensor = torch.linalg.solve_triangular(factor.mT, identity, upper=True)
    return inverse


def _as_stored(tensor: Tensor) -> Tensor:
    return tensor.to(torch.float32).contiguous()


@dataclass(frozen=True)
class RegularisedDiscriminant(Head):
    """Regularised discriminant analysis, as FedCOF's head.

    Parameters
    ----------
    pooled_share, rank
        See :func:`regularised_discriminant`.
    """

    name: ClassVar[str] = "quadratic"
    unit_length: ClassVar[bool] = False
    linear: ClassVar[str] = "ridge"

    pooled_share: float = 0.96
    rank: int = 5

    def regularised(self, pooled_share: float, rank: int) -> Head:
        """Take both; see :meth:`Head.regularised`."""
        return replace(self, pooled_share=pooled_share, rank=rank)

    def solve(self, scatter: Any, totals: ClassTotals) -> Classifier:  # noqa: ANN401
        """Solve without rows, which leaves all classes the pooled covariance."""
        return linear_discriminant(scatter, totals)

    def solve_with_rows(
        self,
        scatter: Any,  # noqa: ANN401
        totals: ClassTotals,
        rows: Sequence[ClassMeanRows],
    ) -> Classifier:
        """Solve; see :func:`regularised_discriminant`."""
        return regularised_discriminant(scatter, totals, rows, self.pooled_share, self.rank)

    def solve_with_means(
        self,
        scatter: Any,  # noqa: ANN401
        totals: ClassTotals,
        rows: Sequence[ClassMeanRows],
        means: Tensor,
    ) -> Classifier:
        """Solve with other class means, around which the rows still scatter as they do around their own."""
        return regularised_discriminant(scatter, totals, rows, self.pooled_share, self.rank, means)


QUADRATIC = RegularisedDiscriminant()
