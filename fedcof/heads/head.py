"""What a head is: a classifier in closed form, from the within-class scatter and the class totals."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

from torch import Tensor

from fedcof.covariance.totals import ClassTotals
from fedcof.heads.classifier import Classifier
from fedcof.registry import check_filled_in
from fedcof.statistics.class_means import ClassMeanRows


class Head(ABC):
    """A classifier in closed form.

    Attributes
    ----------
    name : str
        As the key ``head`` has it.
    unit_length : bool
        Whether each class's vector is scaled to unit length, so that noise which lengthens class means has to be
        corrected for.
    takes_factored : bool
        Whether it also solves a :class:`fedcof.covariance.factored.FactoredScatter`, in the space of its rows.
    linear : str
        Name of the head that training starts from in its place, where its classifier is not linear; else empty.
    """

    name: ClassVar[str]
    unit_length: ClassVar[bool]
    takes_factored: ClassVar[bool] = False
    linear: ClassVar[str] = ""

    def regularised(self, pooled_share: float, rank: int) -> Head:
        """Say how much of its own each class's covariance has, to a head that gives it some.

        Parameters
        ----------
        pooled_share : float
            Share of the pooled covariance, above 0 and at most 1.
        rank : int
            Most directions of a class, from 0.

        Returns
        -------
        Head
            Itself, where all classes have one covariance.
        """
        return self

    @abstractmethod
    def solve(self, scatter: Any, totals: ClassTotals) -> Classifier:  # noqa: ANN401
        """Solve for the classifier.

        Parameters
        ----------
        scatter : Tensor of shape (d, d), float64, or FactoredScatter
            Within-class scatter W of all samples, shrunk.
        totals : ClassTotals
            Class counts and means.

        Returns
        -------
        Classifier
            C classes; a class that nobody has is never predicted.

        Raises
        ------
        UserError
            If the system has no solution.
        """

    def solve_with_rows(
        self,
        scatter: Any,  # noqa: ANN401
        totals: ClassTotals,
        rows: Sequence[ClassMeanRows],
    ) -> Classifier:
        """Solve for the classifier where the rows are at hand, for heads that look at each class's own.

        Parameters
        ----------
        scatter, totals
            See :meth:`solve`.
        rows : sequence of ClassMeans or EncodedClassMeans
            What both were made of.

        Returns
        -------
        Classifier
            As :meth:`solve`.
        """
        return self.solve(scatter, totals)

    def solve_with_means(
        self,
        scatter: Any,  # noqa: ANN401
        totals: ClassTotals,
        rows: Sequence[ClassMeanRows],
        means: Tensor,
    ) -> Classifier:
        """Solve for the classifier with other class means than those of the rows.

        Parameters
        ----------
        scatter, totals, rows
            See :meth:`solve_with_rows`.
        means : Tensor of shape (C, d), float64
            What the class means are taken to be; zero for a class that nobody has.

        Returns
        -------
        Classifier
            As :meth:`solve`.
        """
        return self.solve(scatter, replace(totals, means=means))

    @property
    def needs_rows(self) -> bool:
        """Whether it solves by :meth:`solve_with_rows`, so that no row may be let go before."""
        return type(self).solve_with_rows is not Head.solve_with_rows


def check_head(name: str, head: Head) -> None:
    """Check that an object can be registered as a head.

    Parameters
    ----------
    name : str
        Under which it is to be known.
    head : Head
        The object.

    Raises
    ------
    UserError
        If it is no whole head.
    """
    check_filled_in("head", name, head, (Head,), ["name", "unit_length"])
