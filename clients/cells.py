"""Cells: which of a node's samples are sent together, for good, whatever is asked and however often.

Each class is divided once, at random and by the node's own secret, into cells of at least so many samples. All that
a node sends without privacy noise is made of whole cells: a mean of few groups is over several cells, one of many
groups over one. Whatever a server asks for, and however it subtracts one answer from another, it learns sums over
cells and nothing finer. (This is microaggregation, Domingo-Ferrer and Mateo-Sanz, IEEE TKDE 2002, with cells that
stay.)

New samples wait until they make a cell of their own. A cell that has lost a sample is not sent any more, because
the difference would be that sample; it counts again once the sample is back.
"""

from __future__ import annotations

import hashlib
import hmac
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from clients.node_state import NodeState

FILE_NAME = "cells.json"
NOT_SENT = -1

_ID_LENGTH = 24

# For each class its cells, each a list of its samples' ids.
Book = dict[str, list[list[str]]]


def cells_of(classes: Sequence[str], digests: Sequence[str], smallest: int, state: NodeState) -> NDArray[np.int64]:
    """Give each of a node's samples its cell, as it has been before.

    Parameters
    ----------
    classes : sequence of str
        Class of each of the n samples, by the node's own names.
    digests : sequence of str
        What tells each sample from others: a digest of its content. Samples of equal content are counted.
    smallest : int
        Fewest samples of a cell, at least 1. Where it has been raised, cells are sent together.
    state : NodeState
        Where the cells are kept.

    Returns
    -------
    ndarray of shape (n,), int64
        Number of the sample's cell within its class, from 0; -1 for a sample that is not sent.

    Raises
    ------
    Refusal
        If the node's record is damaged, or cannot be written.
    """
    numbers = np.full(len(classes), NOT_SENT)
    places: dict[str, dict[str, int]] = defaultdict(dict)
    for place, (name, digest) in enumerate(zip(classes, digests, strict=True)):
        places[name][_id_of(digest, places[name])] = place
    with state.locked():
        book: Book = state.read(FILE_NAME) or {}
        before = {name: len(cells) for name, cells in book.items()}
        for name, here in places.items():
            cells = book.setdefault(name, [])
            cells += _new_cells(cells, here, smallest, state.secret())
            for number, members in enumerate(_sent_together(cells, here, smallest)):
                numbers[[here[member] for member in members]] = number
        if {name: len(cells) for name, cells in book.items()} != before:
            state.write(FILE_NAME, book)
    return numbers


def _id_of(digest: str, taken: dict[str, int]) -> str:
    """Tell the second of two equal samples from the first."""
    copies = 0
    while (found := f"{digest[:_ID_LENGTH]}.{copies}" if copies else digest[:_ID_LENGTH]) in taken:
        copies += 1
    return found


def _new_cells(cells: list[list[str]], here: dict[str, int], smallest: int, secret: bytes) -> list[list[str]]:
    """Divide the samples that are in no cell, in an order that only the node can know."""
    known = {member for cell in cells for member in cell}
    new = sorted(
        (member for member in here if member not in known),
        key=lambda member: hmac.digest(secret, member.encode(), hashlib.sha256),
    )
    number = len(new) // smallest
    return [new[start::number] for start in range(number)]


def _sent_together(cells: list[list[str]], here: dict[str, int], smallest: int) -> list[list[str]]:
    """Leave out cells that lack a sample, and put those together that are too small today."""
    together: list[list[str]] = []
    open_cell: list[str] = []
    for cell in cells:
        if all(member in here for member in cell):
            open_cell = [*open_cell, *cell]
            if len(open_cell) >= smallest:
                together.append(open_cell)
                open_cell = []
    if together and open_cell:
        together[-1] = [*together[-1], *open_cell]
    return together
