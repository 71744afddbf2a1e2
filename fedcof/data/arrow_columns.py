"""Columns of labels and of owners as tables have them: any type that can name a class, or one sentence."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import ClassLabel, Dataset, Value
from numpy.typing import NDArray

from fedcof.data.labels import SplitLabels, listed_labels, number_labels, text_labels
from fedcof.errors import UserError

TEXT_TYPES = ("string", "large_string", "string_view")


def names_classes(feature: object) -> bool:
    """Whether a column's feature can name classes: names that are listed, numbers, texts, or truth values."""
    if isinstance(feature, ClassLabel):
        return True
    dtype = feature.dtype if isinstance(feature, Value) else ""
    return usually_names_classes(feature) or dtype == "bool" or dtype.startswith(("float", "decimal"))


def usually_names_classes(feature: object) -> bool:
    """Whether a column's feature is a list of names, whole numbers, or texts."""
    if isinstance(feature, ClassLabel):
        return True
    dtype = feature.dtype if isinstance(feature, Value) else ""
    return dtype.startswith(("int", "uint")) or dtype in TEXT_TYPES


def labels_in(where: str, column: pa.ChunkedArray, feature: object) -> SplitLabels:
    """Read a column of labels.

    Parameters
    ----------
    where : str
        What the column belongs to, for a sentence.
    column : pyarrow.ChunkedArray
        One label a row, none missing.
    feature : object
        What the library says the column is; :func:`names_classes` holds for it.

    Returns
    -------
    SplitLabels
        Classes by name.

    Raises
    ------
    UserError
        If a label is no class.
    """
    if isinstance(feature, ClassLabel):
        return listed_labels(where, feature.names, column.to_numpy())
    if _is_text(column.type):
        return text_labels(*distinct_values(column.cast(pa.large_string())))
    return number_labels(where, _numbers(column))


def missing_rows(column: pa.ChunkedArray) -> NDArray[np.int64]:
    """Find the rows without a value, of which a number that is none (NaN) is one too.

    Parameters
    ----------
    column : pyarrow.ChunkedArray
        Any column.

    Returns
    -------
    ndarray
        Ascending row numbers, int64.
    """
    return np.flatnonzero(pc.is_null(column, nan_is_null=True).to_numpy())


def owners_in(where: str, split: Dataset, name: str) -> NDArray[np.int64]:
    """Read a column that names each sample's owner.

    Parameters
    ----------
    where : str
        What to call the column in a sentence.
    split : datasets.Dataset
        A split.
    name : str
        Its column: numbers, texts, truth values, dates or times.

    Returns
    -------
    ndarray
        For each sample its owner's place among the owners in ascending order (n,), int64.

    Raises
    ------
    UserError
        If the column holds something else, or names no owner in some row.
    """
    of = split.features.arrow_schema.field(name).type
    as_numbers = any(is_one(of) for is_one in (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean))
    if not (as_numbers or _is_text(of) or pa.types.is_decimal(of) or pa.types.is_temporal(of)):
        raise UserError(
            f"The natural partition needs a number, a text or a truth value for each sample, but {where} holds "
            f"{of}: set partition-column to another column."
        )
    column = split.select_columns(name).with_format("arrow")[:][name]
    missing = missing_rows(column)
    if len(missing):
        raise UserError(
            f"The natural partition needs an owner for each sample, but {where} names none in {len(missing)} "
            f"rows, first in row {missing[0] + 1}: fill them in, or set partition-column to another column."
        )
    if as_numbers:
        return np.unique(column.to_numpy(), return_inverse=True)[1].reshape(-1).astype(np.int64)
    distinct, places = distinct_values(column.cast(pa.large_string()) if _is_text(of) else column)
    rank = {owner: place for place, owner in enumerate(sorted(distinct))}
    return np.array([rank[owner] for owner in distinct], dtype=np.int64)[places]


def _is_text(of: pa.DataType) -> bool:
    return str(of) in TEXT_TYPES


def _numbers(column: pa.ChunkedArray) -> NDArray[Any]:
    if pa.types.is_decimal(column.type):
        try:
            column = column.cast(pa.int64())
        except pa.ArrowInvalid:
            # It has fractions, or numbers that are too large, which are to be met as such.
            column = column.cast(pa.float64())
    numbers: NDArray[Any] = column.to_numpy()
    return numbers


def distinct_values(column: pa.ChunkedArray) -> tuple[list[Any], NDArray[np.int64]]:
    """Tell a column's values apart.

    Parameters
    ----------
    column : pyarrow.ChunkedArray
        Any column of plain values.

    Returns
    -------
    tuple of (list, ndarray)
        The values that occur, and for each row the place of its own among them (n,), int64; -1 where it is missing.
    """
    encoded = column.combine_chunks().dictionary_encode()
    return encoded.dictionary.to_pylist(), encoded.indices.fill_null(-1).to_numpy().astype(np.int64)
