"""What a node says of itself, made fit to be kept and shown: one line of bounded length."""

from __future__ import annotations

from fedcof.printable import printable

LONGEST_REASON = 300


def bounded(said: object) -> str:
    """Shorten what a stranger said.

    Parameters
    ----------
    said : object
        Anything.

    Returns
    -------
    str
        One line of at most 300 characters, of its end: Python says there what went wrong.
    """
    # A slice first: what a stranger sends may be megabytes long.
    lines = str(said)[-16 * LONGEST_REASON :].strip().splitlines()
    line = " ".join(lines[-1].split()) if lines else ""
    line = printable(line)
    return line if len(line) <= LONGEST_REASON else f"{line[: LONGEST_REASON - 3]}..."
