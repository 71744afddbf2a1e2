"""Fed3R: ridge regression on federated second-order statistics."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from fedcof.covariance.backbone_scores import BackboneScores
from fedcof.covariance.label_correlation import label_correlation_of_gram
from fedcof.covariance.totals import ClassTotals
from fedcof.errors import UserError
from fedcof.heads.linear import LinearClassifier
from fedcof.heads.ridge import ridge_from_gram
from fedcof.heads.solving import SingularSystemError
from fedcof.methods.base import Aggregator, Sources, check_sizes
from fedcof.methods.method import FederatedMethod, Samples
from fedcof.methods.noise_corrected import noise_corrected
from fedcof.methods.role import Role
from fedcof.methods.unsolvable import unsolvable_moments
from fedcof.privacy.mechanism import Privacy
from fedcof.privacy.noise import NoiseSource
from fedcof.privacy.plausibility import check_plausible
from fedcof.privacy.release import private_feature_moments
from fedcof.statistics.base import Statistics
from fedcof.statistics.moments import FeatureMoments, feature_moments

if TYPE_CHECKING:
    from fedcof.methods.section import MethodSection
    from fedcof.privacy.section import PrivacySection


class Fed3R:
    """Ridge regression on federated second-order statistics (Fani et al., ICML 2024).

    Uploads are added up as they come: one d x d matrix and C x d sums are kept, however many clients there are.

    Parameters
    ----------
    num_classes : int
        Number of classes C of the whole federation.
    feature_dim : int
        Dimension d of the feature vectors.
    penalty : float
        The ridge penalty lambda, in squared feature units, at least 0.
    gram_noise : float
        Standard deviation of the privacy noise on the diagonal of each upload's Gram matrix, in squared feature
        units (:mod:`fedcof.privacy.release`). The eigenvalues of the sum of K of them reach sqrt(2 K d) times it
        (Wigner); those of the Gram matrix that noise alone may have made are raised to that.

    Attributes
    ----------
    backbone_scores_ : BackboneScores
        What the last :meth:`solve` has seen of the features, unless noise is on them.

    Raises
    ------
    UserError
        If a size is below 1 or the penalty negative.
    """

    def __init__(self, num_classes: int, feature_dim: int, penalty: float = 0.01, gram_noise: float = 0.0) -> None:
        check_sizes(num_classes, feature_dim)
        if not 0 <= penalty < float("inf"):
            raise UserError(
                f"The ridge penalty is {penalty}, but it must be finite and at least 0: give such a number."
            )
        self.num_classes = num_classes
        self.feature_dim = feature_dim
        self.penalty = penalty
        self.gram_noise = gram_noise
        self._sources = Sources()
        self._counts = torch.zeros(num_classes, dtype=torch.int64)
        self._sums = torch.zeros(num_classes, feature_dim, dtype=torch.float64)
        self._gram = torch.zeros(feature_dim * (feature_dim + 1) // 2, dtype=torch.float64)

    def add(self, upload: FeatureMoments, source: int | None = None) -> None:
        """Add one client's upload.

        Parameters
        ----------
        upload : FeatureMoments
            The client's class sums and Gram matrix.
        source : int, optional
            The client's number, so that none is added twice. Sums are taken in float64 in the order of the calls.

        Raises
        ------
        UserError
            If the upload does not fit the federation, or its source has been added before.
        """
        upload.check_fits(self.num_classes, self.feature_dim)
        self._sources.take(source)
        self._counts.index_add_(0, upload.class_ids, upload.counts)
        self._sums.index_add_(0, upload.class_ids, upload.sums.to(torch.float64))
        self._gram.add_(upload.gram)

    @property
    def num_uploads(self) -> int:
        """Number of uploads taken in."""
        return len(self._sources)

    def solve(self) -> LinearClassifier:
        """Solve for the classifier of all uploads so far.

        Returns
        -------
        LinearClassifier
            Unit-length weights (C, d), float32, no bias.

        Raises
        ------
        UserError
            If there is no sample in any upload, or the system has no solution.
        """
        self._check_samples()
        gram = torch.zeros(self.feature_dim, self.feature_dim, dtype=torch.float64)
        rows, columns = torch.triu_indices(self.feature_dim, self.feature_dim)
        gram[rows, columns] = self._gram
        gram[columns, rows] = self._gram
        self.backbone_scores_ = BackboneScores(None if self.gram_noise else self._label_correlation(gram))
        if self.gram_noise:
            eigenvalues, vectors = torch.linalg.eigh(gram)
            noise = self.gram_noise * math.sqrt(2 * self.num_uploads * self.feature_dim)
            gram = (vectors * eigenvalues.clamp(min=noise)) @ vectors.T
        gram.diagonal().add_(self.penalty)
        try:
            return ridge_from_gram(gram, self._sums, self._counts > 0)
        except SingularSystemError as error:
            raise unsolvable_moments(int(self._counts.sum()), self.feature_dim, self.penalty) from error

    def _label_correlation(self, gram: Tensor) -> float | None:
        counts = self._counts.to(torch.float64)
        # As many rows as samples: a Gram matrix hides none.
        return label_correlation_of_gram(gram, ClassTotals(counts, counts, self.class_means()))

    def class_means(self) -> Tensor:
        """Divide the class sums by their counts.

        Returns
        -------
        Tensor of shape (C, d), float64
            Mean feature vector of each class; zero for a class that nobody has.

        Raises
        ------
        UserError
            If there is no sample in any upload.
        """
        self._check_samples()
        return self._sums / self._counts.clamp(min=1)[:, None]

    def _check_samples(self) -> None:
        if not self._counts.any():
            raise UserError("No client has sent a sample's statistics: add an upload before solving.")


class Fed3RMethod(FederatedMethod):
    """Both ends of Fed3R."""

    name: ClassVar[str] = "fed3r"
    title: ClassVar[str] = "Fed3R"
    colour: ClassVar[str] = "#D55E00"
    marker: ClassVar[str] = "D"
    role: ClassVar[Role] = Role.CEILING
    statistics: ClassVar[type[Statistics]] = FeatureMoments
    takes_penalty: ClassVar[bool] = True

    def measure(self, samples: Samples, groups: int) -> FeatureMoments:
        """Add up classes and products; see :meth:`FederatedMethod.measure`."""
        return feature_moments(samples.features, samples.labels)

    def measure_privately(
        self, samples: Samples, groups: int, privacy: Privacy, source: NoiseSource
    ) -> FeatureMoments:
        """Add up clipped samples under noise; see :meth:`FederatedMethod.measure_privately`."""
        return private_feature_moments(samples.features, samples.labels, samples.num_classes, privacy, source)

    def received(
        self, statistics: Statistics, privacy: Privacy, num_classes: int, subtract_noise: bool
    ) -> FeatureMoments:
        """Check the sizes of sums and Gram matrix; see :meth:`FederatedMethod.received`."""
        assert isinstance(statistics, FeatureMoments)
        check_plausible(statistics, privacy, num_classes)
        return statistics

    def aggregator(
        self,
        num_classes: int,
        feature_dim: int,
        section: MethodSection,
        privacy: Privacy | None = None,
        subtract_noise: bool = True,
    ) -> Aggregator:
        """Make the server's end; see :meth:`FederatedMethod.aggregator`."""
        gram_noise = privacy.gram_noise if privacy else 0.0
        aggregator = Fed3R(num_classes, feature_dim, section.ridge_penalty, gram_noise)
        return noise_corrected(aggregator, privacy, subtract_noise)

    def promise(self, section: PrivacySection) -> Privacy | None:
        """Divide what is promised between counts, sums and the Gram matrix; see :meth:`FederatedMethod.promise`."""
        promised = super().promise(section)
        return promised and replace(promised, with_gram=True)


METHOD = Fed3RMethod()
