r"""Scores of classes that nobody holds, from their names, beside those of the others.

With the symbols of :mod:`fedcof.heads.text_prior`, a class that nobody holds is scored by

.. math:: f(x) = \ell_0 T^T \Sigma^{-1} \left(x - g - \frac{\ell_0}2 T\right)
          + 200 \frac{T^T (x - g)}{\sqrt{E |x - g|^2}} + \delta

with :math:`\ell_0 = \bar\lambda s + (1 - \bar\lambda) \ell`, as much prototype as the others have. delta is such
that a given share of samples of the held classes, drawn as the statistics foretell them, would be taken for one of
these. The 200 was measured: docs/names.md.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fedcof.covariance.totals import ClassTotals
from fedcof.covariance.unseen import FEWEST_DEGREES
from fedcof.heads.classifier import Classifier
from fedcof.heads.text_prior import Expected, TextPrior

COSINE_NATS = 200.0
DRAWN_SAMPLES = 2000


@dataclass(frozen=True)
class Shrunk:
    r"""How a covariance :math:`\hat\Sigma = k S + r I` was shrunk.

    Attributes
    ----------
    ridge, kept : float
        The numbers r, in squared feature units, and k.
    degrees : float
        Degrees of freedom of S.
    """

    ridge: float
    kept: float
    degrees: float

    @property
    def shows_scatter(self) -> bool:
        """Whether S is seen at all."""
        return self.degrees >= FEWEST_DEGREES and self.kept > 0

    def dimensions(self, factor: Tensor) -> float:
        r"""Estimate in how many dimensions samples are as wide as the covariance says.

        :math:`\mathrm{tr}(\hat\Sigma^{-1} \Sigma)` is about :math:`\mathrm{tr}(\hat\Sigma^{-1} S) / (1 - h)`. Here
        and below :math:`h = k \, \mathrm{tr}(\hat\Sigma^{-1} S) / \nu`, as in Craven and Wahba's generalised
        cross-validation (1979).

        Parameters
        ----------
        factor : Tensor of shape (d, d), float64
            Cholesky factor of the covariance, lower triangular.

        Returns
        -------
        float
            About d where the covariance is well known.
        """
        seen, left = self._seen_and_left(factor)
        return seen / self.kept / left

    def wider(self, factor: Tensor, vectors: Tensor) -> float:
        r"""Estimate how much wider new samples scatter along discriminant vectors than the covariance says.

        :math:`w^T \Sigma w` of a vector :math:`w = \hat\Sigma^{-1} m` is about :math:`w^T S w / (1 - h)^2`.

        Parameters
        ----------
        factor : Tensor of shape (d, d), float64
            Cholesky factor of the covariance, lower triangular.
        vectors : Tensor of shape (k, d), float64
            The vectors w.

        Returns
        -------
        float
            Ratio of the variances, over all vectors; from 1 to 16.
        """
        said = float((vectors @ factor).square().sum())
        seen = (said - self.ridge * float(vectors.square().sum())) / self.kept
        _, left = self._seen_and_left(factor)
        ratio = seen / said / left**2 if said > 0 else 1.0
        return min(max(ratio, 1.0), 16.0)

    def _seen_and_left(self, factor: Tensor) -> tuple[float, float]:
        r"""Give :math:`k \, \mathrm{tr}(\hat\Sigma^{-1} S)`, and :math:`1 - h`, at least 0.1."""
        seen = len(factor) - self.ridge * float(torch.cholesky_inverse(factor).trace())
        return seen, max(1 - seen / self.degrees, 0.1)


def with_unheld(
    solved: Classifier,
    factor: Tensor,
    shrunk: Shrunk,
    totals: ClassTotals,
    prior: TextPrior,
    expected: Expected,
) -> Classifier:
    """Score the classes that nobody holds by their names, beside the others.

    Parameters
    ----------
    solved : Classifier
        A head, solved with the expected means of the held classes.
    factor : Tensor of shape (d, d), float64
        Cholesky factor of the covariance, lower triangular.
    shrunk : Shrunk
        How that was shrunk.
    totals : ClassTotals
        What the uploads add up to.
    prior : TextPrior
        The prototypes.
    expected : Expected
        What they foretell.

    Returns
    -------
    Classifier
        The same in the held classes; all are present.
    """
    held = totals.present
    away = (expected.means - expected.centre)[held]
    vectors = torch.cholesky_solve(away.T, factor).T
    drawn = expected.centre + _draw(factor, shrunk, totals, expected, vectors)
    prototypes = prior.prototypes[~held].to(torch.float64)
    means = expected.unheld_length * prototypes
    weight = torch.cholesky_solve(means.T, factor).T
    lengths = (weight * means).sum(dim=1)
    own = solved.weight[held].to(torch.float64)
    unit = _unit_of_scores(own, vectors)
    # What the scores of all held classes have in common decides nothing between them, but beside these it does.
    common = (own - unit * vectors).mean(dim=0)
    weight = (weight + COSINE_NATS / expected.spread * prototypes) * unit + common
    bias = -lengths / 2 * unit - weight @ expected.centre
    highest = solved.raw_scores(drawn.to(torch.float32))[:, held].max(dim=1).values
    lacking = highest - torch.addmm(bias, drawn, weight.T).max(dim=1).values
    offset = torch.quantile(lacking.to(torch.float64), prior.risk)
    return solved.with_linear_scores(torch.nonzero(~held)[:, 0], weight, bias + offset)


def _unit_of_scores(weight: Tensor, vectors: Tensor) -> float:
    """Give how many of a head's scores are a nat of linear discriminant analysis, whose vectors are given."""
    own = torch.linalg.matrix_norm(weight - weight.mean(dim=0))
    nats = torch.linalg.matrix_norm(vectors - vectors.mean(dim=0))
    return float(own / nats) if nats > 0 and own > 0 else 1.0


def _draw(factor: Tensor, shrunk: Shrunk, totals: ClassTotals, expected: Expected, vectors: Tensor) -> Tensor:
    """Draw samples of held classes as new ones would scatter around the centre: shape (n, d), float64.

    Samples of a class lie where its discriminant vector w, which is given, foretells their mean score: on the line
    through the class mean that the head was solved with. They scatter as they would along all these vectors.
    """
    held = totals.present
    away, means = (totals.means - expected.centre)[held], (expected.means - expected.centre)[held]
    counts = totals.counts[held]
    share = counts / (counts + expected.samples)
    said = (vectors * means).sum(dim=1)
    if shrunk.shows_scatter:
        noise, wider = shrunk.dimensions(factor) / counts, shrunk.wider(factor, vectors)
    else:
        noise, wider = (away * torch.cholesky_solve(away.T, factor).T).sum(dim=1), 1.0
    foretold = ((vectors * away).sum(dim=1) - share * noise) / said.clamp(min=torch.finfo(said.dtype).tiny)
    each = max(DRAWN_SAMPLES // len(means), 1)
    generator = torch.Generator().manual_seed(0)
    normal = torch.randn(len(means) * each, len(factor), generator=generator, dtype=torch.float64)
    scattered: Tensor = (normal @ factor.T) * wider**0.5
    return scattered.add_((means * foretold.clamp(0, 1)[:, None]).repeat_interleave(each, dim=0))
