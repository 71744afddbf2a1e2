"""FedCOF as scikit-learn knows classifiers: fitted on samples that clients hold, or a client at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_consistent_length, check_is_fitted, column_or_1d, validate_data

from fedcof.covariance.choices import LEAVE_ONE_OUT
from fedcof.heads.linear import LinearClassifier
from fedcof.methods.fedcof import FedCOF
from fedcof.statistics.class_means import ClassMeans, class_means
from fedcof.statistics.inputs import as_tensor

Array = NDArray[Any]
PROBABILISTIC = ("lda", "quadratic")


class FedCOFClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Covariances for free (Goswami et al., NeurIPS 2025, arXiv 2412.14326) on samples in memory.

    What it keeps is what a server of the federation would have: rows of class means. After :meth:`partial_fit` and
    :meth:`merge` the system is solved when somebody first asks for what depends on it.

    Parameters
    ----------
    estimator : {"per-class", "pooled", "paper"}
        How the within-class covariance is put together; see :class:`fedcof.FedCOF`.
    shrinkage : float or {"leave-one-out", "ledoit-wolf", "oas"}
        Gamma, in squared feature units, or how to estimate the amount.
    head : {"ridge", "lda", "quadratic"}
        The closed-form classifier on top. With ``lda`` there is :meth:`predict_proba`: the posterior of normal
        classes of one covariance, all equally likely; with ``quadratic``, of classes that each have their own. The
        scores of ``ridge``, which stands in for ``quadratic`` where rows are too few, are no logarithms of chances.

    Attributes
    ----------
    classes_ : ndarray of shape (C,)
        Labels, sorted.
    coef_ : ndarray of shape (C, d), or (1, d) for two classes
        Weights of the features in the scores; a quadratic head has none.
    intercept_ : ndarray of shape (C,), or (1,) for two classes
        Offsets of the scores; minus infinity for a class that no client has.
    means_ : ndarray of shape (C, d)
        Mean feature vector of each class; zero for a class that no client has.
    covariance_ : ndarray of shape (d, d)
        Within-class covariance, shrunk.
    shrinkage_ : float
        How much it was shrunk: gamma, or the estimated amount, from 0 to 1.
    n_features_in_ : int
        Dimension d of the feature vectors.
    """

    def __init__(
        self, estimator: str = "per-class", shrinkage: float | str = LEAVE_ONE_OUT, head: str = "ridge"
    ) -> None:
        self.estimator = estimator
        self.shrinkage = shrinkage
        self.head = head

    def fit(self, X: ArrayLike, y: ArrayLike, groups: ArrayLike | None = None) -> Self:  # noqa: N803
        """Fit the classifier to a whole federation.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Feature vectors of all clients.
        y : array-like of shape (n,)
            Their labels, of any type.
        groups : array-like of shape (n,), optional
            Which client holds each sample, of any type; a client gives one row for each of its classes. Without it
            all samples are in one place and each is a row: the oracle, which is the method's ceiling.

        Returns
        -------
        FedCOFClassifier
            Itself.

        Raises
        ------
        ValueError
            If the samples are not valid, or fewer than two.
        UserError
            If a parameter is unknown, or the system has no solution.
        """
        features, labels = self._samples(X, y, first=True, ensure_min_samples=2)
        self.classes_, ids = np.unique(labels, return_inverse=True)
        if groups is None:
            places = torch.from_numpy(ids)
            self._rows = [ClassMeans(places, torch.ones_like(places), as_tensor(features.copy(), "features"))]
        else:
            check_consistent_length(features, groups)
            _, clients, sizes = np.unique(column_or_1d(groups), return_inverse=True, return_counts=True)
            parts = np.split(clients.argsort(kind="stable"), sizes.cumsum()[:-1])
            self._rows = [class_means(features[part], ids[part]) for part in parts]
        # What was solved before is not to stay where this cannot be.
        self._solution: _Solution | None = None
        self._solved()
        return self

    def partial_fit(self, X: ArrayLike, y: ArrayLike, classes: ArrayLike | None = None) -> Self:  # noqa: N803
        """Add one client.

        Parameters
        ----------
        X : array-like of shape (n, d)
            The client's feature vectors.
        y : array-like of shape (n,)
            Their labels.
        classes : array-like of shape (C,), optional
            All labels of the federation, some of which this client may lack; needed in the first call.

        Returns
        -------
        FedCOFClassifier
            Itself.

        Raises
        ------
        ValueError
            If the samples are not valid, the classes are missing or others than in the first call, or a label is
            none of them.
        """
        first = not self.__sklearn_is_fitted__()
        if first and classes is None:
            raise ValueError("The first call of partial_fit needs all classes of the federation: give classes.")
        known = np.unique(column_or_1d(classes)) if classes is not None else self.classes_
        if not first and not np.array_equal(known, self.classes_):
            raise ValueError(f"The classes are {known}, but were {self.classes_} at first: give the same again.")
        features, labels = self._samples(X, y, first)
        unknown = np.setdiff1d(labels, known)
        if len(unknown):
            raise ValueError(f"The labels {unknown} are none of the classes {known}: give all classes at first.")
        rows = class_means(features, np.searchsorted(known, labels))
        self.classes_, self._rows = known, [rows] if first else [*self._rows, rows]
        self._solution = None
        return self

    def merge(self, other: FedCOFClassifier) -> Self:
        """Add the clients of another federation, as if this estimator had seen them as well.

        Parameters
        ----------
        other : FedCOFClassifier
            Fitted, on features of the same backbone; it may have other classes, and stays as it is.

        Returns
        -------
        FedCOFClassifier
            Itself, with its own parameters.

        Raises
        ------
        ValueError
            If the features have another dimension, or the labels are of types that cannot be compared.
        """
        check_is_fitted(self)
        check_is_fitted(other)
        if other.n_features_in_ != self.n_features_in_:
            raise ValueError(
                f"The other federation has {other.n_features_in_} features, but this one {self.n_features_in_}: "
                "merge federations of one backbone."
            )
        classes = _all_classes(self.classes_, other.classes_)
        self._rows = [*_renumbered(self, classes), *_renumbered(other, classes)]
        self.classes_, self._solution = classes, None
        return self

    def decision_function(self, X: ArrayLike) -> Array:  # noqa: N803
        """Score the classes.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Feature vectors.

        Returns
        -------
        ndarray of shape (n, C), or (n,) for two classes
            Scores; of two classes by how much the second's is above the first's.
        """
        check_is_fitted(self)
        features = validate_data(self, X, dtype=[np.float64, np.float32], reset=False)
        scores = self._solved().scores(features)
        return scores[:, 0] if scores.shape[1] == 1 else scores

    def predict(self, X: ArrayLike) -> Array:  # noqa: N803
        """Predict the label of each feature vector.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Feature vectors.

        Returns
        -------
        ndarray of shape (n,)
            Labels.
        """
        scores = self.decision_function(X)
        if len(self.classes_) == 1:
            places = np.zeros(len(scores), dtype=np.int64)
        else:
            places = (scores > 0).astype(np.int64) if scores.ndim == 1 else scores.argmax(axis=1)
        labels: Array = self.classes_[places]
        return labels

    @available_if(lambda self: self.head in PROBABILISTIC)  # type: ignore[untyped-decorator]
    def predict_proba(self, X: ArrayLike) -> Array:  # noqa: N803
        """Compute the posterior of each class; for ``lda`` and ``quadratic`` only.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Feature vectors.

        Returns
        -------
        ndarray of shape (n, C)
            Chances, under the assumption that features are normal and all classes equally likely.
        """
        scores = torch.from_numpy(self.decision_function(X))
        if len(self.classes_) == 1:
            chances = torch.ones(len(scores), 1, dtype=scores.dtype)
        elif scores.dim() == 1:
            # As one number, which is infinite where nobody has one of the two classes.
            chances = torch.stack([-scores, scores], dim=1).sigmoid()
        else:
            chances = scores.softmax(dim=1)
        array: Array = chances.numpy()
        return array

    @property
    def coef_(self) -> Array:
        """Weights of the features in the scores."""
        return self._solved().linear[0]

    @property
    def intercept_(self) -> Array:
        """Offsets of the scores."""
        return self._solved().linear[1]

    @property
    def means_(self) -> Array:
        """Mean feature vector of each class."""
        return self._solved().means

    @property
    def covariance_(self) -> Array:
        """Within-class covariance, shrunk."""
        return self._solved().covariance

    @property
    def shrinkage_(self) -> float:
        """How much the covariance was shrunk."""
        return float(self._solved().aggregator.shrinkage_)

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "classes_")

    def _samples(self, X: ArrayLike, y: ArrayLike, first: bool, **checks: int) -> tuple[Array, Array]:  # noqa: N803
        features, labels = validate_data(self, X, y, dtype=[np.float64, np.float32], reset=first, **checks)
        check_classification_targets(labels)
        return features, labels

    def _solved(self) -> _Solution:
        check_is_fitted(self)
        if self._solution is None:
            self._solution = _Solution.of(self)
        return self._solution


