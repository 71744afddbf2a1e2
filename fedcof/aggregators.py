"""The server's side of each method: add uploads, solve for a classifier."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any, Protocol

import torch
from torch import Tensor

from fedcof.classifiers import (
    HEADS,
    LinearClassifier,
    linear_discriminant,
    nearest_class_mean,
    ridge,
    ridge_from_gram,
)
from fedcof.covariance import (
    ESTIMATORS,
    ROWS_PER_BLOCK,
    ClassTotals,
    FactoredScatter,
    ScatterSum,
    class_totals,
    factored_scatter,
    shrunk_scatter,
    sum_scatter,
)
from fedcof.errors import UserError, unknown_name
from fedcof.shrinkage import LEDOIT_WOLF, check_shrinkage
from fedcof.statistics import ClassMeanRows, ClassMeans, FeatureMoments


class Aggregator(Protocol):
    """What the server needs of each method."""

    num_classes: int
    feature_dim: int

    def add(self, upload: Any, source: int | None = None) -> None:  # noqa: ANN401
        """Take one client's upload in; raises UserError if it cannot be used."""

    def solve(self) -> LinearClassifier:
        """Solve for the classifier of all uploads so far."""

    def class_means(self) -> Tensor:
        """Mean feature vector of each class: shape (C, d), float64."""


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
        _check_sizes(num_classes, feature_dim)
        self.num_classes = num_classes
        self.feature_dim = feature_dim
        self._sources: set[int] = set()
        self._uploads: dict[int, ClassMeanRows] = {}

    def add(self, upload: ClassMeanRows, source: int | None = None) -> None:
        """Take one client's upload in.

        Parameters
        ----------
        upload : ClassMeans or EncodedClassMeans
            The client's class means, kept in the form they have.
        source : int, optional
            The client's number. Uploads are reduced in the order of their sources, so the classifier does not
            depend on the order in which they arrive. Without it, uploads are numbered as they come.

        Raises
        ------
        UserError
            If the upload does not fit the federation, or its source has been added before.
        """
        upload.check_fits(self.num_classes, self.feature_dim)
        source = len(self._sources) if source is None else source
        if source in self._sources:
            raise _added_before(source)
        self._sources.add(source)
        self._uploads[source] = upload

    @property
    def num_uploads(self) -> int:
        """Number of uploads taken in."""
        return len(self._sources)

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

    def class_means(self) -> Tensor:
        """Average the uploads' means, weighted by their counts.

        Returns
        -------
        Tensor of shape (C, d), float64
            Mean feature vector of each class; zero for a class that nobody has.
        """
        return class_totals(self._kept(), self.num_classes).means

    def _kept(self) -> list[ClassMeanRows]:
        """List the kept uploads that have rows, in the order of their sources."""
        in_order = (self._uploads[source] for source in sorted(self._uploads))
        return [upload for upload in in_order if upload.num_rows]


def _nothing_to_solve() -> UserError:
    return UserError("No client has sent a class mean, so there is nothing to solve: add an upload first.")


