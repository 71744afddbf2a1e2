"""The oracle: the ceiling, from all features in one place."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from fedcof.covariance.choices import LEAVE_ONE_OUT
from fedcof.heads.head import Head
from fedcof.methods.base import Aggregator
from fedcof.methods.fedcof import FedCOF
from fedcof.methods.method import PooledMethod
from fedcof.methods.role import Role
from fedcof.statistics.class_means import ClassMeans
from fedcof.statistics.inputs import Numbers, as_samples

if TYPE_CHECKING:
    from fedcof.methods.section import MethodSection


class Oracle(FedCOF):
    """The ceiling: FedCOF's head on the covariance of all features in one place.

    It is FedCOF with every sample as a row of its own: then K_c = N_c and n_r = 1, so S_c is the sample covariance
    of class c, and W the scatter of all samples around their class means, with N - C degrees of freedom.

    Parameters
    ----------
    num_classes, feature_dim, shrinkage, head
        See :class:`FedCOF`; all estimators are the same here.
    """

    takes_groups: ClassVar[bool] = False

    def __init__(
        self, num_classes: int, feature_dim: int, shrinkage: float | str = LEAVE_ONE_OUT, head: str | Head = "ridge"
    ) -> None:
        super().__init__(num_classes, feature_dim, shrinkage=shrinkage, head=head)

    def add_samples(self, features: Numbers, labels: Numbers) -> None:
        """Take samples in.

        Parameters
        ----------
        features : Tensor, ndarray or sequence of shape (n, d)
            Feature vectors.
        labels : Tensor, ndarray or sequence of shape (n,)
            Class of each sample, counted from 0; whole numbers of any type.

        Raises
        ------
        UserError
            If the samples do not fit the federation, or a label is no whole number from 0.
        """
        features, labels = as_samples(features, labels)
        self.add(ClassMeans(labels, torch.ones(len(labels), dtype=torch.int64), features))


class OracleMethod(PooledMethod):
    """The oracle as a method: it asks nobody."""

    name: ClassVar[str] = "oracle"
    title: ClassVar[str] = "the oracle"
    colour: ClassVar[str] = "#555555"
    marker: ClassVar[str] = "*"
    role: ClassVar[Role] = Role.CEILING
    takes_head: ClassVar[bool] = True
    takes_prior: ClassVar[bool] = True

    def pooled(self, features: Tensor, labels: Tensor, num_classes: int, section: MethodSection) -> Aggregator:
        """Take all samples in; see :meth:`PooledMethod.pooled`."""
        oracle = Oracle(num_classes, features.shape[1], section.shrinkage, section.chosen_head)
        oracle.add_samples(features, labels)
        return oracle


METHOD = OracleMethod()
