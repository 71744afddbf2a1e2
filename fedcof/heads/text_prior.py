r"""What class names know, as a prior of class means.

With g the mean of the class means and T_c the unit-length text prototype of class c, the class mean is taken to be
drawn around :math:`g + \ell T_c`, so that what is known of it after N_c samples is

.. math:: m_c = g + \lambda_c (\mu_c - g) + (1 - \lambda_c) \ell T_c, \qquad
          \lambda_c = \frac{N_c}{N_c + \kappa}

in which :math:`\ell` is the length of a class mean from g, without what its own noise adds to it. kappa is how many
samples the prototype is worth (empirical Bayes, from the statistics alone): the within-class variance over the
variance of class means around their prototypes at the length s that fits best,

.. math:: \kappa = \frac{\mathrm{tr} \Sigma}{\frac1C \sum_c \big(|\mu_c - g - s T_c|^2
          - \mathrm{tr} \Sigma / N_c\big)}, \qquad s = \frac1C \sum_c T_c^T (\mu_c - g)

Any head is solved with the means m_c in place of the class means. Classes that nobody holds: see
:mod:`fedcof.heads.unheld`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from fedcof.covariance.totals import ClassTotals
from fedcof.errors import UserError

# Where no class shows how far its samples scatter.
USUAL_SAMPLES = 4.0
FEWEST_SAMPLES, MOST_SAMPLES = 0.5, 64.0


@dataclass(frozen=True, eq=False)
class TextPrior:
    """What class names foretell of class means.

    Parameters
    ----------
    prototypes : Tensor of shape (C, d), floating point
        Unit-length direction in which each class's mean is expected from the mean of all.
    samples : float
        Number of samples kappa that a prototype is worth; 0 to have it estimated.
    directions : int
        On how many leading directions of the prototypes class means are projected before mixing; 0 for none.
    risk : float
        Share of the held classes' samples that may be given to classes that nobody holds, above 0 and below 1.
    """

    prototypes: Tensor
    samples: float = 0.0
    directions: int = 0
    risk: float = 0.0025

    def check_fits(self, num_classes: int, feature_dim: int) -> None:
        """Check that there is a prototype of each class in the features' space; raises UserError."""
        if self.prototypes.shape != (num_classes, feature_dim):
            raise UserError(
                f"The text prototypes have the shape {tuple(self.prototypes.shape)}, but there are {num_classes} "
                f"classes of {feature_dim} features: give one in the features' space for each class."
            )

    def expected(self, totals: ClassTotals, variance: float) -> Expected:
        """Expect class means from prototypes and class means.

        Parameters
        ----------
        totals : ClassTotals
            What the uploads add up to.
        variance : float
            Within-class variance tr Sigma, in squared feature units; 0 where it is not known.

        Returns
        -------
        Expected
            For all classes.
        """
        held = totals.present
        prototypes = self.prototypes.to(torch.float64)
        centre = totals.means[held].mean(dim=0)
        away = (totals.means - centre) * held[:, None]
        noise = variance / totals.counts[held]
        length = math.sqrt(max(float((away[held].square().sum(dim=1) - noise).mean()), 0.0))
        fitted = float((away[held] * prototypes[held]).sum(dim=1).mean())
        remains = (away[held] - fitted * prototypes[held]).square().sum(dim=1) - noise
        samples = self.samples or _worth(variance, float(remains.mean()))
        if self.directions:
            leading = torch.linalg.svd(prototypes, full_matrices=False).Vh[: self.directions]
            away = away @ leading.T @ leading
        share = (totals.counts / (totals.counts + samples))[:, None]
        means = centre + share * away + (1 - share) * length * prototypes
        known = float(share[held].mean())
        unheld = known * fitted + (1 - known) * length
        return Expected(means, centre, samples, unheld, math.hypot(math.sqrt(variance), length))


@dataclass(frozen=True, eq=False)
class Expected:
    """What is expected of classes.

    Attributes
    ----------
    means : Tensor of shape (C, d), float64
        Class means m.
    centre : Tensor of shape (d,), float64
        Mean g of the class means.
    samples : float
        Number of samples kappa that a prototype is worth.
    unheld_length : float
        Length of the mean of a class that nobody holds from g, in feature units.
    spread : float
        Root of the mean squared distance of samples from g, in feature units.
    """

    means: Tensor
    centre: Tensor
    samples: float
    unheld_length: float
    spread: float


def _worth(variance: float, remains: float) -> float:
    if not variance:
        return USUAL_SAMPLES
    if remains <= 0:
        return MOST_SAMPLES
    return min(max(variance / remains, FEWEST_SAMPLES), MOST_SAMPLES)
