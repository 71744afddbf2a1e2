r"""The mean squared length of feature vectors, from what clients upload: how curved the loss of a softmax can be.

Of moments it is the trace of the Gram matrix over the samples. Class means lack how samples scatter around them,
but tell of it by how the rows of a class scatter between clients: for the K_c rows of class c, of N_c samples,

.. math:: E|x|^2 = \frac{1}{N} \Big(\sum_r n_r |m_r|^2 + t \sum_c (N_c - K_c)\Big), \qquad
   t = \frac{\sum_r n_r |m_r|^2 - \sum_c N_c |\mu_c|^2}{\sum_c (K_c - 1)}

because t estimates the trace of the within-class covariance without bias (:mod:`fedcof.covariance.scatter`), and
a row of n samples lacks n - 1 of it. No matrix is made. Where no class has two rows, t is taken for zero.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fedcof.statistics.base import Statistics
from fedcof.statistics.class_means import ClassMeanRows


class SquaredLength:
    """A running account of uploads, from which the mean squared length of all samples follows.

    Parameters
    ----------
    num_classes : int
        Number of classes C.
    """

    def __init__(self, num_classes: int) -> None:
        self._squares = 0.0
        self._samples = 0.0
        self._counts = torch.zeros(num_classes, dtype=torch.float64)
        self._rows = torch.zeros(num_classes, dtype=torch.float64)

    def add(self, upload: Statistics) -> None:
        """Take one client's upload in.

        Parameters
        ----------
        upload : Statistics
            Class means, or what knows the squares of its samples.
        """
        counts = upload.counts.to(torch.float64)
        self._samples += float(counts.sum())
        self._squares += upload.sum_of_squares()
        if isinstance(upload, ClassMeanRows):
            if upload.noise is not None:
                self._squares -= upload.feature_dim * float((counts * upload.noise).sum())
            self._counts.index_add_(0, upload.class_ids, counts)
            self._rows += torch.bincount(upload.class_ids, minlength=len(self._rows))

    def mean(self, class_means: Tensor) -> float:
        """Estimate the mean squared length.

        Parameters
        ----------
        class_means : Tensor of shape (C, d), float64
            Of all uploads together.

        Returns
        -------
        float
            E|x|^2 in squared feature units; 0 without a sample.
        """
        if not self._samples:
            return 0.0
        freedom = float((self._rows - 1).clamp(min=0).sum())
        between = self._squares - float(self._counts @ class_means.square().sum(dim=1))
        trace = max(between, 0.0) / freedom if freedom else 0.0
        squares = self._squares + trace * float((self._counts - self._rows).sum())
        return max(squares, 0.0) / self._samples
