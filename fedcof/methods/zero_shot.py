"""Zero-shot: class names alone, of which the server makes a classifier without a sample."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from fedcof.errors import UserError
from fedcof.heads.classifier import Classifier
from fedcof.heads.linear import as_classifier
from fedcof.heads.text_prior import TextPrior
from fedcof.methods.base import Aggregator, check_sizes
from fedcof.methods.method import PooledMethod

if TYPE_CHECKING:
    from fedcof.methods.section import MethodSection
    from fedcof.statistics.class_means import ClassMeanRows


class ZeroShot:
    """The classifier whose vectors are the text prototypes.

    Parameters
    ----------
    num_classes, feature_dim : int
        Number of classes C and dimension d.
    """

    def __init__(self, num_classes: int, feature_dim: int) -> None:
        check_sizes(num_classes, feature_dim)
        self.num_classes, self.feature_dim = num_classes, feature_dim
        self._prior: TextPrior | None = None

    def take_prior(self, prior: TextPrior) -> None:
        """Take the text prototypes; raises UserError if they are of other sizes."""
        prior.check_fits(self.num_classes, self.feature_dim)
        self._prior = prior

    def add(self, upload: ClassMeanRows, source: int | None = None) -> None:
        """Leave an upload aside: names are all that is used."""

    def class_means(self) -> Tensor:
        """Give the prototypes in place of class means: shape (C, d), float64."""
        if self._prior is None:
            raise UserError("Zero-shot is made of class names: set text-prior to names or clip.")
        return self._prior.prototypes.to(torch.float64)

    def solve(self) -> Classifier:
        """Take the prototypes for a classifier; raises UserError if there are none."""
        weight = self.class_means()
        return as_classifier(weight, torch.zeros(len(weight)), torch.ones(len(weight), dtype=torch.bool))


class ZeroShotMethod(PooledMethod):
    """Zero-shot as a method: it asks nobody, and looks at no sample."""

    name: ClassVar[str] = "zero-shot"
    title: ClassVar[str] = "zero-shot"
    colour: ClassVar[str] = "#CC79A7"
    marker: ClassVar[str] = "P"
    takes_prior: ClassVar[bool] = True

    def pooled(self, features: Tensor, labels: Tensor, num_classes: int, section: MethodSection) -> Aggregator:
        """Look at the number of dimensions; see :meth:`PooledMethod.pooled`."""
        return ZeroShot(num_classes, features.shape[1])


METHOD = ZeroShotMethod()
