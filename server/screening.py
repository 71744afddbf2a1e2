"""Screening of uploads: features of one backbone have one scale, and an upload far from it is not of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import median

import torch

from fedcof.statistics.base import Statistics

# Class means of one backbone on very different images (digits, CIFAR-100) differ in length by less than a third.
LARGEST_RATIO = 10.0
FEWEST_UPLOADS = 3


def feature_scale(upload: Statistics) -> float:
    """Measure how long an upload's feature vectors are.

    Parameters
    ----------
    upload : Statistics
        With at least one sample.

    Returns
    -------
    float
        Root of the mean squared length of its means, weighted by their samples; of its features, for moments.
    """
    return math.sqrt(max(upload.sum_of_squares() / float(upload.counts.to(torch.float64).sum()), 0.0))


def implausible(scales: Mapping[int, float]) -> dict[int, str]:
    """Find the uploads that cannot be of the others' backbone.

    Parameters
    ----------
    scales : mapping of int to float
        Scale of each client's upload. Of fewer than three nobody can say which is wrong.

    Returns
    -------
    dict of int to str
        Why, for each client whose scale is more than ten times the median, or less than a tenth of it.
    """
    if len(scales) < FEWEST_UPLOADS:
        return {}
    middle = median(scales.values())
    return {
        client: f"its features are {scale:.3g} long where the median client's are {middle:.3g}"
        for client, scale in scales.items()
        if not middle / LARGEST_RATIO <= scale <= middle * LARGEST_RATIO
    }
