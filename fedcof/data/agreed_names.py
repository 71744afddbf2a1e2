"""The class names that a federation has agreed on, found for those that a node's own data have."""

from __future__ import annotations

from collections.abc import Iterable

from fedcof.data.class_list import places_of
from fedcof.data.intake import some
from fedcof.errors import UserError


def agreed_names(data: str, names: Iterable[str], class_names: tuple[str, ...]) -> dict[str, str]:
    """Find names among those that were agreed on, however their letters are composed.

    Parameters
    ----------
    data : str
        Where they come from, for a sentence.
    names : iterable of str
        The node's own.
    class_names : tuple of str
        Those agreed on.

    Returns
    -------
    dict of str to str
        For each of the node's own names the one agreed on.

    Raises
    ------
    UserError
        If there is none for one of them.
    """
    distinct = sorted(set(names))
    agreed = {}
    for name, place in zip(distinct, places_of(class_names, distinct), strict=True):
        if place < 0:
            raise UserError(
                f"The class {name!r} of {data} is not one of the {len(class_names)} that the federation agreed on "
                f"({some(class_names)}): rename or remove it."
            )
        agreed[name] = class_names[place]
    return agreed
