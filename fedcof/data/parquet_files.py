"""Parquet files that describe their columns of classes in different ways, each read by its own description."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from datasets import ClassLabel, Dataset, Features, NamedSplit, Value, concatenate_datasets
from numpy.typing import NDArray

from fedcof.data.arrow_columns import TEXT_TYPES, distinct_values
from fedcof.errors import UserError, first_line

Files = Mapping[str, Sequence[str]]
# What the values of a file's columns mean: places in a list of names, which is then given; texts; numbers; a type.
Meanings = dict[str, tuple[str, ...]]
LIST, TEXT, NUMBER, TRUTH_VALUE = "names of a list", "texts", "numbers", "bool"


def load_by_description(
    source: str, files: Files, load: Callable[[Files], Mapping[str, Dataset]]
) -> Mapping[str, Dataset]:
    """Load splits so that every value keeps the meaning that its own file gives it.

    The library takes the first file's description for all files of all splits, and so the first file's list of
    classes for numbers that are places in another list.

    Parameters
    ----------
    source : str
        The dataset, for a sentence.
    files : mapping of str to sequence of str
        The files of each split.
    load : callable
        Reads splits by the library.

    Returns
    -------
    mapping of str to Dataset
        The splits. One's lists of classes may still differ from the other's.

    Raises
    ------
    UserError
        If the files of one split cannot be put together.
    """
    meanings = {file: _meanings_of(file) for of_split in files.values() for file in of_split}
    known = {file: of_file for file, of_file in meanings.items() if of_file is not None}
    if len(known) < len(meanings) or not _disputed(known.values()):
        return load(files)
    return {split: _loaded_split(source, split, of_split, known, load) for split, of_split in files.items()}


def _meanings_of(file: str) -> Meanings | None:
    """Read a file's description; None where it has none that can be read, which the library is then to say."""
    try:
        features = Features.from_arrow_schema(pa.parquet.read_schema(file))
    except (pa.ArrowException, OSError, ValueError, TypeError, KeyError, NotImplementedError):
        return None
    meanings = {column: _meaning(feature) for column, feature in features.items()}
    return {column: meaning for column, meaning in meanings.items() if meaning}


def _meaning(feature: object) -> tuple[str, ...]:
    if isinstance(feature, ClassLabel):
        return LIST, *feature.names
    dtype = feature.dtype if isinstance(feature, Value) else "null"
    if dtype in TEXT_TYPES:
        return (TEXT,)
    if dtype.startswith(("int", "uint", "float", "decimal")):
        return (NUMBER,)
    # A column without a value may stand beside any other.
    return () if dtype == "null" else (dtype,)


def _disputed(meanings: Iterable[Meanings]) -> list[str]:
    """List the columns that mean one thing in one file and another in another."""
    seen: dict[str, set[tuple[str, ...]]] = {}
    for of_file in meanings:
        for column, meaning in of_file.items():
            seen.setdefault(column, set()).add(meaning)
    return [column for column, found in seen.items() if len(found) > 1]


def _loaded_split(
    source: str,
    split: str,
    files: Sequence[str],
    meanings: Mapping[str, Meanings],
    load: Callable[[Files], Mapping[str, Dataset]],
) -> Dataset:
    disputed = [
        column
        for column in _disputed(meanings[file] for file in files)
        if _must_be_told_apart(source, split, column, [meanings[file].get(column) for file in files])
    ]
    runs = groupby(files, key=lambda file: [meanings[file].get(column) for column in disputed])
    parts = [load({split: list(run)})[split] for _, run in runs]
    if len(parts) == 1:
        return parts[0]
    for column in disputed:
        parts = _with_one_list(column, parts)
    try:
        return concatenate_datasets(
            [part.select_columns(parts[0].column_names) for part in parts], split=NamedSplit(split)
        )
    except ValueError as error:
        raise UserError(
            f"The {split} files of {source} cannot be put together ({first_line(error)}): write all of them with "
            "the same columns."
        ) from error


def _must_be_told_apart(source: str, split: str, column: str, meanings: Sequence[tuple[str, ...] | None]) -> bool:
    """Whether the library would mix up what a column means; raises UserError where nobody can keep it apart."""
    kinds = sorted({meaning[0] for meaning in meanings if meaning})
    # The library writes numbers as texts and back, and stops where it cannot.
    if not {LIST, TRUTH_VALUE} & set(kinds):
        return False
    if set(kinds) - {LIST, TEXT}:
        raise UserError(
            f"In the column {column} some {split} files of {source} hold {' and others '.join(kinds)}, of which "
            "nobody can say which of them mean the same: write all files alike."
        )
    return True


def _with_one_list(column: str, parts: list[Dataset]) -> list[Dataset]:
    """Write a column by one list of classes: that of the first part, and what the others have besides."""
    named = [_named(column, part) for part in parts]
    together = list(dict.fromkeys(name for names, _ in named for name in names))
    place_of = {name: place for place, name in enumerate(together)}
    renumbered = []
    for part, (names, places) in zip(parts, named, strict=True):
        # One more, for the place -1 of what is no class.
        ids = np.array([*(place_of[name] for name in names), -1], dtype=np.int64)[places]
        rest = part.remove_columns(column) if column in part.column_names else part
        renumbered.append(rest.add_column(column, ids, feature=ClassLabel(names=together)))
    return renumbered


def _named(column: str, part: Dataset) -> tuple[list[str], NDArray[np.int64]]:
    """Give the names of a part's classes, and for each row the place of its own; -1 where it has none."""
    feature = part.features.get(column)
    meaning = _meaning(feature)
    if not meaning:
        return [], np.full(len(part), -1, dtype=np.int64)
    values = part.select_columns(column).with_format("arrow")[:][column]
    if meaning[0] == TEXT:
        texts, places = distinct_values(values.cast(pa.large_string()))
        return [str(text) for text in texts], places
    names: list[Any] = feature.names
    places = values.fill_null(-1).to_numpy()
    return names, np.where((places >= 0) & (places < len(names)), places, -1)
