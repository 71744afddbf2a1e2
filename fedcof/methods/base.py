"""What the server's sides of methods share: uploads taken in, once each, until they are asked to solve."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Protocol

from torch import Tensor

from fedcof.covariance.backbone_scores import BackboneScores
from fedcof.covariance.totals import class_totals
from fedcof.errors import UserError
from fedcof.heads.classifier import Classifier
from fedcof.statistics.class_means import ClassMeanRows

if TYPE_CHECKING:
    from fedcof.heads.text_prior import TextPrior


class Aggregator(Protocol):
    """What the server needs of each method."""

    num_classes: int
    feature_dim: int

    def add(self, upload: Any, source: int | None = None) -> None:  # noqa: ANN401
        """Take one client's upload in; raises UserError if it cannot be used."""

    def solve(self) -> Classifier:
        """Solve for the classifier of all uploads so far."""

    def class_means(self) -> Tensor:
        """Mean feature vector of each class: shape (C, d), float64."""


def own_aggregator(aggregator: Aggregator) -> Aggregator:
    """Give the method's own aggregator, where others may be around it."""
    while hasattr(aggregator, "of_method"):
        aggregator = aggregator.of_method
    return aggregator


def shrinkage_used(aggregator: Aggregator) -> float | None:
    """Tell how much the covariance was shrunk in the last solve; None for a method that shrinks none."""
    amount: float | None = getattr(aggregator, "shrinkage_", None)
    return amount


def backbone_scores(aggregator: Aggregator) -> BackboneScores:
    """Tell what the last solve has seen of the features; None for each for a method that sees none."""
    scores: BackboneScores = getattr(aggregator, "backbone_scores_", BackboneScores())
    return scores


def take_prior(aggregator: Aggregator, prior: TextPrior | None) -> None:
    """Have a method's own aggregator solve with what class names know, if there is anything.

    Parameters
    ----------
    aggregator : Aggregator
        Of a method that takes a prior, or one around it.
    prior : TextPrior or None
        The prior.

    Raises
    ------
    UserError
        If the prior is of other sizes.
    """
    if prior:
        own: Any = own_aggregator(aggregator)
        own.take_prior(prior)


class Sources:
    """The clients whose uploads were taken in, each once."""

    def __init__(self) -> None:
        self._taken: set[int] = set()

    def __len__(self) -> int:
        return len(self._taken)

    def take(self, source: int | None) -> int:
        """Note a client, numbered as it comes where it has no number; raises UserError if it was noted before."""
        source = len(self._taken) if source is None else source
        if source in self._taken:
            raise UserError(f"Client {source} has been added before: add each client's upload once.")
        self._taken.add(source)
        return source


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
        check_sizes(num_classes, feature_dim)
        self.num_classes = num_classes
        self.feature_dim = feature_dim
        self._sources = Sources()
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
        self._uploads[self._sources.take(source)] = upload

    @property
    def num_uploads(self) -> int:
        """Number of uploads taken in."""
        return len(self._sources)

    @abstractmethod
    def solve(self) -> Classifier:
        """Solve for the classifier of all uploads so far.

        Returns
        -------
        Classifier
            Of C classes and d features.

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

        Raises
        ------
        UserError
            If there is no sample in any upload.
        """
        return class_totals(self._rows(), self.num_classes).means

    def _rows(self) -> list[ClassMeanRows]:
        """List the kept uploads that have rows; whatever is asked of an aggregator without any is an error."""
        if not (uploads := self._kept()):
            raise nothing_to_solve()
        return uploads

    def _kept(self) -> list[ClassMeanRows]:
        """List the kept uploads that have rows, in the order of their sources."""
        in_order = (self._uploads[source] for source in sorted(self._uploads))
        return [upload for upload in in_order if upload.num_rows]


def nothing_to_solve() -> UserError:
    """Make the error for a federation without a sample."""
    return UserError("No client has sent a class mean, so there is nothing to solve: add an upload first.")


def check_sizes(num_classes: int, feature_dim: int) -> None:
    """Check a federation's numbers of classes and dimensions; raises UserError."""
    if num_classes < 1 or feature_dim < 1:
        raise UserError(
            f"An aggregator needs at least one class and one feature dimension, "
            f"but got {num_classes} and {feature_dim}: give the federation's own."
        )
