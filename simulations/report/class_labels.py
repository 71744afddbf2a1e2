"""What pictures call the classes: by their names, or by number where no font can draw a name."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from fedcof.printable import printable
from simulations.report.fonts import can_draw


def class_labels(names: Sequence[str]) -> list[str]:
    """Give what to write into a picture for each class.

    Parameters
    ----------
    names : sequence of str
        Names of the classes, in the order of their numbers.

    Returns
    -------
    list of str
        The name, or ``class 3`` where no installed font has all its characters.
    """
    return [name if can_draw(printable(name)) else f"class {number}" for number, name in enumerate(names)]


def names_behind(labels: Sequence[str], names: Sequence[str], shown: Collection[int]) -> str:
    """Say, for a caption, which names stand behind the numbers of a picture.

    Parameters
    ----------
    labels, names : sequence of str
        As they are drawn, and as they are.
    shown : collection of int
        The classes that are named in the picture.

    Returns
    -------
    str
        A sentence with a blank before it; empty where all names are drawn.
    """
    others = [f"{labels[number]} is {names[number]}" for number in sorted(shown) if labels[number] != names[number]]
    return f" Names that no font could draw: {', '.join(others)}." if others else ""
