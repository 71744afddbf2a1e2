"""The names of the classes that a federation agrees on."""

from __future__ import annotations

from pathlib import Path

from fedcof.errors import UserError


def class_names_of(classes: str) -> tuple[str, ...]:
    """Read the names of the classes that a federation agrees on.

    Parameters
    ----------
    classes : str
        Names separated by commas or lines, or the path of a text file with them.

    Returns
    -------
    tuple of str
        In the order of their ids.

    Raises
    ------
    UserError
        If there are fewer than two, or one stands twice.
    """
    text = Path(classes).read_text() if is_file(classes) else classes
    lines = text.split("\n" if "\n" in text else ",")
    names = tuple(line.strip() for line in lines if line.strip())
    if len(names) < 2 or len(set(names)) < len(names):
        raise UserError(
            f"The key classes gives {len(names)} names, {len(set(names))} of them different: give at least two, "
            "each once, separated by commas or as a text file with a name a line."
        )
    return names


def is_file(classes: str) -> bool:
    """Say whether a text is the path of a file, seen from the working directory, and no names.

    Parameters
    ----------
    classes : str
        As for :func:`class_names_of`.

    Returns
    -------
    bool
        Whether it is.
    """
    try:
        return Path(classes).is_file()
    except (OSError, ValueError):
        # Many names make a text longer than a path may be, and a name may have what no path may.
        return False
