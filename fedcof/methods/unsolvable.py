"""Why a system has no solution: which classes have too few rows or samples, and which key to change."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from fedcof.covariance.totals import ClassCounts
from fedcof.errors import UserError

MOST_NAMED_CLASSES = 5


def unsolvable_covariance(
    counts: ClassCounts, feature_dim: int, shrinkage: float | str, takes_groups: bool = True
) -> UserError:
    """Explain a head that could not be solved from a covariance rebuilt from rows.

    Parameters
    ----------
    counts : ClassCounts
        Samples and rows of each class.
    feature_dim : int
        Dimension d of the features.
    shrinkage : float or str
        As the key has it.
    takes_groups : bool
        Whether clients may send several rows of a class.

    Returns
    -------
    UserError
        To be raised by the caller.
    """
    if not counts.sample_degrees_of_freedom.any():
        return UserError(
            "No class has more than one sample, so nothing shows how samples of a class scatter: give more samples "
            "of a class, or set shrinkage to leave-one-out, which takes all directions to be alike then, or "
            "method to fedncm, which needs no covariance."
        )
    more_rows = ", or groups to more, so that clients send more rows" if takes_groups else ""
    single = torch.nonzero(counts.rows == 1).flatten().tolist()
    lonely = f" ({_listed(single)}, of which there is one row, adds nothing)" if single else ""
    if isinstance(shrinkage, str):
        return UserError(
            f"In every class all rows are the same{lonely}, so {shrinkage} finds no scatter to shrink: set "
            f"shrinkage to a number above 0{more_rows}."
        )
    degrees = int(counts.row_degrees_of_freedom.sum())
    filled = f"fill at most {degrees} of {feature_dim} feature dimensions{lonely}"
    if degrees >= feature_dim:
        filled = f"leave some of the {feature_dim} feature dimensions without any scatter{lonely}"
    automatic = "leave-one-out or " if degrees > 1 else ""
    return UserError(
        f"The system has no solution with shrinkage {shrinkage:g}, because the rows of the classes {filled}: set "
        f"shrinkage to {automatic}a larger number{more_rows}."
    )


def unsolvable_moments(num_samples: int, feature_dim: int, penalty: float) -> UserError:
    """Explain a ridge regression that could not be solved.

    Parameters
    ----------
    num_samples : int
        Samples N of all clients.
    feature_dim : int
        Dimension d of the features.
    penalty : float
        The penalty.

    Returns
    -------
    UserError
        To be raised by the caller.
    """
    filled = f"fill at most {num_samples} of {feature_dim} feature dimensions"
    if num_samples >= feature_dim:
        filled = f"leave some of the {feature_dim} feature dimensions empty, or fill them with the same numbers"
    return UserError(
        f"The system of fed3r has no solution with ridge-penalty {penalty:g}, because the {num_samples} samples "
        f"{filled}: set ridge-penalty to a larger number."
    )


def _listed(classes: Sequence[int]) -> str:
    """Name classes by their numbers."""
    others = len(classes) - MOST_NAMED_CLASSES
    named = ", ".join(map(str, classes[:MOST_NAMED_CLASSES])) + (f" and {others} others" if others > 0 else "")
    return f"class {named}" if len(classes) == 1 else f"each of the classes {named}"
