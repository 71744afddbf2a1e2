"""A method's aggregator behind a linear map of the uploads' class means, as in fewer dimensions."""

from __future__ import annotations

import torch
from torch import Tensor

from fedcof.covariance.backbone_scores import BackboneScores
from fedcof.heads.classifier import Classifier
from fedcof.methods.base import Aggregator, backbone_scores, shrinkage_used
from fedcof.statistics.class_means import ClassMeanRows, ClassMeans


class Projected:
    """An aggregator of mapped class means, whose classifiers take features as they were before the map.

    Means and covariances go through a linear map, so clients may send what is before it.

    Parameters
    ----------
    aggregator : Aggregator
        Of k dimensions, without an upload yet.
    matrix : Tensor of shape (d, k), floating point
        Rows of features are multiplied by it from the right; of full column rank.
    """

    def __init__(self, aggregator: Aggregator, matrix: Tensor) -> None:
        self.num_classes, self.feature_dim = aggregator.num_classes, matrix.shape[0]
        self.of_method = aggregator
        self._matrix = matrix.to(torch.float64)

    def add(self, upload: ClassMeanRows, source: int | None = None) -> None:
        """Map one client's upload and take it in; raises UserError if it cannot be used."""
        upload.check_fits(self.num_classes, self.feature_dim)
        noise = upload.noise
        if noise is not None:
            # Known noise is the same in all coordinates before the map, and is taken to be so after it.
            noise = noise.to(torch.float64) * float(self._matrix.square().sum() / self._matrix.shape[1])
        means = upload.means @ self._matrix.to(upload.dtype)
        self.of_method.add(ClassMeans(upload.class_ids, upload.counts, means, noise), source)

    @property
    def shrinkage_(self) -> float | None:
        """How much the method's own aggregator has shrunk its covariance."""
        return shrinkage_used(self.of_method)

    @property
    def backbone_scores_(self) -> BackboneScores:
        """What the method's own aggregator has seen of the mapped features."""
        return backbone_scores(self.of_method)

    def class_means(self) -> Tensor:
        """Give class means (C, d), float64, that the map takes to those of the method's own aggregator."""
        inverse: Tensor = torch.linalg.pinv(self._matrix)
        return self.of_method.class_means() @ inverse

    def solve(self) -> Classifier:
        """Solve in k dimensions; the classifier takes features (n, d)."""
        return self.of_method.solve().before(self._matrix)
