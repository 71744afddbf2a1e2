"""Privacy noise on the server: what is known of it is taken off the covariance and the class means' lengths.

The noise of a class's sum over K_c rows is known, :math:`K_c s_x^2` in every coordinate, but not its direction. It
makes the class mean longer, by :math:`d K_c s_x^2 / N_c^2` in its expected square, and more so for classes of few
samples or many rows. A head that scales each class's vector by its length would let those classes lose.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from fedcof.aggregators import Aggregator
from fedcof.classifiers import LinearClassifier
from fedcof.errors import UserError
from fedcof.privacy import Privacy, mean_noise
from fedcof.statistics import ClassMeanRows, FeatureMoments, check_problem

# Noise beyond this many deviations is not met in the life of a federation.
MOST_DEVIATIONS = 8.0
# Below this share of a class mean's squared length what is left after the noise is chance itself.
SMALLEST_SIGNAL = 0.2


class NoiseCorrected:
    """A method's aggregator whose class vectors have the length they would have without privacy noise.

    Parameters
    ----------
    aggregator : FedNCM, FedCOF or Fed3R
        With a head that gives vectors of unit length.
    privacy : Privacy
        The promise that all uploads were made with.
    """

    def __init__(self, aggregator: Aggregator, privacy: Privacy) -> None:
        self.num_classes, self.feature_dim = aggregator.num_classes, aggregator.feature_dim
        self._aggregator = aggregator
        self._privacy = privacy
        self._rows = torch.zeros(self.num_classes, dtype=torch.int64)
        self._counts = torch.zeros(self.num_classes, dtype=torch.int64)

    def add(self, upload: ClassMeanRows | FeatureMoments, source: int | None = None) -> None:
        """Take one client's upload in; see the method's own aggregator."""
        self._aggregator.add(upload, source)
        self._rows += torch.bincount(upload.class_ids, minlength=self.num_classes)
        self._counts.index_add_(0, upload.class_ids, upload.counts)

    def class_means(self) -> Tensor:
        """Average the uploads' means; see the method's own aggregator."""
        return self._aggregator.class_means()

    def solve(self) -> LinearClassifier:
        """Solve for the classifier of all uploads so far, and correct its vectors' lengths.

        Returns
        -------
        LinearClassifier
            Weight (C, d) of at least unit length, float32.

        Raises
        ------
        UserError
            If there is no sample in any upload, or the system has no solution.
        """
        if not bool(self._counts.any()):
            raise UserError(
                f"The clients withheld every class, because at an epsilon of {self._privacy.epsilon:g} the noise "
                "hides how many samples they have: give a larger epsilon, or ask clients with more samples."
            )
        solved = self._aggregator.solve()
        noise = self._rows * (self._privacy.sum_noise / self._counts.clamp(min=1)).square()
        lengths = signal_share(self.class_means(), noise).sqrt().to(torch.float32)
        return LinearClassifier(solved.weight / lengths[:, None], solved.bias, solved.present, solved.class_names)


def signal_share(means: Tensor, noise: Tensor) -> Tensor:
    """Tell how much of the squared length of noisy vectors is not noise.

    Parameters
    ----------
    means : Tensor of shape (C, d), float64
        Noisy vectors.
    noise : Tensor of shape (C,), float64
        Variance of the noise in every coordinate of each.

    Returns
    -------
    Tensor of shape (C,), float64
        From 0.2, below which the difference is chance itself, to 1.
    """
    squares = means.square().sum(dim=1)
    share = 1 - means.shape[1] * noise / squares.clamp(min=torch.finfo(squares.dtype).tiny)
    return share.clamp(min=SMALLEST_SIGNAL)


@dataclass(frozen=True, eq=False)
class PrivateRows:
    """Received class means with the noise that their clients were asked to put on them.

    It follows from the promise and the counts and so is not sent. A row that no honest client can have sent is
    refused.

    Parameters
    ----------
    upload : ClassMeans or EncodedClassMeans
        R rows as they were received, with the noise of their encoding.
    privacy : Privacy
        The promise that was asked for.

    Raises
    ------
    UserError
        If a mean is longer than clipping and noise together can make it.
    """

    upload: ClassMeanRows
    privacy: Privacy

    def __post_init__(self) -> None:
        check_plausible(self.upload, self.privacy)

    @property
    def class_ids(self) -> Tensor:
        """Class of each row: shape (R,), int64."""
        return self.upload.class_ids

    @property
    def counts(self) -> Tensor:
        """Noisy number of samples behind each row: shape (R,), int64."""
        return self.upload.counts

    @property
    def noise(self) -> Tensor:
        """Variance of the noise of privacy and of the encoding together: shape (R,), float64."""
        encoding = self.upload.noise
        noise = mean_noise(self.counts, self.privacy)
        return noise if encoding is None else noise + encoding.to(torch.float64)

    @property
    def means(self) -> Tensor:
        """Mean feature vectors: shape (R, d), floating point."""
        return self.upload.means

    @property
    def dtype(self) -> torch.dtype:
        """Type of the means."""
        return self.upload.dtype

    @property
    def num_rows(self) -> int:
        """Number of rows R."""
        return self.upload.num_rows

    @property
    def feature_dim(self) -> int:
        """Dimension d of the feature vectors."""
        return self.upload.feature_dim

    def rows(self, block: slice) -> Tensor:
        """Read the means of some rows; see :meth:`fedcof.ClassMeans.rows`."""
        return self.upload.rows(block)

    def check_fits(self, num_classes: int, feature_dim: int) -> None:
        """Check the rows against the problem they are meant for; see :meth:`fedcof.ClassMeans.check_fits`."""
        check_problem(self, num_classes, feature_dim)


def check_plausible(upload: ClassMeanRows, privacy: Privacy) -> None:
    """Refuse rows that clipping and noise cannot have made.

    Parameters
    ----------
    upload : ClassMeans or EncodedClassMeans
        R rows.
    privacy : Privacy
        The promise.

    Raises
    ------
    UserError
        If the sum behind a row is longer than B times its count, with eight standard deviations of the noise.
    """
    counts = upload.counts.to(torch.float64)
    lengths = torch.linalg.vector_norm(upload.means.to(torch.float64), dim=1)
    features = privacy.clip_norm * (counts + 1 + MOST_DEVIATIONS * privacy.count_noise)
    noise = privacy.sum_noise * (math.sqrt(upload.feature_dim) + MOST_DEVIATIONS)
    encoding = 0.0 if upload.noise is None else (12 * upload.noise.to(torch.float64) * upload.feature_dim).sqrt()
    if bool((lengths > (features + noise) / counts + encoding).any()):
        raise UserError(
            "A class mean is longer than clipping and privacy noise can make it: ask for it with the same "
            "clip-norm and epsilon as it was made with."
        )
