"""The copies of tables that the datasets library reads from: kept beside the features, listed and deleted."""

from __future__ import annotations

import errno
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from fedcof.embedding.feature_table import CACHE_VARIABLE, feature_cache_dir
from fedcof.errors import UserError, first_line

DESCRIPTION = "dataset_info.json"
_INCOMPLETE, _LOCK = ".incomplete", "_builder.lock"
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG}


@dataclass(frozen=True)
class TableCopy:
    """One copy of a table.

    Attributes
    ----------
    folder : Path
        Where it lies.
    kind : str
        How the library calls what it was read from, for example ``parquet``.
    num_rows : int
        Number of its rows, of all splits.
    num_bytes : int
        Size on disk.
    """

    folder: Path
    kind: str
    num_rows: int
    num_bytes: int


def table_cache_dir() -> Path:
    """Folder of the copies of tables, beside that of the features.

    Returns
    -------
    Path
        It need not exist.
    """
    return feature_cache_dir().with_name("tables")


def list_tables(folder: Path) -> list[TableCopy]:
    """List the copies of tables.

    Parameters
    ----------
    folder : Path
        Folder of the copies; it need not exist.

    Returns
    -------
    list of TableCopy
        In the order of their folders.
    """
    return [_describe(path.parent) for path in sorted(folder.rglob(DESCRIPTION)) if _is_complete(path.parent)]


def clear_tables(folder: Path) -> int:
    """Delete all copies, and what a killed process left of one. What another process is copying stays.

    Parameters
    ----------
    folder : Path
        Folder of the copies; it need not exist.

    Returns
    -------
    int
        Bytes freed.
    """
    freed = 0
    copies = [path.parent for path in folder.rglob(DESCRIPTION)] + list(folder.rglob(f"*{_INCOMPLETE}"))
    for copy in sorted(set(copies)):
        lock = FileLock(str(copy).removesuffix(_INCOMPLETE) + _LOCK)
        try:
            with lock.acquire(blocking=False):
                size = _size(copy)
                shutil.rmtree(copy, ignore_errors=True)
        except Timeout:
            continue
        freed += size
    return freed


def refused_copy(name: str, error: BaseException, folder: Path) -> UserError | None:
    """Make the error for a table whose copy finds no place; None where it is something else that failed.

    Parameters
    ----------
    name : str
        The dataset.
    error : BaseException
        What the library raised.
    folder : Path
        Where the copy was to be.

    Returns
    -------
    UserError or None
        To be raised by the caller.
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and (cause.errno in _FULL or _lies_in(folder, cause.filename)):
            reason = cause.strerror or first_line(cause)
            return UserError(
                f"The dataset {name} is read from a copy that cannot be kept in {folder} ({reason}): make room "
                f"there, or set {CACHE_VARIABLE} to a folder on another disk."
            )
        cause = cause.__cause__ or cause.__context__
    return None


def _lies_in(folder: Path, filename: object) -> bool:
    return isinstance(filename, str) and Path(filename).is_relative_to(folder)


def _is_complete(folder: Path) -> bool:
    return not folder.name.endswith(_INCOMPLETE)


def _describe(folder: Path) -> TableCopy:
    try:
        info = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
        kind = str(info["builder_name"])
        rows = sum(int(split["num_examples"]) for split in info["splits"].values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        kind, rows = "", 0
    return TableCopy(folder, kind, rows, _size(folder))


def _size(folder: Path) -> int:
    try:
        return sum(path.stat().st_size for path in folder.iterdir())
    except OSError:
        return 0
