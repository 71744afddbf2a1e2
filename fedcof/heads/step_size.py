r"""Step sizes at which training a softmax head does not overshoot, whatever the scale of the features.

The Hessian of the mean cross-entropy of a linear head with a bias is at most :math:`h\,E[x' x'^T]` in every
direction, where :math:`x' = (x, 1)` and h is the largest eigenvalue of :math:`diag(p) - p p^T`: 1 / C where all C
classes are as likely, and never above 1/2. Gradient descent lowers the loss at steps below two over that, so

.. math:: \eta = \frac{\min(0.8\,C, 32)}{E|x|^2 + 1}

is less than half of what is safe where training starts from nothing, and safe for two classes anywhere. It stays so
while probabilities are about right and classes about as large: a class then has a share of about 1 / C in all
samples' probabilities, and its weights no more curvature than that. On digits (C = 10) the whole Hessian's largest
eigenvalue was measured: 0.15 times E|x|^2 for a random head, 0.05 for FedNCM's, 0.03 for FedCOF's and 0.01 for
Fed3R's, so that steps below 13, 42, 71 and 250 over E|x|^2 do not overshoot there. A client of few classes sees
more curvature than all clients together, which is what the 32 is for.

Adam's step is one of each weight and has no scale of the gradient's: it moves every weight by about its size, and
so a score by at most that times :math:`|x|_1 \le \sqrt{d}\,|x|`. It is bounded by the nats that a score may move.
"""

from __future__ import annotations

import math

A_CLASS, MOST = 0.8, 32.0


def gradient_step(squared_length: float, num_classes: int) -> float:
    """Give the step size of gradient descent.

    Parameters
    ----------
    squared_length : float
        Mean squared length E|x|^2 of the feature vectors, at least 0.
    num_classes : int
        Number of classes C.

    Returns
    -------
    float
        Above 0, at most 32.
    """
    return min(A_CLASS * num_classes, MOST) / (squared_length + 1)


def sign_step(squared_length: float, feature_dim: int, nats: float) -> float:
    """Give the size of a step that moves every weight by as much.

    Parameters
    ----------
    squared_length : float
        Mean squared length E|x|^2 of the feature vectors, at least 0.
    feature_dim : int
        Dimension d of the feature vectors.
    nats : float
        The most that a step may move the score of a vector of that length.

    Returns
    -------
    float
        Above 0, at most ``nats``.
    """
    return nats / (1 + math.sqrt(feature_dim * squared_length))