class Fed3R:
    """Ridge regression on federated second-order statistics (Fani et al., ICML 2024).

    Uploads are added up as they come: one d x d matrix and C x d sums are kept, however many clients there are.

    Parameters
    ----------
    num_classes : int
        Number of classes C of the whole federation.
    feature_dim : int
        Dimension d of the feature vectors.
    penalty : float
        The ridge penalty lambda, in squared feature units, at least 0.
    gram_noise : float
        Standard deviation of the privacy noise on the diagonal of each upload's Gram matrix, in squared feature
        units (:mod:`fedcof.privacy`). The eigenvalues of the sum of K of them reach sqrt(2 K d) times it
        (Wigner); those of the Gram matrix that noise alone may have made are raised to that.

    Raises
    ------
    UserError
        If a size is below 1 or the penalty negative.
    """

    def __init__(self, num_classes: int, feature_dim: int, penalty: float = 0.01, gram_noise: float = 0.0) -> None:
        _check_sizes(num_classes, feature_dim)
        if not 0 <= penalty < float("inf"):
            raise UserError(
                f"The ridge penalty is {penalty}, but it must be finite and at least 0: give such a number."
            )
        self.num_classes = num_classes
        self.feature_dim = feature_dim
        self.penalty = penalty
        self.gram_noise = gram_noise
        self._sources: set[int] = set()
        self._counts = torch.zeros(num_classes, dtype=torch.int64)
        self._sums = torch.zeros(num_classes, feature_dim, dtype=torch.float64)
        self._gram = torch.zeros(feature_dim * (feature_dim + 1) // 2, dtype=torch.float64)

    def add(self, upload: FeatureMoments, source: int | None = None) -> None:
        """Add one client's upload.

        Parameters
        ----------
        upload : FeatureMoments
            The client's class sums and Gram matrix.
        source : int, optional
            The client's number, so that none is added twice. Sums are taken in float64 in the order of the calls.

        Raises
        ------
        UserError
            If the upload does not fit the federation, or its source has been added before.
        """
        upload.check_fits(self.num_classes, self.feature_dim)
        source = len(self._sources) if source is None else source
        if source in self._sources:
            raise _added_before(source)
        self._sources.add(source)
        self._counts.index_add_(0, upload.class_ids, upload.counts)
        self._sums.index_add_(0, upload.class_ids, upload.sums.to(torch.float64))
        self._gram.add_(upload.gram)

    @property
    def num_uploads(self) -> int:
        """Number of uploads taken in."""
        return len(self._sources)

    def solve(self) -> LinearClassifier:
        """Solve for the classifier of all uploads so far.

        Returns
        -------
        LinearClassifier
            Unit-length weights (C, d), float32, no bias.

        Raises
        ------
        UserError
            If there is no sample in any upload, or the system has no solution.
        """
        if not self._counts.any():
            raise UserError("No client has sent a sample's statistics: add an upload before solving.")
        gram = torch.zeros(self.feature_dim, self.feature_dim, dtype=torch.float64)
        rows, columns = torch.triu_indices(self.feature_dim, self.feature_dim)
        gram[rows, columns] = self._gram
        gram[columns, rows] = self._gram
        if self.gram_noise:
            eigenvalues, vectors = torch.linalg.eigh(gram)
            noise = self.gram_noise * math.sqrt(2 * self.num_uploads * self.feature_dim)
            gram = (vectors * eigenvalues.clamp(min=noise)) @ vectors.T
        gram.diagonal().add_(self.penalty)
        return ridge_from_gram(gram, self._sums, self._counts > 0)

    def class_means(self) -> Tensor:
        """Divide the class sums by their counts.

        Returns
        -------
        Tensor of shape (C, d), float64
            Mean feature vector of each class; zero for a class that nobody has.
        """
        return self._sums / self._counts.clamp(min=1)[:, None]


class FedNCM(ClassMeansAggregator):
    """The nearest class mean, by angle (Legate et al., NeurIPS 2023, arXiv 2306.03937)."""

    def solve(self) -> LinearClassifier:
        """Solve for the class means; see :meth:`ClassMeansAggregator.solve`."""
        if not (uploads := self._kept()):
            raise _nothing_to_solve()
        return nearest_class_mean(class_totals(uploads, self.num_classes))


class FedCOF(ClassMeansAggregator):
    """Covariances for free (Goswami et al., NeurIPS 2025, arXiv 2412.14326).

    The estimator ``pooled`` is additive over clients: once a block of 4,096 rows is together it is summed up and
    let go, so memory stays flat however many clients there are. Which uploads share a block then follows the order
    of arrival, and with it the last bits of the classifier; add uploads in the order of their sources, as the
    Flower strategy does, where they must be equal. ``per-class`` and ``ledoit-wolf``, whose weights and fourth
    moments need all rows, keep the uploads in the form they have.

    Parameters
    ----------
    num_classes : int
        Number of classes C of the whole federation.
    feature_dim : int
        Dimension d of the feature vectors.
    estimator : {"per-class", "pooled"}
        How the within-class scatter is put together; the paper's is ``per-class``.
    shrinkage : float or {"leave-one-out", "ledoit-wolf", "oas"}
        Gamma, in squared feature units (the paper: 1.0 for SqueezeNet and ViT-B/16, 0.1 for MobileNetV2), or how
        to estimate the amount.
    head : {"ridge", "lda"}
        The closed-form classifier on top.
    device : str
        Where to compute, as PyTorch names it. A system smaller than d x d is solved on the CPU all the same.

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
        device: str = "cpu",
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
        self.device = device
        self._streamed: ScatterSum | None = None
        self._rows_kept = 0

    def add(self, upload: ClassMeanRows, source: int | None = None) -> None:
        """Take one client's upload in; see :meth:`ClassMeansAggregator.add`."""
        super().add(upload, source)
        self._rows_kept += upload.num_rows
        if self.estimator == "pooled" and self.shrinkage != LEDOIT_WOLF and self._rows_kept >= ROWS_PER_BLOCK:
            if self._streamed is None:
                self._streamed = self._sum(self._kept())
            else:
                self._streamed.add(self._kept())
            self._uploads.clear()
            self._rows_kept = 0

    def solve(self) -> LinearClassifier:
        """Rebuild the covariance and solve the head; see :meth:`ClassMeansAggregator.solve`."""
        scatter, totals = self._scatter()
        return ridge(scatter, totals) if self.head == "ridge" else linear_discriminant(scatter, totals)

    def class_means(self) -> Tensor:
        """Average the uploads' means; see :meth:`ClassMeansAggregator.class_means`."""
        return super().class_means() if self._streamed is None else self._summed().totals().means

    def covariance(self, shrunk: bool = True) -> Tensor:
        """Rebuild the within-class covariance, mean over classes weighted by their samples.

        Parameters
        ----------
        shrunk : bool
            Whether with the aggregator's shrinkage, or with none.

        Returns
        -------
        Tensor of shape (d, d), float64
            W / sum_c (N_c - 1) over the classes with samples, in squared feature units.

        Raises
        ------
        UserError
            If there is no upload, or the shrinkage cannot be estimated.
        """
        if not self._kept() and self._streamed is None:
            raise _nothing_to_solve()
        whole = self._summed()
        scatter = shrunk_scatter(whole, self.estimator, self.shrinkage if shrunk else 0.0)
        return scatter / whole.totals().sample_degrees_of_freedom.sum().clamp(min=1)

    def rows_per_class(self) -> float:
        """Count the rows per class that has any."""
        totals = self._summed().totals()
        return float(totals.rows.sum() / totals.present.sum())

    def _scatter(self) -> tuple[Tensor | FactoredScatter, ClassTotals]:
        uploads = self._kept()
        if self._streamed is None:
            if not uploads:
                raise _nothing_to_solve()
            if self._rows_kept < self.feature_dim:
                totals = class_totals(uploads, self.num_classes)
                factored = factored_scatter(uploads, totals, self.estimator, self.shrinkage)
                if factored is not None:
                    return factored, totals
        whole = self._summed()
        return shrunk_scatter(whole, self.estimator, self.shrinkage), whole.totals()

    def _summed(self) -> ScatterSum:
        uploads = self._kept()
        if self._streamed is None:
            return self._sum(uploads)
        return self._streamed.copy().add(uploads) if uploads else self._streamed

    def _sum(self, uploads: list[ClassMeanRows]) -> ScatterSum:
        return sum_scatter(uploads, self.num_classes, self.estimator, self.shrinkage, self.device)


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


def _check_sizes(num_classes: int, feature_dim: int) -> None:
    if num_classes < 1 or feature_dim < 1:
        raise UserError(
            f"An aggregator needs at least one class and one feature dimension, "
            f"but got {num_classes} and {feature_dim}: give the federation's own."
        )


def _added_before(source: int) -> UserError:
    return UserError(f"Client {source} has been added before: add each client's upload once.")
