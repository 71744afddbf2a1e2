"""The server's side of each method: add uploads, solve for a classifier."""

from __future__ import annotations

from abc import ABC, abstractmethod

from fedcof.classifiers import HEADS, LinearClassifier, linear_discriminant, nearest_class_mean, ridge
from fedcof.covariance import ESTIMATORS, check_shrinkage, class_totals, within_class_scatter
from fedcof.errors import UserError, unknown_name
from fedcof.statistics import ClassMeans, concatenate


class ClassMeansAggregator(ABC):
    """What the methods that live on class means share: keeping the uploads until they are asked to solve.

    Parameters
    ----------
    num_classes : int
        Number of classes C of the whole federation.
    feature_dim : int
        Dimension d of the feature vectors.
    """

    def __init__(self, num_classes: int, feature_dim: int) -> None:
        if num_classes < 1 or feature_dim < 1:
            raise UserError(
                f"An aggregator needs at least one class and one feature dimension, "
                f"but got {num_classes} and {feature_dim}: give the federation's own."
            )
        self.num_classes = num_classes
        self.feature_dim = feature_dim
        self._uploads: dict[int, ClassMeans] = {}

    def add(self, upload: ClassMeans, source: int | None = None) -> None:
        """Take one client's upload in.

        Parameters
        ----------
        upload : ClassMeans
            The client's class means.
        source : int, optional
            The client's number. Uploads are reduced in the order of their sources, so the classifier does not
            depend on the order in which they arrive. Without it, uploads are numbered as they come.

        Raises
        ------
        UserError
            If the upload does not fit the federation, or its source has been added before.
        """
        upload.check_fits(self.num_classes, self.feature_dim)
        source = len(self._uploads) if source is None else source
        if source in self._uploads:
            raise UserError(f"Client {source} has been added before: add each client's upload once.")
        self._uploads[source] = upload

    @property
    def num_uploads(self) -> int:
        """Number of uploads taken in."""
        return len(self._uploads)

    @abstractmethod
    def solve(self) -> LinearClassifier:
        """Solve for the classifier of all uploads so far.

        Returns
        -------
        LinearClassifier
            Weight (C, d) and bias (C,), float32.

        Raises
        ------
        UserError
            If there is no sample in any upload, or the system has no solution.
        """

    def _rows(self) -> ClassMeans:
        uploads = [self._uploads[source] for source in sorted(self._uploads)]
        if not any(upload.num_rows for upload in uploads):
            raise UserError("No client has sent a class mean, so there is nothing to solve: add an upload first.")
        return concatenate(uploads)


class FedNCM(ClassMeansAggregator):
    """The nearest class mean, by angle (Legate et al., NeurIPS 2023, arXiv 2306.03937)."""

    def solve(self) -> LinearClassifier:
        """Solve for the class means; see :meth:`ClassMeansAggregator.solve`."""
        return nearest_class_mean(class_totals(self._rows(), self.num_classes))


class FedCOF(ClassMeansAggregator):
    """Covariances for free (Goswami et al., NeurIPS 2025, arXiv 2412.14326).

    Parameters
    ----------
    num_classes : int
        Number of classes C of the whole federation.
    feature_dim : int
        Dimension d of the feature vectors.
    estimator : {"per-class", "pooled"}
        How the within-class scatter is put together; the paper's is ``per-class``.
    shrinkage : float or {"ledoit-wolf", "oas"}
        Gamma, in squared feature units (the paper: 1.0 for SqueezeNet and ViT-B/16, 0.1 for MobileNetV2), or how
        to estimate the amount.
    head : {"ridge", "lda"}
        The closed-form classifier on top.

    Raises
    ------
    UserError
        If a name is unknown or gamma is negative.
    """

    def __init__(
        self,
        num_classes: int,
        feature_dim: int,
        estimator: str = "per-class",
        shrinkage: float | str = 1.0,
        head: str = "ridge",
    ) -> None:
        super().__init__(num_classes, feature_dim)
        if estimator not in ESTIMATORS:
            raise unknown_name("estimator", estimator, ESTIMATORS)
        if head not in HEADS:
            raise unknown_name("head", head, HEADS)
        check_shrinkage(shrinkage)
        self.estimator = estimator
        self.shrinkage = shrinkage
        self.head = head

    def solve(self) -> LinearClassifier:
        """Rebuild the covariance and solve the head; see :meth:`ClassMeansAggregator.solve`."""
        rows = self._rows()
        totals = class_totals(rows, self.num_classes)
        scatter = within_class_scatter(rows, totals, self.estimator, self.shrinkage)
        return ridge(scatter, totals) if self.head == "ridge" else linear_discriminant(scatter, totals)
