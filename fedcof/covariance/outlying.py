r"""How far each client's class means lie from the other clients', against how far chance puts them.

The mean of n samples of class c is :math:`N(\mu_c, \Sigma_c / n)`, so with the class mean of the other clients
:math:`\mu_c^{(-k)}`, of :math:`N_c - n` samples, and a whitening T of the within-class covariance,

.. math:: x = \frac{|(m - \mu_c^{(-k)}) T|^2}{d}
              \Big/ \Big(\frac1n + \frac1{N_c - n} + \tau (1 + h)\Big)

is about 1, whatever n is: measured on features of CIFAR-100, 0.5 to 1.9. What clients truly differ by, as by
another camera, is :math:`\tau`, in units of a sample's covariance (h is what the others' differences leave in their
mean); it is found where x would otherwise grow with n. Then x is divided by its median, and in part by its class's.
Where the others are too few to be compared with, there is no x.

Wrong uploads move the class means and the covariance that they are to be found by. So it begins with distances
between pairs of clients, of which the median over partners needs neither, and clients are left out and taken back,
the worst first, until those who are in agree with one another.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fedcof.covariance.client_means import ClientMeans
from fedcof.covariance.mixtures import Mixtures, mixtures

# Of two who differ nobody can say which is wrong.
FEWEST_OTHERS = 2
# A client's pairs beyond these say little more.
MOST_PARTNERS = 128
MOST_PASSES = 8
# Those that are this near to being as far off as the worst go out with it.
NEAR_WORST = 0.7

# Probability of leaving any client out, were all as the model says.
LEVEL = 0.01
# Clients of real data are not: less far off, in squared distance, nobody is left out for any level. All J classes
# of a client together, by 1.25 times exp(0.75 / sqrt J), since what is odd about single ones averages out, or one
# class alone.
LEAST_RATIO_AT_START = 1.5
LEAST_RATIO_OF_CLIENT, LEAST_SPREAD, LEAST_RATIO_OF_MEAN = 1.25, 0.75, 4.0
# One sample may be so many times as far off as is usual, and a mean of n by this over n: odd images are no attack.
RATIO_OF_ODD_SAMPLE = 10.0
# A mean may seem to be mixed with another class by so much, and by this times 1/n + 1/N', and by so many spreads.
LEAST_SHARE, SHARE_OF_ODD_SAMPLE, SPREADS_OF_SHARES = 0.45, 2.0, 6.0
MAD_TO_DEVIATION = 1.4826
# The median of so many means of a class says as much of what is usual there as those of all classes.
ROWS_THAT_OUTWEIGH_ALL = 5


@dataclass(frozen=True, eq=False)
class Outlying:
    """How far off clients are.

    Attributes
    ----------
    means : ClientMeans
        Whose distances these are.
    ratios : Tensor of shape (R,), float64
        Squared distance x of each mean from the others', over what is usual; NaN where the others are too few.
    of_clients : Tensor of shape (K,), float64
        Geometric mean of each client's ratios; 1 where it has none.
    excess : Tensor of shape (K,), float64
        How far each client is beyond what is usual, on a scale of logarithms; above 1 for those that are left out.
    mixed : Mixtures or None
        Which means seem to be mixed with another class; None where that was not looked at.
    excess_of_mixtures : Tensor of shape (R,), float64, or None
        By how much, above 1 where it is too much.
    """

    means: ClientMeans
    ratios: Tensor
    of_clients: Tensor
    excess: Tensor
    mixed: Mixtures | None = None
    excess_of_mixtures: Tensor | None = None

    def mixture(self, place: int) -> tuple[int, int, float] | None:
        """Give the class whose mean seems to be mixed, the other class and its share, where a client is out for it.

        Parameters
        ----------
        place : int
            The client's place in ``means.sources``.

        Returns
        -------
        tuple of (int, int, float) or None
            None of a client that is further off in another way.
        """
        if self.mixed is None or self.excess_of_mixtures is None:
            return None
        own = (self.means.clients == place).nonzero()[:, 0]
        row = int(own[self.excess_of_mixtures[own].argmax()])
        if self.excess_of_mixtures[row] < max(float(self.excess[place]), 1.0):
            return None
        return int(self.means.class_ids[row]), int(self.mixed.towards[row]), float(self.mixed.shares[row])

    def worst(self, place: int) -> tuple[int, float]:
        """Give the class in which a client is furthest off, and its ratio there.

        Parameters
        ----------
        place : int
            The client's place in ``means.sources``; one of those that have a ratio.

        Returns
        -------
        tuple of (int, float)
            Class and squared ratio.
        """
        own = (self.means.clients == place).nonzero()[:, 0]
        row = int(own[self.ratios[own].nan_to_num(nan=-1.0).argmax()])
        return int(self.means.class_ids[row]), float(self.ratios[row])


def outlying(means: ClientMeans) -> Outlying:
    """Compare every client's class means with those of the clients that agree with one another.

    Parameters
    ----------
    means : ClientMeans
        Of all clients.

    Returns
    -------
    Outlying
        An excess above 1 for each client that is not one of those that agree.
    """
    out = _far_from_most(means)
    for _ in range(MOST_PASSES):
        # What was left out must not have a say in what is near.
        found, out = _leave_out_worst(_whitened(means, ~out[means.clients]), out)
        again = out & (found.excess <= 1)
        if not again.any():
            break
        out &= ~again
    return replace(found, means=means)


def _far_from_most(means: ClientMeans) -> Tensor:
    """Mark the clients (K,) whose median class mean is far from the median partner's, and never more than half."""
    ratios = _ratios_to_partners(means)
    medians = torch.full((means.num_clients,), torch.nan, dtype=torch.float64)
    for client in torch.unique(means.clients[ratios.isfinite()]).tolist():
        medians[client] = ratios[means.clients == client].nanmedian()
    logs = medians.log()
    middle = logs.nanmedian()
    limit = middle + max(3 * spread_of(logs[logs.isfinite()]), math.log(LEAST_RATIO_AT_START))
    return logs > limit


