"""The quadratic classifier: a linear one, and how far each class's samples scatter in a few directions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from fedcof.heads.classifier import Classifier


@dataclass(frozen=True, eq=False)
class QuadraticClassifier(Classifier):
    r"""A classifier whose scores are quadratic in few directions a class.

    .. math:: f_c(x) = w_c^T z + b_c + \frac12 \sum_j (u_{cj}^T z - t_{cj})^2 - \frac12 k_c |W^T z|^2,
              \qquad z = x - \text{centre}

    The last term is the same for all classes, and left out, where their k is.

    Parameters
    ----------
    weight : Tensor of shape (C, d), float32
        Linear part w of each class; zero for a class that nobody has.
    bias : Tensor of shape (C,), float32
        Offset b.
    directions : Tensor of shape (C, rank, d), float32
        Directions u, zero where a class has fewer of them.
    offsets : Tensor of shape (C, rank), float32
        Where t the directions are centred.
    curvature : Tensor of shape (C,), float32
        The numbers k.
    whitening : Tensor of shape (d, d), or (d, 0), float32
        The matrix W; without columns where no class needs it.
    centre : Tensor of shape (d,), float32
        Taken off every feature vector, so that scores do not cancel in float32.
    present, class_names
        See :class:`Classifier`.

    Raises
    ------
    UserError
        If the shapes do not belong together.
    """

    weight: Tensor
    bias: Tensor
    directions: Tensor
    offsets: Tensor
    curvature: Tensor
    whitening: Tensor
    centre: Tensor
    present: Tensor
    class_names: tuple[str, ...] = ()

    KIND: ClassVar[str] = "quadratic"

    def __post_init__(self) -> None:
        num_classes, rank, dim = len(self.weight), self.offsets.shape[-1], self.centre.numel()
        per_class = (self.bias, self.curvature, self.present)
        self.check_parts(
            fits=self.weight.shape == (num_classes, dim)
            and self.directions.shape == (num_classes, rank, dim)
            and self.offsets.shape == (num_classes, rank)
            and self.centre.dim() == 1
            and self.whitening.dim() == 2
            and self.whitening.shape[0] == dim
            and all(tensor.shape == (num_classes,) for tensor in per_class)
        )

    @property
    def feature_dim(self) -> int:
        """Dimension d of the feature vectors."""
        return len(self.centre)

    @property
    def rank(self) -> int:
        """Number of directions of each class."""
        return self.offsets.shape[1]

    def raw_scores(self, features: Tensor) -> Tensor:
        """Score; see :meth:`Classifier.raw_scores`."""
        moved = features - self.centre
        scores = torch.addmm(self.bias, moved, self.weight.T)
        if self.rank:
            distances = moved @ self.directions.flatten(0, 1).T
            distances = (distances - self.offsets.flatten()).square_()
            scores += distances.view(-1, *self.offsets.shape).sum(dim=2) / 2
        if self.whitening.shape[1]:
            scores -= (moved @ self.whitening).square().sum(dim=1, keepdim=True) * (self.curvature / 2)
        return scores

    def before(self, matrix: Tensor) -> QuadraticClassifier:
        """Take features before a linear map; see :meth:`Classifier.before`."""
        mapped = {
            "weight": self.weight.to(matrix.dtype) @ matrix.T,
            "directions": self.directions.to(matrix.dtype) @ matrix.T,
            "whitening": matrix @ self.whitening.to(matrix.dtype),
            "centre": self.centre.to(matrix.dtype) @ torch.linalg.pinv(matrix),
        }
        return self._with(**{name: tensor.to(torch.float32).contiguous() for name, tensor in mapped.items()})

    def with_linear_scores(self, classes: Tensor, weight: Tensor, bias: Tensor) -> QuadraticClassifier:
        """Score some classes anew; see :meth:`Classifier.with_linear_scores`."""
        moved = bias + weight @ self.centre.to(weight.dtype)
        return self._with(
            weight=self.weight.index_copy(0, classes, weight.to(self.weight.dtype)),
            bias=self.bias.index_copy(0, classes, moved.to(self.bias.dtype)),
            directions=self.directions.index_fill(0, classes, 0.0),
            offsets=self.offsets.index_fill(0, classes, 0.0),
            curvature=self.curvature.index_fill(0, classes, 0.0),
            present=self.present.index_fill(0, classes, True),
        )
