"""A classifier as a network's last module, for exports: features in, scores out."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fedcof.heads.classifier import Classifier


class ClassifierModule(nn.Module):
    """A classifier whose parameters are the buffers of a module.

    Parameters
    ----------
    classifier : Classifier
        Of whichever kind.
    never : float
        Score of a class that nobody has; below any other, and finite, because some runtimes know no infinity.
    """

    def __init__(self, classifier: Classifier, never: float) -> None:
        super().__init__()
        self.kind = type(classifier)
        self.never = never
        for name, tensor in classifier.tensors().items():
            self.register_buffer(name, tensor.clone())

    def forward(self, features: Tensor) -> Tensor:
        """Score features (n, d): shape (n, C)."""
        classifier = self.kind.of_tensors({name: getattr(self, name) for name in self.kind.parameter_names()})
        return torch.where(classifier.present, classifier.raw_scores(features), self.never)
