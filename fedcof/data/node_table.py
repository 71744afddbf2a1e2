"""A node's table of images: paths and labels that mean what is written in it, as CSV or Parquet."""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
from datasets import Features, Value

from fedcof.data.arrow_columns import TEXT_TYPES, labels_in, missing_rows, names_classes
from fedcof.data.labels import SplitLabels
from fedcof.errors import UserError, first_line

PATH_COLUMN, LABEL_COLUMN = COLUMNS = ("path", "label")
CSV, PARQUET = SUFFIXES = (".csv", ".parquet")
SEPARATORS = ",;\t|"

Rows = tuple[list[str], list[str]]


def is_table(path: Path) -> bool:
    """Whether a path is that of a table of images.

    Parameters
    ----------
    path : Path
        Any path.

    Returns
    -------
    bool
        True for a file that is called ``.csv`` or ``.parquet``.
    """
    return path.suffix.lower() in SUFFIXES and path.is_file()


def files_of_table(path: Path) -> Rows:
    """Read a table of images.

    Parameters
    ----------
    path : Path
        CSV or Parquet with the columns ``path`` (relative to the table) and ``label`` (a class's name). All of a
        CSV file is text: ``01``, ``true`` and ``NA`` are these names. Numbers and truth values of a Parquet file
        are named as a dataset's are.

    Returns
    -------
    tuple of (list of str, list of str)
        The image file and the class's name of each row, in the table's order.

    Raises
    ------
    UserError
        If the table cannot be read, lacks a column, or has a row without a path or a label.
    """
    try:
        files, names = _read_csv(path) if path.suffix.lower() == CSV else _read_parquet(path)
    except (pa.ArrowException, csv.Error, OSError) as error:
        raise unreadable(path, first_line(error)) from error
    return [str(path.parent / file) for file in files], names


def write_table(path: Path, files: Sequence[str], names: Sequence[str]) -> None:
    """Write a table of images as Parquet, in which a label may be any text.

    Parameters
    ----------
    path : Path
        The table to write.
    files : sequence of str
        The image files, relative to the table.
    names : sequence of str
        The class's name of each.
    """
    columns = [pa.array(values, pa.string()) for values in (files, names)]
    pa.parquet.write_table(pa.Table.from_arrays(columns, list(COLUMNS)), path)


def unreadable(path: Path, reason: str, columns: Sequence[str] = COLUMNS) -> UserError:
    """Make the error for a table that cannot be read for some reason."""
    return UserError(f"The table {path} cannot be read ({reason}): it needs the columns {' and '.join(columns)}.")


def _read_csv(path: Path) -> Rows:
    text = _text_of(path)
    for separator in SEPARATORS:
        rows = _rows_of_csv(path, text, separator)
        if rows is not None:
            return [file for file, _ in rows], [name for _, name in rows]
    raise unreadable(path, f"its first line is {text.lstrip().partition(chr(10))[0].strip()[:80]!r}")


def _text_of(path: Path) -> str:
    content = path.read_bytes()
    # Excel writes both; without a mark it is UTF-8, or cannot be known.
    of_two_bytes = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return content.decode("utf-16" if of_two_bytes else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise UserError(f"The table {path} is not UTF-8 text in line {line}: save it as CSV in UTF-8.") from error


def _rows_of_csv(path: Path, text: str, separator: str) -> list[tuple[str, str]] | None:
    """Read paths and labels; None where the separator is another."""
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    try:
        header = [name.strip() for name in next((cells for cells in lines if cells), [])]
    except csv.Error:
        return None
    if any(header.count(column) != 1 for column in COLUMNS):
        return None
    rows = []
    for cells in lines:
        if not any(cells):
            continue
        # Spreadsheets end a line with the separators of cells that are empty.
        if len(cells) < len(header) or any(cells[len(header) :]):
            raise UserError(
                f"The table {path} has {len(cells)} cells in line {lines.line_num}, but {len(header)} columns: "
                "put what holds the separator in double quotes."
            )
        row = {column: cells[header.index(column)] for column in COLUMNS}
        for column, value in row.items():
            if not value:
                raise _missing(path, f"line {lines.line_num}", column)
        rows.append((row[PATH_COLUMN], row[LABEL_COLUMN]))
    return rows


def _missing(path: Path, where: str, column: str) -> UserError:
    return UserError(f"The table {path} has no {column} in {where}: fill it in, or remove the row.")


def _read_parquet(path: Path) -> Rows:
    table = parquet_columns(path, COLUMNS)
    if not _is_text(Features.from_arrow_schema(table.schema)[PATH_COLUMN]):
        raise unreadable(path, f"its {PATH_COLUMN} holds {table.column(PATH_COLUMN).type}")
    return table.column(PATH_COLUMN).to_pylist(), labels_of_table(path, table, COLUMNS).names()


def parquet_columns(path: Path, columns: Sequence[str]) -> pa.Table:
    """Read columns of a Parquet file that have a value in every row.

    Parameters
    ----------
    path : Path
        The file.
    columns : sequence of str
        Their names.

    Returns
    -------
    pyarrow.Table
        With these columns.

    Raises
    ------
    UserError
        If one is missing, or stands twice, or has no value in some row.
    """
    # As one file, because folders called like column=value would else become columns.
    file = pa.parquet.ParquetFile(path)
    if any(file.schema_arrow.names.count(column) != 1 for column in columns):
        raise unreadable(path, f"it has the columns {', '.join(file.schema_arrow.names)}", columns)
    table = file.read(columns=list(columns))
    for column in columns:
        missing = missing_rows(table.column(column))
        if len(missing):
            raise _missing(path, f"row {missing[0] + 1}", column)
    return _without_dictionaries(table)


def labels_of_table(path: Path, table: pa.Table, columns: Sequence[str]) -> SplitLabels:
    """Read the labels of a Parquet file.

    Parameters
    ----------
    path : Path
        The file, for a sentence.
    table : pyarrow.Table
        As :func:`parquet_columns` gives it, with the column ``label``.
    columns : sequence of str
        All columns that the file needs, for a sentence.

    Returns
    -------
    SplitLabels
        Classes by name.

    Raises
    ------
    UserError
        If the column holds what can name no class.
    """
    column = table.column(LABEL_COLUMN)
    feature = Features.from_arrow_schema(table.select([LABEL_COLUMN]).schema)[LABEL_COLUMN]
    if not names_classes(feature):
        raise unreadable(path, f"its {LABEL_COLUMN} holds {column.type}", columns)
    return labels_in(f"the table {path}", column, feature)


def _without_dictionaries(table: pa.Table) -> pa.Table:
    """Write out the values of columns that number them, as pandas' categories do."""
    for place, field in enumerate(table.schema):
        if pa.types.is_dictionary(field.type):
            table = table.set_column(place, field.name, table.column(place).cast(field.type.value_type))
    return table


def _is_text(feature: object) -> bool:
    return isinstance(feature, Value) and feature.dtype in TEXT_TYPES
