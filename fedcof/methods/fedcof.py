"""FedCOF: covariances rebuilt from class means."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor

from fedcof.covariance.backbone_scores import BackboneScores
from fedcof.covariance.blocks import ROWS_PER_BLOCK
from fedcof.covariance.choices import ESTIMATORS, LEAVE_ONE_OUT, LEDOIT_WOLF, POOLED, check_shrinkage
from fedcof.covariance.factored import FactoredScatter, factored_scatter
from fedcof.covariance.label_correlation import label_correlation_of_factor
from fedcof.covariance.scatter import ScatterSum, sum_scatter
from fedcof.covariance.shrinkage import is_at_edge, warn_at_edge
from fedcof.covariance.shrunk import ShrunkScatter, shrunk_scatter
from fedcof.covariance.totals import ClassTotals, class_totals
from fedcof.covariance.unseen import is_unseen, warn_unseen
from fedcof.errors import UserError, unknown_name
from fedcof.heads.classifier import Classifier
from fedcof.heads.head import Head
from fedcof.heads.registry import HEADS
from fedcof.heads.solving import SingularSystemError
from fedcof.heads.text_prior import Expected, TextPrior
from fedcof.heads.with_prior import solve_with_prior
from fedcof.methods.base import Aggregator, ClassMeansAggregator
from fedcof.methods.class_means import ClassMeansMethod
from fedcof.methods.noise_corrected import noise_corrected
from fedcof.methods.role import Role
from fedcof.methods.unsolvable import unsolvable_covariance
from fedcof.privacy.mechanism import Privacy
from fedcof.statistics.class_means import ClassMeanRows

if TYPE_CHECKING:
    from fedcof.methods.section import MethodSection

# Rows of a class below which the quadratic head was measured to be below ridge: docs/results.md.
FEWEST_ROWS = 10


class FedCOF(ClassMeansAggregator):
    """Covariances for free (Goswami et al., NeurIPS 2025, arXiv 2412.14326).

    The estimator ``pooled`` is additive over clients: once a block of 4,096 rows is together it is summed up and
    let go, so memory stays flat however many clients there are. Which uploads share a block then follows the order
    of arrival, and with it the last bits of the classifier; add uploads in the order of their sources, as the
    Flower strategy does, where they must be equal. ``per-class``, ``paper`` and ``ledoit-wolf``, whose weights and
    fourth moments need all rows, and the quadratic head, which looks at each class's own, keep the uploads in the
    form they have.

    Parameters
    ----------
    num_classes : int
        Number of classes C of the whole federation.
    feature_dim : int
        Dimension d of the feature vectors.
    estimator : {"per-class", "pooled", "paper"}
        How the within-class scatter is put together. ``per-class`` is the paper's where every class has two rows,
        and takes classes with one to scatter as the others do; ``paper`` is the paper's everywhere.
    shrinkage : float or {"leave-one-out", "ledoit-wolf", "oas"}
        Gamma, in squared feature units (the paper: 1.0 for SqueezeNet and ViT-B/16, 0.1 for MobileNetV2), or how
        to estimate the amount. Where the rows are too few for an estimate, all directions are taken to be alike,
        and a warning is logged.
    head : {"ridge", "lda", "quadratic"} or Head
        The closed-form classifier on top; in the place of ``quadratic`` it is ``ridge`` where all directions are
        taken to be alike.
    linear_below : float
        Rows of a class, on average, below which a linear head is solved in place of one that is not.
    keeps_uploads : bool
        Whether ``pooled`` keeps the uploads too, so that somebody can ask what each of them has done.

    Attributes
    ----------
    shrinkage_ : float
        How much :meth:`solve` shrank the covariance: gamma as given, or the estimated amount, from 0 to 1.
    prior : TextPrior or None
        What the classes' names know of their means.
    takes_groups : bool
        Whether clients may send several rows of a class.

    Raises
    ------
    UserError
        If a name is unknown or gamma is negative.
    """

    takes_groups: ClassVar[bool] = True

    def __init__(
        self,
        num_classes: int,
        feature_dim: int,
        estimator: str = "per-class",
        shrinkage: float | str = LEAVE_ONE_OUT,
        head: str | Head = "ridge",
        linear_below: float = 0.0,
        keeps_uploads: bool = False,
    ) -> None:
        super().__init__(num_classes, feature_dim)
        if estimator not in ESTIMATORS:
            raise unknown_name("estimator", estimator, ESTIMATORS)
        self._solver = HEADS.get(head) if isinstance(head, str) else head
        check_shrinkage(shrinkage)
        self.estimator = estimator
        self.shrinkage = shrinkage
        self.head = self._solver.name
        self.linear_below = linear_below
        self._keeps_uploads = keeps_uploads
        self.prior: TextPrior | None = None
        self._expected: Expected | None = None
        self._seen: ShrunkScatter | Callable[[], float | None] | BackboneScores = BackboneScores()
        self._streamed: ScatterSum | None = None
        self._rows_kept = 0

    def add(self, upload: ClassMeanRows, source: int | None = None) -> None:
        """Take one client's upload in; see :meth:`ClassMeansAggregator.add`."""
        super().add(upload, source)
        self._rows_kept += upload.num_rows
        sums_up = self.estimator == POOLED and self.shrinkage != LEDOIT_WOLF
        lets_go = sums_up and not self._solver.needs_rows and not self._keeps_uploads
        if lets_go and self._rows_kept >= ROWS_PER_BLOCK:
            if self._streamed is None:
                self._streamed = self._sum(self._kept())
            else:
                self._streamed.add(self._kept())
            self._uploads.clear()
            self._rows_kept = 0

    def take_prior(self, prior: TextPrior) -> None:
        """Solve with what the classes' names know; raises UserError if the prior is of other sizes."""
        prior.check_fits(self.num_classes, self.feature_dim)
        self.prior = prior

    def solve(self) -> Classifier:
        """Rebuild the covariance and solve the head; see :meth:`ClassMeansAggregator.solve`."""
        scatter, totals = self._scatter()
        head = self._head_for(totals)
        try:
            if self.prior:
                return self._solve_with(self.prior, head, scatter, totals)
            if head.needs_rows:
                return head.solve_with_rows(scatter, totals, self._rows())
            return head.solve(scatter, totals)
        except SingularSystemError as error:
            raise unsolvable_covariance(totals, self.feature_dim, self.shrinkage, self.takes_groups) from error

    def _head_for(self, totals: ClassTotals) -> Head:
        """Choose the linear head where rows are too few for another; a prior makes up for rows that are few."""
        if not self._solver.linear:
            return self._solver
        # With all directions alike lda, which it comes to, is worse than class means: their lengths are noise.
        few = self.prior is None and float(totals.rows.sum()) < self.linear_below * float(totals.present.sum())
        return HEADS.get(self._solver.linear) if few or is_unseen(totals, self.shrinkage) else self._solver

    def _solve_with(
        self, prior: TextPrior, head: Head, scatter: Tensor | FactoredScatter, totals: ClassTotals
    ) -> Classifier:
        assert isinstance(scatter, Tensor)
        estimated = isinstance(self.shrinkage, str)
        rows = self._rows() if head.needs_rows else []
        solved, self._expected = solve_with_prior(head, scatter, totals, rows, prior, self.shrinkage_, estimated)
        return solved

    @property
    def backbone_scores_(self) -> BackboneScores:
        """What the last :meth:`solve` has seen of the features."""
        if isinstance(self._seen, ShrunkScatter):
            return self._seen.scores
        return self._seen if isinstance(self._seen, BackboneScores) else BackboneScores(self._seen())

    def __getstate__(self) -> dict[str, Any]:
        """Keep what was seen, and not the matrix that it was seen in."""
        return {**self.__dict__, "_seen": self.backbone_scores_}

    def class_means(self) -> Tensor:
        """Average the uploads' means; see :meth:`ClassMeansAggregator.class_means`.

        Once a classifier was solved with a prior, these are the means that it was solved with.
        """
        if self._expected is not None:
            return self._expected.means
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
            If there is no upload.
        """
        finished, totals = self._finished(self.shrinkage if shrunk else 0.0)
        return finished.scatter / totals.sample_degrees_of_freedom.sum().clamp(min=1)

    def rows_per_class(self) -> float:
        """Count the rows per class that has any; raises UserError if there is no upload."""
        totals = self._summed().totals()
        return float(totals.rows.sum() / totals.present.sum())

    @property
    def linear_head(self) -> str:
        """Name of the head, or of the linear one that training starts from in its place."""
        return self._solver.linear or self._solver.name

    def uploads(self) -> dict[int, ClassMeanRows]:
        """Give the uploads by client, those without a row left out.

        Returns
        -------
        dict of int to ClassMeanRows
            In the order of their sources.

        Raises
        ------
        UserError
            If there is none with a row, or they were summed up and let go.
        """
        if self._streamed is not None:
            raise UserError("The uploads were summed up and let go: set keeps_uploads to keep them.")
        self._rows()
        return {source: upload for source, upload in sorted(self._uploads.items()) if upload.num_rows}

    def plain_and_shrunk(self) -> tuple[Tensor, ShrunkScatter, ClassTotals]:
        """Give the scatter as it was summed up, as it is solved with, and what the rows add up to.

        Returns
        -------
        tuple of (Tensor, ShrunkScatter, ClassTotals)
            The first of shape (d, d), float64: of rows weighted by class, but for ``pooled``.

        Raises
        ------
        UserError
            If there is no upload.
        """
        finished, totals = self._finished(self.shrinkage)
        return self._summed().scatter(), finished, totals

    def _scatter(self) -> tuple[Tensor | FactoredScatter, ClassTotals]:
        few = self._streamed is None and self._rows_kept < self.feature_dim and self.prior is None
        if few and self._solver.takes_factored and not isinstance(self.shrinkage, str):
            uploads = self._rows()
            totals = class_totals(uploads, self.num_classes)
            factored = factored_scatter(uploads, totals, self.estimator, self.shrinkage)
            if factored is not None:
                self.shrinkage_ = self.shrinkage
                self._seen = partial(label_correlation_of_factor, factored.factor, totals, factored.noise)
                return factored, totals
        finished, totals = self._finished(self.shrinkage)
        self.shrinkage_, self._seen = finished.amount, finished
        return finished.scatter, totals

    def _finished(self, shrinkage: float | str) -> tuple[ShrunkScatter, ClassTotals]:
        whole = self._summed()
        finished = shrunk_scatter(whole, self.estimator, shrinkage)
        if self._streamed is None and not whole.exact and is_at_edge(shrinkage, finished.amount, whole.exact):
            whole = self._sum(self._rows(), exact=True)
            finished = shrunk_scatter(whole, self.estimator, shrinkage)
        if is_at_edge(shrinkage, finished.amount, whole.exact):
            warn_at_edge(finished.amount)
        totals = whole.totals()
        if is_unseen(totals, shrinkage):
            warn_unseen()
        return finished, totals

    def _summed(self) -> ScatterSum:
        if self._streamed is None:
            return self._sum(self._rows())
        uploads = self._kept()
        return self._streamed.copy().add(uploads) if uploads else self._streamed

    def _sum(self, uploads: list[ClassMeanRows], exact: bool = False) -> ScatterSum:
        return sum_scatter(uploads, self.num_classes, self.estimator, self.shrinkage, exact)


class FedCOFMethod(ClassMeansMethod):
    """Both ends of FedCOF."""

    name: ClassVar[str] = "fedcof"
    title: ClassVar[str] = "FedCOF"
    colour: ClassVar[str] = "#0072B2"
    marker: ClassVar[str] = "o"
    role: ClassVar[Role] = Role.REBUILT
    rebuilds_covariance: ClassVar[bool] = True
    takes_groups: ClassVar[bool] = True
    takes_head: ClassVar[bool] = True
    takes_prior: ClassVar[bool] = True

    def aggregator(
        self,
        num_classes: int,
        feature_dim: int,
        section: MethodSection,
        privacy: Privacy | None = None,
        subtract_noise: bool = True,
    ) -> Aggregator:
        """Make the server's end; see :meth:`FederatedMethod.aggregator`."""
        # Noise on every row is most of what a class has of its own: measured, 2.3 points below ridge.
        head = (section.for_linear() if privacy else section).chosen_head
        estimator, shrinkage, keeps = section.estimator, section.shrinkage, section.influence
        aggregator = FedCOF(num_classes, feature_dim, estimator, shrinkage, head, FEWEST_ROWS, keeps)
        return noise_corrected(aggregator, privacy, subtract_noise and head.unit_length)


METHOD = FedCOFMethod()
