"""What a head is: a classifier in closed form, from the within-class scatter and the class totals."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from typing import Any, ClassVar

from fedcof.covariance.totals import ClassTotals
from fedcof.errors import UserError
from fedcof.heads.linear import LinearClassifier


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
    if not isinstance(head, Head) or inspect.isabstract(type(head)):
        raise UserError(
            f"The head {name} is {head!r}: give an object of a class that fills in fedcof.heads.head.Head."
        )
    missing = [member for member in ("name", "unit_length") if not hasattr(head, member)]
    if missing or head.name != name:
        raise UserError(
            f"The head {name} does not say its {', '.join(missing) or 'own name'}: set it on its class."
        )
