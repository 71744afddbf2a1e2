"""A method's aggregator behind a rule for uploads that may be wrong: left out, down-weighted, or outvoted."""

from __future__ import annotations

import copy
import math
from logging import getLogger
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fedcof.covariance.backbone_scores import BackboneScores
from fedcof.covariance.client_means import ClientMeans, client_means
from fedcof.covariance.median_of_means import weights_of_median
from fedcof.covariance.outlying import Outlying, outlying, spread_of
from fedcof.errors import unknown_name
from fedcof.heads.classifier import Classifier
from fedcof.methods.base import Aggregator, Sources, backbone_scores, own_aggregator, shrinkage_used
from fedcof.methods.robust_rules import HUBER, NO_RULE, ROBUST_RULES, SCREEN
from fedcof.statistics.class_means import ClassMeanRows
from fedcof.statistics.reweighted import ReweightedRows

if TYPE_CHECKING:
    from fedcof.methods.section import MethodSection

# A client that says it has more than so many times the median client's samples counts for no more under `screen`;
# or more than the others' own spread explains, if that is more.
MOST_TIMES_THE_MEDIAN = 10.0
SPREADS_OF_COUNTS = 4.0
# Huber's weights begin where the squared distance is so many times the usual: next to no honest mean is there.
LARGEST_FULL_RATIO = 2.0

_logger = getLogger(__name__)


class Robust:
    """An aggregator that keeps class means until it is asked to solve, and then asks which of them to believe.

    Parameters
    ----------
    aggregator : Aggregator
        The method's, without an upload yet; a copy of it is filled with what is believed.
    rule : {"none", "screen", "huber", "median-of-means"}
        ``screen`` leaves clients out whose class means are far from the others'
        (:mod:`fedcof.covariance.outlying`), and caps counts that are far above the others'. ``huber`` takes a mean
        that is far off for one of as few samples as would be so far off: its weight is min(1, 2 / x), as for the
        scatter in Maronna (1976), "Robust M-estimators of multivariate location and scatter". ``median-of-means``
        weighs rows so that each class mean is the geometric median of groups of clients
        (:mod:`fedcof.covariance.median_of_means`).
    most_samples : int
        Most samples that a client counts for, 0 for any number: the counts of one that says more are scaled down.

    Raises
    ------
    UserError
        If there is no such rule.
    """

    def __init__(self, aggregator: Aggregator, rule: str, most_samples: int = 0) -> None:
        if rule not in ROBUST_RULES:
            raise unknown_name("robust", rule, list(ROBUST_RULES))
        self.num_classes, self.feature_dim = aggregator.num_classes, aggregator.feature_dim
        self.rule, self.most_samples = rule, most_samples
        self._empty = aggregator
        self._filled: Aggregator | None = None
        self._left_out: dict[int, str] = {}
        self._sources = Sources()
        self._uploads: dict[int, ClassMeanRows] = {}

    def add(self, upload: ClassMeanRows, source: int | None = None) -> None:
        """Take one client's upload in; raises UserError if it cannot be used."""
        upload.check_fits(self.num_classes, self.feature_dim)
        self._uploads[self._sources.take(source)] = upload
        self._filled = None

    @property
    def left_out(self) -> dict[int, str]:
        """Why clients have no part in the classifier, by their number."""
        self._fill()
        return self._left_out

    @property
    def of_method(self) -> Aggregator:
        """The method's own aggregator: with what was believed, once that was asked."""
        return own_aggregator(self._filled or self._empty)

    @property
    def shrinkage_(self) -> float | None:
        """How much the method's own aggregator has shrunk its covariance."""
        return shrinkage_used(self.of_method)

    @property
    def backbone_scores_(self) -> BackboneScores:
        """What the method's own aggregator has seen of the features."""
        return backbone_scores(self.of_method)

    def solve(self) -> Classifier:
        """Solve for the classifier of what is believed; see the method's own aggregator."""
        return self._fill().solve()

    def class_means(self) -> Tensor:
        """Average the means that are believed: shape (C, d), float64."""
        return self._fill().class_means()

    def _fill(self) -> Aggregator:
        if self._filled is None:
            filled = copy.deepcopy(self._empty)
            for source, upload in self._believed().items():
                filled.add(upload, source)
            self._filled = filled
        return self._filled

    def _believed(self) -> dict[int, ClassMeanRows]:
        """Apply the rule: what goes into the classifier, by client."""
        self._left_out = {}
        uploads = dict(sorted(self._uploads.items()))
        if self.most_samples:
            uploads = _capped(uploads, self.most_samples)
        if self.rule == NO_RULE or not any(upload.num_rows for upload in uploads.values()):
            return uploads
        if self.rule == SCREEN:
            uploads = _capped(uploads, _most_usual(uploads))
        means = client_means(uploads, self.num_classes)
        if self.rule == SCREEN:
            self._left_out = _reasons(outlying(means))
            return {source: upload for source, upload in uploads.items() if source not in self._left_out}
        if self.rule == HUBER:
            weights = (LARGEST_FULL_RATIO / outlying(means).ratios.nan_to_num(nan=0.0)).clamp(max=1)
        else:
            weights = weights_of_median(means)
        return _weighted(uploads, means, weights)