class _Solution:
    """What follows from an estimator's rows."""

    def __init__(self, aggregator: FedCOF) -> None:
        self.aggregator = aggregator
        self.classifier = aggregator.solve()

    @staticmethod
    def of(estimator: FedCOFClassifier) -> _Solution:
        sizes = len(estimator.classes_), estimator.n_features_in_
        aggregator = FedCOF(*sizes, estimator.estimator, estimator.shrinkage, estimator.head)
        for rows in estimator._rows:
            aggregator.add(rows)
        return _Solution(aggregator)

    @cached_property
    def linear(self) -> tuple[Array, Array]:
        """Weights and offsets; raises AttributeError for a classifier that has more than these."""
        classifier = self.classifier
        if not isinstance(classifier, LinearClassifier):
            raise AttributeError(f"a {classifier.KIND} classifier has no coef_ and no intercept_")
        weight, bias = classifier.weight.double(), classifier.bias.double()
        bias[~classifier.present] = -torch.inf
        if len(weight) == 2:
            weight, bias = weight[1:] - weight[:1], bias[1:] - bias[:1]
        return weight.numpy(), bias.numpy()

    def scores(self, features: Array) -> Array:
        """Score features (n, d): shape (n, C), or (n, 1) for two classes."""
        if isinstance(self.classifier, LinearClassifier):
            weight, bias = self.linear
            scores: Array = features @ weight.T + bias
            return scores
        scores = self.classifier.scores(features).numpy()
        return scores[:, 1:] - scores[:, :1] if scores.shape[1] == 2 else scores

    @cached_property
    def means(self) -> Array:
        means: Array = self.aggregator.class_means().numpy()
        return means

    @cached_property
    def covariance(self) -> Array:
        covariance: Array = self.aggregator.covariance().numpy()
        return covariance


def _all_classes(own: Array, others: Array) -> Array:
    """Put the labels of two federations together; raises ValueError where they cannot be compared."""
    numbers = {labels.dtype.kind in "biuf" for labels in (own, others)}
    try:
        if len(numbers) == 1:
            classes: Array = np.union1d(own, others)
            return classes
    except TypeError:
        pass
    raise ValueError(
        f"The labels {own} of one federation and {others} of the other cannot be compared: give both labels of one "
        "type."
    )


def _renumbered(estimator: FedCOFClassifier, classes: Array) -> Iterator[ClassMeans]:
    """Give an estimator's rows with the places that their classes have among others."""
    places = torch.from_numpy(np.searchsorted(classes, estimator.classes_))
    rows_of_clients: Iterable[ClassMeans] = estimator._rows
    for rows in rows_of_clients:
        yield ClassMeans(places[rows.class_ids], rows.counts, rows.means)
