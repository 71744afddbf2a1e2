r"""Class means as the geometric median over groups of clients, written as weights of the rows.

The clients are dealt at random to B groups, of which b has the mean :math:`M_{cb}` of :math:`N_{cb}` samples.
The geometric median :math:`\min_\mu \sum_b \sqrt{N_{cb}}\, |M_{cb} - \mu|` (Minsker, "Geometric median and robust
estimation in Banach spaces", 2015) is a weighted mean of the groups', with weights
:math:`\beta_b \propto \sqrt{N_{cb}} / |M_{cb} - \mu|`, so the rows of a group count for
:math:`\beta_b N_c / N_{cb}` of what they were: the class keeps its N samples, the weighted mean of its rows is the
median, and the scatter is taken around it with the same weights. In many dimensions an honest group is about
:math:`N_{cb}^{-1/2}` away, so that its rows keep a weight of about 1, and one that is far off loses in proportion.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fedcof.covariance.client_means import ClientMeans

MOST_GROUPS = 20
STEPS = 50
# Distances are taken to be no less than this share of the class's median one: of two or three groups the median may
# be one of them, which would have all the weight.
LEAST_DISTANCE = 0.3


def weights_of_median(means: ClientMeans, seed: int = 0) -> Tensor:
    """Weigh class means so that their weighted mean is the geometric median over groups of clients.

    Parameters
    ----------
    means : ClientMeans
        Of all clients.
    seed : int
        By which clients are dealt to groups, of one client each where they are at most 20.

    Returns
    -------
    Tensor of shape (R,), float64
        What the count of each is to be multiplied by; the sum of counts of a class stays what it was.
    """
    generator = torch.Generator().manual_seed(seed)
    groups = min(MOST_GROUPS, means.num_clients)
    group = (torch.randperm(means.num_clients, generator=generator) % groups)[means.clients]
    cell = means.class_ids * groups + group
    shape = (means.num_classes, groups)
    counts = torch.zeros(shape[0] * groups, dtype=torch.float64).index_add_(0, cell, means.counts)
    sums = torch.zeros(len(counts), means.feature_dim, dtype=torch.float64)
    sums.index_add_(0, cell, means.means.double() * means.counts[:, None])
    of_groups = (sums / counts.clamp(min=1e-300)[:, None]).view(*shape, -1)
    shares = _shares(of_groups, counts.view(shape))
    totals = counts.view(shape).sum(dim=1, keepdim=True)
    return (shares * totals / counts.view(shape).clamp(min=1e-300)).flatten()[cell]


def _shares(of_groups: Tensor, counts: Tensor) -> Tensor:
    """Share of each group (C, B) in the geometric median of its class, by Weiszfeld's steps from the mean."""
    weights = counts.sqrt()
    shares = counts
    for _ in range(STEPS):
        shares = shares / shares.sum(dim=1, keepdim=True).clamp(min=1e-300)
        median = torch.einsum("cb,cbd->cd", shares, of_groups)
        distances = torch.linalg.vector_norm(of_groups - median[:, None], dim=2)
        scaled = torch.where(counts > 0, distances * weights, torch.nan)
        least = LEAST_DISTANCE * scaled.nanmedian(dim=1, keepdim=True).values.nan_to_num()
        # A class that one group has, or all of whose groups agree, is its mean.
        scaled = torch.maximum(scaled.nan_to_num(), least)
        shares = torch.where(scaled > 0, counts / scaled.clamp(min=1e-300), counts)
    return shares / shares.sum(dim=1, keepdim=True).clamp(min=1e-300)
