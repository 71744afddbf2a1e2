r"""How far each client's class means lie on the way to another class, as where samples of two are called the same.

Who holds class c and calls samples of class :math:`c'` so as well sends a mixture, which is nearer than a mean of
the other class alone, and where every client's samples of a class are of kinds of their own no further off than
theirs. But it lies on one line. In coordinates in which samples of a class have variance 1, with
:math:`a = m - \mu_c^{(-k)}` and :math:`D = \mu_{c'} - \mu_c^{(-k)}`, its share of the other class is estimated by

.. math:: \lambda = \frac{a \cdot D}{|D|^2}

less what the error of the means that both have in common puts into numerator and denominator. For honest means of
twenty samples or more it is below 0.1 on digits and 0.3 on CIFAR-100; where clients hold other kinds of a class, up
to 0.5.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fedcof.covariance.client_means import ClientMeans

NUMBERS_OF_BLOCK = 2**22


@dataclass(frozen=True, eq=False)
class Mixtures:
    """The class that each of R means seems to be mixed with.

    Attributes
    ----------
    shares : Tensor of shape (R,), float64
        The largest lambda over all other classes; NaN for means that are not looked at.
    deviations : Tensor of shape (R,), float64
        Its standard deviation by chance, were all normal.
    variances : Tensor of shape (R,), float64
        1/n + 1/N' of the mean's samples and the other clients'.
    towards : Tensor of shape (R,), int64
        That class; -1 where there is none.
    """

    shares: Tensor
    deviations: Tensor
    variances: Tensor
    towards: Tensor


def mixtures(means: ClientMeans, taken: Tensor, tested: Tensor) -> Mixtures:
    """Look for the class that each mean lies nearest to the way to.

    Parameters
    ----------
    means : ClientMeans
        In coordinates in which samples of a class have variance 1, or the same in all.
    taken : Tensor of shape (R,), bool
        Whose means the class means are made of.
    tested : Tensor of shape (R,), bool
        Which to look at: each of a class of which others that are taken have means.

    Returns
    -------
    Mixtures
        NaN too where no other class is far enough to be told apart.
    """
    own = means.counts * taken
    totals, centres = means.sum_by_class(own), means.class_means(taken).double()
    shares, deviations, variances = (torch.full((len(own),), torch.nan, dtype=torch.float64) for _ in range(3))
    found = Mixtures(shares, deviations, variances, torch.full((len(own),), -1))
    rows = (tested & (totals[means.class_ids] - own > 0)).nonzero()[:, 0]
    if not len(rows) or int((totals > 0).sum()) < 2:
        return found
    ids, total = means.class_ids[rows], totals[means.class_ids[rows]]
    others = total - own[rows]
    stretch, pull = total / others, own[rows] / total
    variance = 1 / means.counts[rows] + 1 / others
    lengths = torch.linalg.vector_norm(means.means[rows].double() - centres[ids], dim=1).square() * stretch.square()
    # The squared length of a sample's error, as most have it.
    usual = float((lengths / variance).median())
    between = torch.cdist(centres, centres).square()
    for block in torch.split(torch.arange(len(rows)), max(NUMBERS_OF_BLOCK // len(centres), 1)):
        away = (means.means[rows[block]].double() - centres[ids[block]]) * stretch[block, None]
        towards = away @ centres.T - (away * centres[ids[block]]).sum(dim=1, keepdim=True)
        shift, length = pull[block, None], lengths[block, None]
        along = towards + shift * length - usual / others[block, None]
        squared = between[ids[block]] + 2 * shift * towards + shift.square() * length
        squared = squared - usual * (1 / others[block, None] + 1 / totals.clamp(min=1e-300)[None, :])
        is_class = (totals > 0)[None, :] & (squared > 0)
        is_class[torch.arange(len(block)), ids[block]] = False
        best, place = torch.where(is_class, along / squared.clamp(min=1e-300), -torch.inf).max(dim=1)
        reach = squared.gather(1, place[:, None])[:, 0].clamp(min=1e-300)
        found.shares[rows[block]] = torch.where(best.isfinite(), best, torch.nan)
        found.deviations[rows[block]] = (usual / means.feature_dim * variance[block] / reach).sqrt()
        found.variances[rows[block]] = variance[block]
        found.towards[rows[block]] = torch.where(best.isfinite(), place, -1)
    return found
