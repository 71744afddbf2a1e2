"""What the labels of a dataset mean: a name for each, by which the train and the test split are matched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedcof.data.class_list import places_of
from fedcof.errors import UserError

NAMES, TEXTS, NUMBERS, TRUTH_VALUES = "listed names", "texts", "numbers", "truth values"

IntArray = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class SplitLabels:
    """The labels of a split.

    Attributes
    ----------
    kind : str
        What they are written as.
    class_names : tuple of str
        Names of its classes: those that are listed, or else those that occur.
    ids : ndarray of shape (n,), int64
        For each sample the place of its class among these names.
    """

    kind: str
    class_names: tuple[str, ...]
    ids: IntArray

    def names(self) -> list[str]:
        """Name the class of each sample."""
        return [self.class_names[place] for place in self.ids.tolist()]


def listed_labels(where: str, class_names: Sequence[str], numbers: NDArray[Any]) -> SplitLabels:
    """Take labels that are places in a list of names.

    Parameters
    ----------
    where : str
        What the labels belong to, for a sentence.
    class_names : sequence of str
        The list.
    numbers : ndarray of shape (n,)
        Whole numbers.

    Returns
    -------
    SplitLabels
        With all names of the list, whether they occur or not.

    Raises
    ------
    UserError
        If a number is no place in the list.
    """
    if len(numbers):
        _check_not_negative(where, int(numbers.min()))
        if int(numbers.max()) >= len(class_names):
            raise UserError(
                f"In {where} the labels go from {numbers.min()} to {numbers.max()}, but with {len(class_names)} "
                f"classes they must go from 0 to at most {len(class_names) - 1}: name all classes, or mend the "
                "labels."
            )
    return SplitLabels(NAMES, tuple(class_names), numbers.astype(np.int64))


def number_labels(where: str, numbers: NDArray[Any]) -> SplitLabels:
    """Take numbers or truth values for the names of classes.

    Parameters
    ----------
    where : str
        What the labels belong to, for a sentence.
    numbers : ndarray of shape (n,)
        Truth values, or numbers of any type that are whole; none is missing.

    Returns
    -------
    SplitLabels
        With the numbers that occur, in their order. The memory that they take does not grow with the largest.

    Raises
    ------
    UserError
        If a number is negative or not whole.
    """
    if numbers.dtype.kind in "iu" and _are_without_gaps(numbers):
        return SplitLabels(NUMBERS, tuple(map(str, range(int(numbers.max()) + 1))), numbers.astype(np.int64))
    values, ids = np.unique(numbers, return_inverse=True)
    if values.dtype.kind == "f":
        broken = values[~(np.isfinite(values) & (np.rint(values) == values))]
        if len(broken):
            raise UserError(
                f"In {where} the label {broken[0]:g} is no whole number: number or name the classes, or choose "
                "another column of labels."
            )
    whole = values.tolist() if values.dtype.kind == "b" else [int(value) for value in values.tolist()]
    if whole and values.dtype.kind != "b":
        _check_not_negative(where, whole[0])
    kind = TRUTH_VALUES if values.dtype.kind == "b" else NUMBERS
    return SplitLabels(kind, tuple(map(str, whole)), ids.reshape(-1).astype(np.int64))


def text_labels(distinct: Sequence[str], places: NDArray[Any]) -> SplitLabels:
    """Take texts for the names of classes.

    Parameters
    ----------
    distinct : sequence of str
        The texts that occur, each once.
    places : ndarray of shape (n,)
        For each sample the place of its text among them.

    Returns
    -------
    SplitLabels
        With the texts in alphabetical order.
    """
    ordered = sorted(distinct)
    rank = {name: place for place, name in enumerate(ordered)}
    ranks = np.array([rank[name] for name in distinct], dtype=np.int64)
    return SplitLabels(TEXTS, tuple(ordered), ranks[places])


def placed_labels(where: str, labels: SplitLabels, class_names: Sequence[str]) -> SplitLabels:
    """Find labels in a list of names, by their own.

    Parameters
    ----------
    where : str
        What the labels belong to, for a sentence.
    labels : SplitLabels
        The labels.
    class_names : sequence of str
        The list.

    Returns
    -------
    SplitLabels
        With all names of the list, whether they occur or not.

    Raises
    ------
    UserError
        If a name is not in the list.
    """
    places = np.array(places_of(class_names, labels.class_names), dtype=np.int64)
    ids = places[labels.ids]
    if (ids < 0).any():
        raise UserError(
            f"In {where} there is the class {_first_without(labels, ids)!r}, which is none of the "
            f"{len(class_names)} that are listed: add it to the list, or mend the labels."
        )
    return SplitLabels(NAMES, tuple(class_names), ids)


def matched_labels(
    source: str, train: SplitLabels, test: SplitLabels
) -> tuple[tuple[str, ...], IntArray, IntArray]:
    """Match the classes of two splits by their names.

    Parameters
    ----------
    source : str
        The dataset, for a sentence.
    train, test : SplitLabels
        The labels of the splits.

    Returns
    -------
    tuple of (tuple of str, ndarray, ndarray)
        The names of the train split's classes, and the class of each sample of the train and of the test split,
        int64.

    Raises
    ------
    UserError
        If the test split has a class that the train split lacks, or a name is no text that can be written.
    """
    for name in train.class_names:
        _check_can_be_written(source, name)
    if train.class_names == test.class_names:
        # Also where one name stands twice in a list: the ids of both splits are places in it.
        return train.class_names, train.ids, test.ids
    places = np.array(places_of(train.class_names, test.class_names), dtype=np.int64)
    ids = places[test.ids]
    if (ids < 0).any():
        lacking = (
            f"The test split of {source} has the class {_first_without(test, ids)!r}, which the train split lacks"
        )
        if train.kind == test.kind or {train.kind, test.kind} == {NAMES, TEXTS}:
            raise UserError(f"{lacking}: remove its test samples or add training samples.")
        raise UserError(
            f"{lacking}, because labels are {train.kind} there and {test.kind} in the test split: write those of "
            "both splits alike."
        )
    return train.class_names, train.ids, ids


def _first_without(labels: SplitLabels, ids: IntArray) -> str:
    """Name the first class of which samples got no id."""
    return labels.class_names[int(labels.ids[ids < 0].min())]


def _are_without_gaps(numbers: NDArray[Any]) -> bool:
    """Whether whole numbers are those from 0 to the largest, which is told without sorting them."""
    if not len(numbers) or numbers.min() < 0 or numbers.max() >= len(numbers):
        return False
    return bool(np.bincount(numbers.astype(np.int64)).all())


def _check_not_negative(where: str, lowest: int) -> None:
    if lowest < 0:
        raise UserError(
            f"In {where} there is the label {lowest}, but a negative number is no class: remove what has no "
            "class, or choose another column of labels."
        )


def _check_can_be_written(source: str, name: str) -> None:
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise UserError(
            f"The class {name!r} of {source} is no text that can be written to a file: rename it."
        ) from error