def robust(aggregator: Aggregator, section: MethodSection) -> Aggregator:
    """Have an aggregator follow the rule of a run, if there is one."""
    if section.robust == NO_RULE and not section.most_samples_per_client:
        return aggregator
    return Robust(aggregator, section.robust, section.most_samples_per_client)


def left_out(aggregator: Aggregator) -> dict[int, str]:
    """Tell which clients' uploads an aggregator, or one within it, does not believe.

    Parameters
    ----------
    aggregator : Aggregator
        With all uploads.

    Returns
    -------
    dict of int to str
        Why, by the client's number: a clause.
    """
    while not isinstance(aggregator, Robust) and hasattr(aggregator, "of_method"):
        aggregator = aggregator.of_method
    return aggregator.left_out if isinstance(aggregator, Robust) else {}


def _capped(uploads: dict[int, ClassMeanRows], most: float) -> dict[int, ClassMeanRows]:
    """Scale the counts down of clients with more samples than they may count for."""
    capped = dict(uploads)
    for source, upload in uploads.items():
        total = _samples(upload)
        if total > most:
            _logger.warning("Client %d counts for %.0f samples of the %.0f that it says.", source, most, total)
            capped[source] = ReweightedRows.of(upload, upload.counts.double() * (most / total))
    return capped


def _most_usual(uploads: dict[int, ClassMeanRows]) -> float:
    """Say above what a count is far above the others': ten times the median, or more where they differ as much."""
    logs = torch.tensor([_samples(upload) for upload in uploads.values() if upload.num_rows]).log()
    allowed = max(SPREADS_OF_COUNTS * spread_of(logs), math.log(MOST_TIMES_THE_MEDIAN))
    return math.exp(float(logs.median()) + allowed)


def _samples(upload: ClassMeanRows) -> float:
    return float(upload.counts.double().sum())


def _reasons(found: Outlying) -> dict[int, str]:
    places = (found.excess > 1).nonzero()[:, 0].tolist()
    return {int(found.means.sources[place]): _reason(found, place) for place in places}


def _reason(found: Outlying, place: int) -> str:
    if mixture := found.mixture(place):
        own, other, share = mixture
        return (
            f"its mean of class {own} lies {100 * share:.0f} % of the way to that of class {other}, as if samples"
            " of both had been called one"
        )
    class_id, ratio = found.worst(place)
    return (
        f"its class means are {float(found.of_clients[place]) ** 0.5:.3g} times as far from the other clients' as "
        f"theirs usually are, and that of class {class_id} is {ratio**0.5:.3g} times"
    )


def _weighted(uploads: dict[int, ClassMeanRows], means: ClientMeans, weights: Tensor) -> dict[int, ClassMeanRows]:
    """Multiply all rows' counts by the weight (R,) of their client's mean of their class."""
    # A class of less than one sample would have no degrees of freedom.
    totals = means.sum_by_class(means.counts * weights)
    weights = weights / totals.clamp(max=1)[means.class_ids]
    weighted = dict(uploads)
    # Means are ordered by client, then by class.
    keys = means.clients * means.num_classes + means.class_ids
    for place, source in enumerate(means.sources.tolist()):
        upload = uploads[source]
        of_rows = weights[torch.searchsorted(keys, place * means.num_classes + upload.class_ids)]
        weighted[source] = ReweightedRows.of(upload, upload.counts.double() * of_rows)
    return weighted
