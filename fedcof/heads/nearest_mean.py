"""The nearest class mean, by angle."""

from __future__ import annotations

import torch

from fedcof.covariance.totals import ClassTotals
from fedcof.heads.linear import LinearClassifier, as_classifier, unit_length


def nearest_class_mean(totals: ClassTotals) -> LinearClassifier:
    """Compare with the class means by angle (FedNCM, arXiv 2306.03937).

    Parameters
    ----------
    totals : ClassTotals
        Class means mu_c.

    Returns
    -------
    LinearClassifier
        weight_c = mu_c / |mu_c|, no bias.
    """
    return as_classifier(unit_length(totals.means), torch.zeros(len(totals.means)), totals.present)
