"""The linear classifier."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from fedcof.heads.classifier import Classifier


@dataclass(frozen=True, eq=False)
class LinearClassifier(Classifier):
    """A linear classifier on feature vectors: scores = features weight^T + bias.

    Parameters
    ----------
    weight : Tensor of shape (C, d), float32
        One vector per class; zero for a class that nobody has.
    bias : Tensor of shape (C,), float32
        One offset per class; zero for a class that nobody has.
    present, class_names
        See :class:`Classifier`.

    Raises
    ------
    UserError
        If the shapes do not belong together.
    """

    weight: Tensor
    bias: Tensor
    present: Tensor
    class_names: tuple[str, ...] = ()

    KIND: ClassVar[str] = "linear"

    def __post_init__(self) -> None:
        num_classes = len(self.weight)
        self.check_parts(fits=self.weight.dim() == 2 and self.bias.shape == self.present.shape == (num_classes,))

    @property
    def feature_dim(self) -> int:
        """Dimension d of the feature vectors."""
        return self.weight.shape[1]

    def raw_scores(self, features: Tensor) -> Tensor:
        """Score; see :meth:`Classifier.raw_scores`."""
        return torch.addmm(self.bias, features, self.weight.T)

    def before(self, matrix: Tensor) -> LinearClassifier:
        """Take features before a linear map; see :meth:`Classifier.before`."""
        return self._with(weight=(self.weight.to(matrix.dtype) @ matrix.T).to(self.weight.dtype).contiguous())

    def with_linear_scores(self, classes: Tensor, weight: Tensor, bias: Tensor) -> LinearClassifier:
        """Score some classes anew; see :meth:`Classifier.with_linear_scores`."""
        return self._with(
            weight=self.weight.index_copy(0, classes, weight.to(self.weight.dtype)),
            bias=self.bias.index_copy(0, classes, bias.to(self.bias.dtype)),
            present=self.present.index_fill(0, classes, True),
        )


def unit_length(vectors: Tensor) -> Tensor:
    """Scale each vector, along the last axis, to unit length, whatever its scale; one of zeros stays so."""
    lengths = torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)
    return vectors / torch.where(lengths > 0, lengths, 1.0)


def as_classifier(weight: Tensor, bias: Tensor, present: Tensor) -> LinearClassifier:
    """Make a classifier of a closed form's solution: float32, zero where nobody has the class."""
    return LinearClassifier(
        weight=(weight * present[:, None]).to(torch.float32).contiguous(),
        bias=(bias * present).to(torch.float32),
        present=present,
    )
