"""A head solved with what class names know."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from fedcof.covariance.totals import ClassTotals
from fedcof.covariance.unseen import FEWEST_DEGREES
from fedcof.heads.classifier import Classifier
from fedcof.heads.head import Head
from fedcof.heads.solving import cholesky_factor
from fedcof.heads.text_prior import Expected, TextPrior
from fedcof.heads.unheld import Shrunk, with_unheld
from fedcof.statistics.class_means import ClassMeanRows


def solve_with_prior(
    head: Head,
    scatter: Tensor,
    totals: ClassTotals,
    rows: Sequence[ClassMeanRows],
    prior: TextPrior,
    shrinkage: float = 0.0,
    shrunk_to_mean: bool = False,
) -> tuple[Classifier, Expected]:
    """Solve a head with what class names know.

    Parameters
    ----------
    head : Head
        The head.
    scatter : Tensor of shape (d, d), float64
        Within-class scatter W of all samples, shrunk.
    totals : ClassTotals
        Class counts and means.
    rows : sequence of ClassMeans or EncodedClassMeans
        What both were made of, for heads that need rows.
    prior : TextPrior
        The prototypes.
    shrinkage : float
        How the covariance was shrunk: the number added to its diagonal, in squared feature units; or the share of
        its mean variance, from 0 to 1.
    shrunk_to_mean : bool
        Whether it is a share.

    Returns
    -------
    tuple of (Classifier, Expected)
        A classifier of all C classes; and the class means that it was solved with.

    Raises
    ------
    UserError
        If the system has no solution.
    """
    degrees = totals.sample_degrees_of_freedom.sum().clamp(min=1)
    mean_variance = float(scatter.trace() / degrees / len(scatter))
    shrunk = Shrunk(
        ridge=shrinkage * mean_variance if shrunk_to_mean else shrinkage,
        kept=1 - shrinkage if shrunk_to_mean else 1.0,
        degrees=float(totals.row_degrees_of_freedom.sum()),
    )
    own_variance = mean_variance if shrunk_to_mean else max(mean_variance - shrinkage, 0.0)
    variance = own_variance * len(scatter) if shrunk.degrees >= FEWEST_DEGREES else 0.0
    expected = prior.expected(totals, variance)
    held = totals.present
    solved = head.solve_with_means(scatter, totals, rows, expected.means * held[:, None])
    if not bool(held.all()):
        factor = cholesky_factor(scatter / degrees)
        solved = with_unheld(solved, factor, shrunk, totals, prior, expected)
    return solved, expected
