"""The oracle: the ceiling, from all features in one place."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from fedcof.methods.base import Aggregator
from fedcof.methods.fedcof import FedCOF
from fedcof.methods.method import PooledMethod, Role
from fedcof.statistics.class_means import ClassMeans

if TYPE_CHECKING:
    from fedcof.methods.section import MethodSection


class Oracle(FedCOF):
    """The ceiling: FedCOF's head on the covariance of all features in one place.

    It is FedCOF with every sample as a row of its own: then K_c = N_c and n_r = 1, so S_c is the sample covariance
    of class c, and W the scatter of all samples around their class means, with N - C degrees of freedom.

    Parameters
    ----------
    num_classes, feature_dim, shrinkage, head
        See :class:`FedCOF`; both estimators are the same here.
    """

    def __init__(
        self, num_classes: int, feature_dim: int, shrinkage: float | str = 1.0, head: str = "ridge"
    ) -> None:
        super().__init__(num_classes, feature_dim, shrinkage=shrinkage, head=head)

    def add_samples(self, features: Tensor, labels: Tensor) -> None:
        """Take samples in.

        Parameters
        ----------
        features : Tensor of shape (n, d), floating point
            Feature vectors.
        labels : Tensor of shape (n,), integer
            Class of each sample, counted from 0.

        Raises
        ------
        UserError
            If the samples do not fit the federation.
        """
        self.add(ClassMeans(labels.to(torch.int64), torch.ones(len(labels), dtype=torch.int64), features))


class OracleMethod(PooledMethod):
    """The oracle as a method: it asks nobody."""

    name: ClassVar[str] = "oracle"
    title: ClassVar[str] = "the oracle"
    colour: ClassVar[str] = "#555555"
    marker: ClassVar[str] = "*"
    role: ClassVar[Role] = Role.CEILING
    takes_head: ClassVar[bool] = True

    def pooled(self, features: Tensor, labels: Tensor, num_classes: int, section: MethodSection) -> Aggregator:
        """Take all samples in; see :meth:`PooledMethod.pooled`."""
        oracle = Oracle(num_classes, features.shape[1], section.shrinkage, section.head)
        oracle.add_samples(features, labels)
        return oracle


METHOD = OracleMethod()
