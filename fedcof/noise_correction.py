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

    @property
    def of_method(self) -> Aggregator:
        """The method's own aggregator."""
        return self._aggregator

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

    It follows from the promise and the counts, and so is not sent.

    Parameters
    ----------
    upload : ClassMeans or EncodedClassMeans
        R rows as they were received, with the noise of their encoding.
    privacy : Privacy
        The promise that was asked for.
    """

    upload: ClassMeanRows
    privacy: Privacy

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


def check_plausible(upload: ClassMeanRows | FeatureMoments, privacy: Privacy, num_classes: int) -> None:
    """Refuse an upload that clipping and noise cannot have made; nothing else can be told of noisy uploads.

    Parameters
    ----------
    upload : ClassMeans, EncodedClassMeans or FeatureMoments
        What was received.
    privacy : Privacy
        The promise that was asked for.
    num_classes : int
        Number of classes of the whole federation, some of which may have been withheld.

    Raises
    ------
    UserError
        If a class sum is longer than B times its count, or a Gram matrix larger than B^2 times all counts, with
        eight standard deviations of the noise.
    """
    counts = upload.counts.to(torch.float64)
    rows = upload.sums if isinstance(upload, FeatureMoments) else upload.means
    lengths = torch.linalg.vector_norm(rows.to(torch.float64), dim=1)
    largest = privacy.clip_norm * (counts + MOST_DEVIATIONS * privacy.count_noise + 1)
    largest += privacy.sum_noise * (math.sqrt(upload.feature_dim) + MOST_DEVIATIONS)
    if isinstance(upload, FeatureMoments):
        holds = _gram_norm(upload) <= _largest_gram_norm(upload, privacy, num_classes)
    else:
        # Rounding is off by at most half a step, and its noise is given as a twelfth of the step's square.
        rounding = 0.0 if upload.noise is None else (3 * upload.feature_dim * upload.noise.to(torch.float64)).sqrt()
        lengths, holds = (lengths - rounding) * counts, True
    if not holds or bool((lengths > 1.001 * largest).any()):
        raise UserError(
            "The upload is larger than clipping and privacy noise can make it: ask for it with the same clip-norm "
            "and epsilon as it was made with."
        )


def _gram_norm(upload: FeatureMoments) -> float:
    rows, columns = torch.triu_indices(upload.feature_dim, upload.feature_dim)
    twice = torch.where(rows == columns, 1, 2)
    return float((upload.gram.to(torch.float64).square() * twice).sum().sqrt())


def _largest_gram_norm(upload: FeatureMoments, privacy: Privacy, num_classes: int) -> float:
    """Bound the Frobenius norm, given that classes may have been withheld for their small counts."""
    withheld = privacy.smallest_count + MOST_DEVIATIONS * privacy.count_noise
    samples = int(upload.counts.sum()) + withheld * num_classes
    entries = upload.feature_dim * (upload.feature_dim + 1) / 2
    noise = privacy.gram_noise * (math.sqrt(entries) + MOST_DEVIATIONS)
    return privacy.clip_norm**2 * samples + noise
