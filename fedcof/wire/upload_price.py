"""What an upload of any number of groups costs, told from the rows of two groups a class.

The first row of a class is its mean, whatever the number of groups; every further one holds within-class noise of
the covariance of one sample (see :mod:`fedcof.wire.coded_means`). So one row of each kind a class tells what any
number of them costs, and neither means nor levels have to be made for numbers of groups that are not chosen.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedcof.statistics.class_means import ClassMeans
from fedcof.wire.coded_header import BYTES_PER_ROW
from fedcof.wire.coded_rows import ScaledRows


@dataclass(frozen=True, eq=False)
class UploadPrice:
    """What uploads of a client cost.

    Attributes
    ----------
    rows : ScaledRows
        Those of two groups a class.
    firsts, others : ndarray of shape (C,), float64
        Scale of the first row of each class that the client holds, and of one further row.
    sizes : ndarray of shape (C,), int64
        Samples of each.
    """

    rows: ScaledRows
    firsts: NDArray[np.float64]
    others: NDArray[np.float64]
    sizes: NDArray[np.int64]

    @staticmethod
    def of(means: ClassMeans, rows: ScaledRows, labels: Tensor) -> UploadPrice | None:
        """Read the price off an upload of two groups.

        Parameters
        ----------
        means, rows : ClassMeans and ScaledRows
            The upload, as it is and ready to be rounded.
        labels : Tensor of shape (n,), integer
            Class of each of the client's samples.

        Returns
        -------
        UploadPrice or None
            None where the rows are not those of all samples, because some are withheld.
        """
        classes, sizes = torch.unique(labels.to(torch.int64), return_counts=True)
        held, per_class = torch.unique_consecutive(means.class_ids, return_counts=True)
        if not torch.equal(classes, held) or not torch.equal(per_class, sizes.clamp(max=2)):
            return None
        firsts = (per_class.cumsum(0) - per_class).numpy()
        scales = rows.scales
        return UploadPrice(rows, scales[firsts], scales[firsts + per_class.numpy() - 1], sizes.numpy())

    def num_rows(self, groups: NDArray[np.int64]) -> NDArray[np.int64]:
        """Count the rows of uploads of these numbers of groups: shape (G,)."""
        counts: NDArray[np.int64] = np.minimum(groups[:, None], self.sizes).sum(axis=1)
        return counts

    def num_bytes(
        self, groups: NDArray[np.int64], steps: NDArray[np.float64], surplus: float
    ) -> NDArray[np.float64]:
        """Predict the size of uploads.

        Parameters
        ----------
        groups : ndarray of shape (G,), int64
            Rows per class, from 1.
        steps : ndarray of shape (G,), float64
            Step of a mean of one sample for each.
        surplus : float
            See :meth:`ScaledRows.surplus`.

        Returns
        -------
        ndarray of shape (G,), float64
            Bytes, as far as :meth:`ScaledRows.expected_bytes` knows them.
        """
        further = np.minimum(groups[:, None], self.sizes) - 1
        bits = self.rows.bits_of_rows(self.firsts / steps[:, None])
        bits = bits + further * self.rows.bits_of_rows(self.others / steps[:, None])
        sizes: NDArray[np.float64] = BYTES_PER_ROW * self.num_rows(groups) + surplus * bits.sum(axis=1) / 8
        return self.rows.fixed_bytes + sizes