def _ratios_to_partners(means: ClientMeans) -> Tensor:
    """Median over other clients of |m_k - m_l|^2 over 1 / n_k + 1 / n_l, shape (R,), in units of one another's."""
    ratios = torch.full((len(means.class_ids),), torch.nan, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    by_class = torch.argsort(means.class_ids, stable=True)
    sizes = torch.bincount(means.class_ids, minlength=means.num_classes).tolist()
    for rows in torch.split(by_class, sizes):
        if len(rows) <= FEWEST_OTHERS:
            continue
        partners = rows[torch.randperm(len(rows), generator=generator)[:MOST_PARTNERS]]
        distances = torch.cdist(means.means[rows], means.means[partners]).double().square()
        precision = 1 / (1 / means.counts[rows][:, None] + 1 / means.counts[partners])
        # The root, because who claims many samples must not be heard alone.
        weights = precision.sqrt() * (rows[:, None] != partners)
        ratios[rows] = _weighted_median(distances * precision, weights)
    return ratios


def _weighted_median(values: Tensor, weights: Tensor) -> Tensor:
    """Find the lower weighted median of each row of values (n, m)."""
    ordered, order = values.sort(dim=1)
    cumulated = weights.gather(1, order).cumsum(dim=1)
    middle = (cumulated < cumulated[:, -1:] / 2).sum(dim=1, keepdim=True)
    return ordered.gather(1, middle.clamp(max=values.shape[1] - 1))[:, 0]


@dataclass(frozen=True, eq=False)
class _Whitened:
    """Means in coordinates in which samples of a class have variance 1.

    Attributes
    ----------
    means : ClientMeans
        In these coordinates.
    noise : Tensor of shape (R,), float64
        Variance of known noise there.
    shortened : Tensor of shape (R,), float64
        What the squared distance of each is multiplied by because it is in the covariance; 1 where it is not.
    """

    means: ClientMeans
    noise: Tensor
    shortened: Tensor


def _whitened(means: ClientMeans, taken: Tensor) -> _Whitened:
    """Whiten by the covariance of those that are taken, none of whom has more than the usual length in it.

    It is shrunk by as much as there are dimensions beside rows. A mean that is in the covariance which it is
    measured by seems nearer than one that is not, and by how much follows from its own part (Sherman and Morrison).
    """
    dtype, dim = means.means.dtype, means.feature_dim
    taken = taken & (means.sum_by_class(taken)[means.class_ids] > 1)
    residuals = (means.means - means.class_means(taken)[means.class_ids])[taken]
    residuals *= means.counts[taken].sqrt().to(dtype)[:, None]
    lengths = torch.linalg.vector_norm(residuals, dim=1)
    usual = lengths.median() if len(lengths) else torch.ones((), dtype=dtype)
    residuals *= (usual / lengths.clamp(min=torch.finfo(dtype).tiny)).clamp(max=1)[:, None]
    covariance = (residuals.T @ residuals).double() / max(len(residuals), 1)
    sphere = float(covariance.trace()) / dim or 1.0
    delta = dim / (dim + len(residuals))
    part = (1 - delta) / max(len(residuals), 1)
    covariance.mul_(1 - delta).diagonal().add_(delta * sphere)
    factor = torch.linalg.cholesky(covariance)
    white = torch.linalg.solve_triangular(factor.T.to(dtype), means.means, upper=True, left=False)
    shortened = torch.ones(len(taken), dtype=torch.float64)
    own = torch.linalg.solve_triangular(factor.T.to(dtype), residuals, upper=True, left=False)
    shortened[taken] -= part * own.square().sum(dim=1).double()
    noise_scale = float(torch.linalg.solve_triangular(factor, torch.eye(dim).double(), upper=False).square().sum())
    return _Whitened(means.with_means(white), means.noise * noise_scale / dim, shortened)


def _leave_out_worst(whitened: _Whitened, out: Tensor) -> tuple[Outlying, Tensor]:
    """Leave out who is too far from the others, the worst first, since the others are nearer without it."""
    while True:
        found = _compared(whitened, out)
        too_far = (found.excess > 1) & ~out
        if not too_far.any():
            # Only now, because those who are far off would themselves be what others seem to be mixed with.
            found = _with_mixtures(found, whitened, out)
            too_far = (found.excess > 1) & ~out
        if not too_far.any():
            return found, out
        out = out | (too_far & (found.excess >= NEAR_WORST * found.excess[too_far].max()))


def _compared(whitened: _Whitened, out: Tensor) -> Outlying:
    means = whitened.means
    taken = ~out[means.clients]
    ratios, tested = _ratios_to_others(whitened, taken)
    usual = ratios[tested & taken]
    logs = torch.where(tested, ratios, 1.0).log()
    number = means.sum_by_client(tested)
    average = means.sum_by_client(logs) / number.clamp(min=1)
    if not len(usual):
        return Outlying(means, ratios, average.exp(), torch.zeros_like(average))
    spread = spread_of(usual.log())
    inside = (number > 0) & ~out
    spread_of_clients = max(spread, spread_of((average * number.sqrt())[inside]))
    threshold = _normal_quantile(LEVEL / means.num_clients)
    odd = RATIO_OF_ODD_SAMPLE / means.sum_by_client(means.counts * tested).clamp(min=1)
    limits = threshold * spread_of_clients / number.clamp(min=1).sqrt()
    least_of_clients = (LEAST_RATIO_OF_CLIENT + odd).log() + LEAST_SPREAD / number.clamp(min=1).sqrt()
    limits = torch.maximum(limits, least_of_clients)
    least = (LEAST_RATIO_OF_MEAN + RATIO_OF_ODD_SAMPLE / means.counts).log()
    limits_of_means = least.clamp(min=_normal_quantile(LEVEL / len(usual)) * spread)
    worst = torch.zeros_like(average).scatter_reduce_(0, means.clients, logs / limits_of_means, "amax")
    excess = torch.maximum(average / limits, worst)
    return Outlying(means, ratios, average.exp(), excess)


def _with_mixtures(found: Outlying, whitened: _Whitened, out: Tensor) -> Outlying:
    """Take into account which clients have a mean that seems to be mixed with another class."""
    means = whitened.means
    taken = ~out[means.clients]
    # Of two others who differ one may be mixed itself, and pull the mean of both.
    tested = found.ratios.isfinite() & (_other_holders(means, taken) > FEWEST_OTHERS)
    mixed = mixtures(means, taken, tested)
    known = mixed.shares.isfinite()
    usual = mixed.shares[known & taken]
    if not len(usual):
        return found
    # Samples of similar classes are not normal along the way from one to the other.
    chance = _normal_quantile(LEVEL / (len(usual) * means.num_classes)) * RATIO_OF_ODD_SAMPLE**0.5
    limits = torch.maximum(LEAST_SHARE + SHARE_OF_ODD_SAMPLE * mixed.variances, chance * mixed.deviations)
    limits = limits.clamp(min=SPREADS_OF_SHARES * spread_of(usual))
    excess = torch.where(known, mixed.shares / limits, 0.0)
    of_clients = found.excess.scatter_reduce(0, means.clients, excess, "amax")
    return replace(found, excess=of_clients, mixed=mixed, excess_of_mixtures=excess)


def _other_holders(means: ClientMeans, taken: Tensor) -> Tensor:
    """Count the other clients that are taken and hold the class of each mean (R,)."""
    return means.sum_by_class(taken)[means.class_ids] - taken.double()


def _ratios_to_others(whitened: _Whitened, taken: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the x of each mean (R,), over what is usual, and say which have one."""
    means, samples = whitened.means, whitened.means.counts
    own = samples * taken
    tested = _other_holders(means, taken) >= FEWEST_OTHERS
    total = means.sum_by_class(own)[means.class_ids]
    others = (total - own).clamp(min=torch.finfo(torch.float64).tiny)
    variance = 1 / samples + whitened.noise

    def of_others(values: Tensor) -> Tensor:
        """Give the variance of the others' mean, where each client's has some."""
        sums = means.sum_by_class(own.square() * values)[means.class_ids]
        return (sums - own.square() * values) / others.square()

    distances = torch.linalg.vector_norm(means.means - means.class_means(taken)[means.class_ids], dim=1).double()
    # m - mu^(-k) is longer than m - mu by the share that m has in mu.
    squares = (distances * total / others).square() / means.feature_dim / whitened.shortened
    expected = variance + of_others(variance)
    shifts = 1 + of_others(torch.ones_like(own))
    shifts = shifts / expected
    ratios = torch.where(tested, squares / expected, torch.nan)
    usual = tested & taken
    if usual.any():
        ratios = ratios / (1 + _shift_variance(ratios[usual], shifts[usual]) * shifts)
        ratios = ratios / _usual_of_classes(means, ratios, usual)[means.class_ids]
    return ratios, tested


def _usual_of_classes(means: ClientMeans, ratios: Tensor, usual: Tensor) -> Tensor:
    """Say what is usual in each class (C,), whose samples may scatter more: between its median and that of all."""
    middle = ratios[usual].median().clamp(min=torch.finfo(torch.float64).tiny).log()
    typical = torch.zeros(means.num_classes, dtype=torch.float64)
    for class_id in torch.unique(means.class_ids[usual]).tolist():
        own = ratios[usual & (means.class_ids == class_id)].clamp(min=torch.finfo(torch.float64).tiny).log()
        typical[class_id] = (own.median() - middle) * len(own) / (len(own) + ROWS_THAT_OUTWEIGH_ALL)
    return (middle + typical).exp()


def _shift_variance(ratios: Tensor, shifts: Tensor) -> float:
    """Find the tau with which means of many samples are as far off as those of few, by medians of thirds."""
    third = len(ratios) // 3
    if third < 4:
        return 0.0
    order = shifts.argsort()
    few, many = order[:third], order[-third:]

    def grows(tau: float) -> bool:
        even = ratios / (1 + tau * shifts)
        return bool(even[many].median() > even[few].median())

    low, high = 0.0, 1.0
    if not grows(low):
        return low
    while grows(high) and high < 1e9:
        low, high = high, 4 * high
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if grows(middle) else (low, middle)
    return low


def spread_of(values: Tensor) -> float:
    """Give the standard deviation of normal values whose median distance from their median is that of these."""
    return MAD_TO_DEVIATION * float((values - values.median()).abs().median()) if len(values) else 0.0


def _normal_quantile(probability: float) -> float:
    """Give what a standard normal number is above with a small probability."""
    return -float(torch.special.ndtri(torch.tensor(probability, dtype=torch.float64)))
