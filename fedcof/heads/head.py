"""What a head is: a classifier in closed form, from the within-class scatter and the class totals."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from fedcof.covariance.totals import ClassTotals
from fedcof.heads.linear import LinearClassifier
from fedcof.registry import check_filled_in


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
    """

    name: ClassVar[str]
    unit_length: ClassVar[bool]
    takes_factored: ClassVar[bool] = False

    @abstractmethod
    def solve(self, scatter: Any, totals: ClassTotals) -> LinearClassifier:  # noqa: ANN401
        """Solve for the classifier.

        Parameters
        ----------
        scatter : Tensor of shape (d, d), float64, or FactoredScatter
            Within-class scatter W of all samples, shrunk.
        totals : ClassTotals
            Class counts and means.

        Returns
        -------
        LinearClassifier
            C classes; a class that nobody has is never predicted.

        Raises
        ------
        UserError
            If the system has no solution.
        """


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
