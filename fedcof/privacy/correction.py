"""What is known of privacy noise, taken off rows and lengths."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fedcof.privacy.mechanism import Privacy, mean_noise
from fedcof.statistics.class_means import ClassMeanRows

# Below this share of a class mean's squared length what is left after the noise is chance itself.
SMALLEST_SIGNAL = 0.2


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
class PrivateRows(ClassMeanRows):
    """Received class means with the noise that their clients were asked to put on them.

    It follows from the promise and the counts, and so is not sent.

    Parameters
    ----------
    class_ids, counts
        Of the rows; the counts are noisy.
    upload : ClassMeanRows
        R rows as they were received, with the noise of their encoding.
    privacy : Privacy
        The promise that was asked for.
    """

    upload: ClassMeanRows
    privacy: Privacy

    @staticmethod
    def of(upload: ClassMeanRows, privacy: Privacy) -> PrivateRows:
        """Say of received rows what noise they carry.

        Parameters
        ----------
        upload, privacy
            See the class.

        Returns
        -------
        PrivateRows
            The same rows.
        """
        return PrivateRows(upload.class_ids, upload.counts, upload, privacy)

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
    def feature_dim(self) -> int:
        """Dimension d of the feature vectors."""
        return self.upload.feature_dim

    def rows(self, block: slice) -> Tensor:
        """Read the means of some rows; see :meth:`fedcof.statistics.class_means.ClassMeanRows.rows`."""
        return self.upload.rows(block)
