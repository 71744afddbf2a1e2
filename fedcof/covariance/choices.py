"""What an estimator and a shrinkage may be; light, because it is looked at before anything is computed."""

from __future__ import annotations

from fedcof.errors import UserError, unknown_name

PER_CLASS, POOLED, PAPER = ESTIMATORS = ["per-class", "pooled", "paper"]
LEAVE_ONE_OUT, LEDOIT_WOLF, OAS = AUTOMATIC_SHRINKAGE = ["leave-one-out", "ledoit-wolf", "oas"]


def check_shrinkage(shrinkage: float | str) -> None:
    """Check that a shrinkage is a number from 0 or the name of an estimator.

    Parameters
    ----------
    shrinkage : float or str
        What a user gave.

    Raises
    ------
    UserError
        If it is neither.
    """
    if isinstance(shrinkage, str):
        if shrinkage not in AUTOMATIC_SHRINKAGE:
            raise unknown_name("shrinkage", shrinkage, ["a number from 0", *AUTOMATIC_SHRINKAGE])
    elif not 0 <= shrinkage < float("inf"):
        raise UserError(f"The shrinkage is {shrinkage}, but it must be finite and at least 0: give such a number.")
