"""A Parquet file of features and labels, read into one matrix, or one sentence that says what is wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet
from numpy.typing import NDArray

from fedcof.data.labels import SplitLabels
from fedcof.data.node_table import LABEL_COLUMN, PATH_COLUMN, labels_of_table, parquet_columns, unreadable
from fedcof.errors import UserError, first_line

FEATURES_COLUMN = "features"
COLUMNS = (FEATURES_COLUMN, LABEL_COLUMN)


def has_features(path: Path) -> bool:
    """Whether a Parquet file has a column of features, and none of paths of images."""
    try:
        names = pa.parquet.read_schema(path).names
    except (pa.ArrowException, OSError):
        return False
    return FEATURES_COLUMN in names and PATH_COLUMN not in names


def features_of_table(path: Path) -> tuple[NDArray[np.float32], SplitLabels]:
    """Read a Parquet file of features.

    Parameters
    ----------
    path : Path
        With the columns ``features`` (lists of floats, all of one length) and ``label`` (as in a table of images).

    Returns
    -------
    tuple of (ndarray, SplitLabels)
        Features (n, d) float32, where d is 0 for a file without rows, and their labels.

    Raises
    ------
    UserError
        If the file cannot be read, lacks a column or a value, or holds something else.
    """
    try:
        table = parquet_columns(path, COLUMNS)
        labels = labels_of_table(path, table, COLUMNS)
        features = _matrix(path, table.column(FEATURES_COLUMN))
    except (pa.ArrowException, OSError) as error:
        raise unreadable(path, first_line(error), COLUMNS) from error
    return features, labels


def _matrix(path: Path, column: pa.ChunkedArray) -> NDArray[np.float32]:
    if not _is_list_of_floats(column.type):
        raise unreadable(path, f"its {FEATURES_COLUMN} hold {column.type}, no lists of floats", COLUMNS)
    lengths = pc.list_value_length(column).to_numpy()
    dimension = int(lengths[0]) if len(lengths) else 0
    different = np.flatnonzero(lengths != dimension)
    if len(different):
        raise UserError(
            f"In {path} the features have {dimension} dimensions in row 1 and {lengths[different[0]]} in row "
            f"{different[0] + 1}: compute all with the same encoder."
        )
    values = pc.list_flatten(column)
    if values.null_count:
        row = int(np.flatnonzero(pc.is_null(values).to_numpy())[0]) // dimension + 1
        raise UserError(f"In {path} the features of row {row} lack a number: fill it in, or remove the row.")
    if len(lengths) and not dimension:
        raise UserError(f"In {path} the features are empty lists: save the numbers that the encoder gives.")
    with np.errstate(over="ignore"):  # What does not fit is not finite, which is told with its row.
        matrix: NDArray[np.float32] = values.to_numpy().astype(np.float32).reshape(len(lengths), dimension)
    return matrix


def _is_list_of_floats(of: pa.DataType) -> bool:
    is_list = any(is_one(of) for is_one in (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list))
    return is_list and pa.types.is_floating(of.value_type)
