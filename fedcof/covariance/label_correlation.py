r"""The correlation between labels and features, of class statistics alone.

Deshpande et al. (2021, arXiv 2102.00084) choose among backbones by how well the kernel :math:`K = F F^T` of the
features F (N, d) goes with the kernel Y of the labels, 1 for two samples of a class and -1 for two others: the mean
of all :math:`N^2` entries is taken off each matrix, and their Frobenius product divided by their Frobenius norms.
With :math:`M = F^T F` and :math:`m = 2 \sum_c N_c^2 / N^2 - 1` that is

.. math:: \frac{2 \left( \sum_c N_c^2 |\mu_c|^2 - |\mu|^2 \sum_c N_c^2 \right)}
          {\sqrt{|M|_F^2 - N^2 |\mu|^4} \; N \sqrt{1 - m^2}}

because :math:`\langle K, Y \rangle = 2 \sum_c N_c^2 |\mu_c|^2 - N^2 |\mu|^2`, the entries of K have the mean
:math:`|\mu|^2` and those of Y the mean m, and :math:`F F^T` has the norm of :math:`F^T F`. Nothing cancels where it
is written by the scatter C around the mean of all samples, :math:`M = C + N \mu \mu^T`:
:math:`|M|_F^2 - N^2 |\mu|^4 = |C|_F^2 + 2 N \mu^T C \mu`. Rows and columns are not centred one by one, which
would be another number, the centred kernel alignment: this one changes with where the features' origin is.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fedcof.covariance.totals import ClassTotals


def label_correlation(scatter: Tensor, totals: ClassTotals, noise: float = 0.0) -> float | None:
    """Correlate labels and features by the within-class scatter and the class means.

    Exact for the scatter of all samples. One that was rebuilt from class means is right in the mean, but its norm
    is too long by what it is off by: the correlation comes out too low, the more so the fewer rows there are.

    Parameters
    ----------
    scatter : Tensor of shape (d, d), float64
        Within-class scatter W of all samples, not shrunk, in squared feature units; only read.
    totals : ClassTotals
        Class counts and means.
    noise : float
        What known noise has added to the diagonal of the scatter, in squared feature units.

    Returns
    -------
    float or None
        From -1 to 1; None where there is nothing to correlate: samples of one class alone, or all features alike.
    """
    shifts = _weighted_shifts(totals)
    total = torch.addmm(scatter, shifts.T, shifts)
    if noise:
        total.diagonal().sub_(noise)
    mean = totals.global_mean
    return _correlation(float(torch.linalg.matrix_norm(total)) ** 2, float(mean @ total @ mean), totals)


def label_correlation_of_factor(factor: Tensor, totals: ClassTotals, noise: float = 0.0) -> float | None:
    """Correlate labels and features by fewer rows than dimensions, in the space of these rows.

    Parameters
    ----------
    factor : Tensor of shape (R, d), float64
        Rows X whose products X^T X are the within-class scatter, not shrunk.
    totals, noise
        See :func:`label_correlation`.

    Returns
    -------
    float or None
        As :func:`label_correlation`.
    """
    rows = torch.cat([factor, _weighted_shifts(totals)])
    products, mean = rows @ rows.T, totals.global_mean
    squared_norm = products.square().sum() - 2 * noise * products.trace() + rows.shape[1] * noise**2
    along_mean = (rows @ mean).square().sum() - noise * (mean @ mean)
    return _correlation(float(squared_norm), float(along_mean), totals)


def label_correlation_of_gram(gram: Tensor, totals: ClassTotals) -> float | None:
    """Correlate labels and features by the Gram matrix of the features.

    Parameters
    ----------
    gram : Tensor of shape (d, d), float64
        M = F^T F over all samples, in squared feature units; only read.
    totals : ClassTotals
        Class counts and means.

    Returns
    -------
    float or None
        As :func:`label_correlation`.
    """
    mean = totals.global_mean
    total = torch.addr(gram, mean, mean, alpha=-totals.num_samples)
    return _correlation(float(torch.linalg.matrix_norm(total)) ** 2, float(mean @ total @ mean), totals)


def _weighted_shifts(totals: ClassTotals) -> Tensor:
    """Rows sqrt(N_c) (mu_c - mu) whose products are the scatter between classes: shape (C, d)."""
    return totals.counts.sqrt()[:, None] * (totals.means - totals.global_mean)


def _correlation(squared_norm: float, along_mean: float, totals: ClassTotals) -> float | None:
    """Put together |C|_F^2, mu^T C mu and the class statistics."""
    number, mean, squares = totals.num_samples, totals.global_mean, totals.counts.square()
    shifts = totals.means - mean
    covaried = 2 * float(squares @ (shifts.square().sum(dim=1) + 2 * (shifts @ mean)))
    of_labels = 2 * float(squares.sum()) / number**2 - 1
    of_kernel = squared_norm + 2 * number * along_mean
    if of_labels >= 1 or of_kernel <= 0:
        return None
    return covaried / (math.sqrt(of_kernel) * number * math.sqrt(1 - of_labels**2))
