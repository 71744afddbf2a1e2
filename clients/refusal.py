"""What a node tells a server of why it does not answer: its own rules, and never its paths or its content."""

from __future__ import annotations

from fedcof.errors import UserError


class Refusal(UserError):  # noqa: N818
    """A clause that was written to be told to a server; every other error stays in the node's own log."""


def told(error: Exception) -> str:
    """Say what a server may hear of an error.

    Parameters
    ----------
    error : Exception
        Whatever was raised.

    Returns
    -------
    str
        The clause of a refusal; of anything else no more than its kind.
    """
    if isinstance(error, Refusal):
        return str(error)
    return f"it failed ({type(error).__name__}), and its own log says why"
