"""Privacy noise on the server: what is known of it is taken off the covariance and the class means' lengths.

The noise of a class's sum over K_c rows is known, :math:`K_c s_x^2` in every coordinate, but not its direction. It
makes the class mean longer, by :math:`d K_c s_x^2 / N_c^2` in its expected square, and more so for classes of few
samples or many rows. A head that scales each class's vector by its length would let those classes lose.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fedcof.errors import UserError
from fedcof.heads.classifier import Classifier
from fedcof.heads.linear import LinearClassifier
from fedcof.methods.base import Aggregator, shrinkage_used
from fedcof.privacy.correction import signal_share
from fedcof.privacy.mechanism import Privacy
from fedcof.statistics.class_means import ClassMeanRows
from fedcof.statistics.moments import FeatureMoments


class NoiseCorrected:
    """A method's aggregator whose class vectors have the length they would have without privacy noise.

    Parameters
    ----------
    aggregator : FedNCM, FedCOF or Fed3R
        With a head that gives vectors of unit length, where lengths are corrected.
    privacy : Privacy
        The promise that all uploads were made with.
    corrects_lengths : bool
        False to leave the classifier as it is solved, and only to say so where the noise has hidden every class.
    """

    def __init__(self, aggregator: Aggregator, privacy: Privacy, corrects_lengths: bool = True) -> None:
        self.num_classes, self.feature_dim = aggregator.num_classes, aggregator.feature_dim
        self._aggregator = aggregator
        self._privacy, self._corrects_lengths = privacy, corrects_lengths
        self._rows = torch.zeros(self.num_classes, dtype=torch.int64)
        self._counts = torch.zeros(self.num_classes, dtype=torch.int64)
        self._has_uploads = False

    def add(self, upload: ClassMeanRows | FeatureMoments, source: int | None = None) -> None:
        """Take one client's upload in; see the method's own aggregator."""
        self._aggregator.add(upload, source)
        self._has_uploads = True
        self._rows += torch.bincount(upload.class_ids, minlength=self.num_classes)
        self._counts.index_add_(0, upload.class_ids, upload.counts)

    @property
    def of_method(self) -> Aggregator:
        """The method's own aggregator."""
        return self._aggregator

    @property
    def shrinkage_(self) -> float | None:
        """How much the method's own aggregator has shrunk its covariance."""
        return shrinkage_used(self._aggregator)

    def class_means(self) -> Tensor:
        """Average the uploads' means; see the method's own aggregator."""
        return self._aggregator.class_means()

    def solve(self) -> Classifier:
        """Solve for the classifier of all uploads so far, and correct its vectors' lengths.

        Returns
        -------
        Classifier
            Where lengths are corrected, a linear one with a weight (C, d) of at least unit length, float32.

        Raises
        ------
        UserError
            If there is no sample in any upload, or the system has no solution.
        """
        if self._has_uploads and not bool(self._counts.any()):
            raise UserError(
                f"The clients withheld every class, because at an epsilon of {self._privacy.epsilon:g} the noise "
                "hides how many samples they have: give a larger epsilon, or ask clients with more samples."
            )
        solved = self._aggregator.solve()
        if not self._corrects_lengths:
            return solved
        assert isinstance(solved, LinearClassifier)
        noise = self._rows * (self._privacy.sum_noise / self._counts.clamp(min=1)).square()
        lengths = signal_share(self.class_means(), noise).sqrt().to(torch.float32)
        return LinearClassifier(solved.weight / lengths[:, None], solved.bias, solved.present, solved.class_names)


def noise_corrected(aggregator: Aggregator, privacy: Privacy | None, subtract_noise: bool) -> Aggregator:
    """Have an aggregator know of a promise, if there is one, and correct lengths where noise is to be taken off."""
    return NoiseCorrected(aggregator, privacy, corrects_lengths=subtract_noise) if privacy else aggregator
