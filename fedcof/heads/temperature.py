r"""The temperature at which a closed-form head is a softmax classifier that training can start from.

A head's scores have a scale of their own: ridge rows have unit length, those of LDA do not, and features are of any
norm. Softmax needs scores in nats. The class means say how far a class's own score stands above the others', and

.. math:: s = \frac{7.5}{\frac{1}{C} \sum_c \left(z_{cc} - \frac{1}{C - 1} \sum_{j \neq c} z_{cj}\right)},
   \qquad z_{cj} = w_j^T \mu_c + b_j

makes that 7.5 nats. The number was measured: the scale of the smallest cross-entropy on test samples (CIFAR-100 and
digits; FedNCM, FedCOF with ridge and LDA, Fed3R) puts it between 6.3 and 10, most often between 7 and 8.4.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fedcof.heads.classifier import Classifier
from fedcof.heads.linear import LinearClassifier

START_MARGIN = 7.5


def softmax_start(classifier: LinearClassifier, class_means: Tensor) -> LinearClassifier:
    """Scale a head so that its scores are logits.

    Parameters
    ----------
    classifier : LinearClassifier
        A closed-form head of C classes.
    class_means : Tensor of shape (C, d), floating point
        Mean feature vector of each class; those of classes that nobody has are not looked at.

    Returns
    -------
    LinearClassifier
        The same head times one positive number, so it predicts the same. A class that nobody has gets a bias below
        every other score, from which training can lift it.
    """
    present = classifier.present
    if int(present.sum()) < 2:
        return classifier
    weight, bias = classifier.weight[present].double(), classifier.bias[present].double()
    logits = torch.addmm(bias, class_means[present].double(), weight.T)
    scale = _scale_of(logits)
    lowest = float(logits.min()) * scale - START_MARGIN
    return LinearClassifier(
        weight=classifier.weight * scale,
        bias=torch.where(present, classifier.bias * scale, lowest),
        present=present,
        class_names=classifier.class_names,
    )


def softmax_scale(classifier: Classifier, class_means: Tensor) -> float:
    """Give the number that makes a classifier's scores logits, whatever they are computed by.

    Parameters
    ----------
    classifier : Classifier
        A closed-form head of C classes.
    class_means : Tensor of shape (C, d), floating point
        Mean feature vector of each class; those of classes that nobody has are not looked at.

    Returns
    -------
    float
        Above 0; 1 for fewer than two classes.
    """
    present = classifier.present
    if int(present.sum()) < 2:
        return 1.0
    return _scale_of(classifier.scores(class_means[present].float())[:, present].double())


def _scale_of(logits: Tensor) -> float:
    """Give the scale of the scores (C, C) of class means."""
    own = logits.diagonal()
    others = (logits.sum(dim=1) - own) / (len(own) - 1)
    margin = float((own - others).mean())
    # A head that does not tell the class means apart is taken as it is.
    return START_MARGIN / margin if margin > 0 else 1.0
