"""Whether a node's data has changed, told by sizes and times of change in a digest that says nothing of it."""

from __future__ import annotations

import csv
import hashlib
import hmac
import os
from collections.abc import Iterable
from pathlib import Path

from clients.node_state import NodeState

PATH_COLUMN = "path"


def data_state_of(data: str, state: NodeState) -> str:
    """Digest the state of a node's data.

    Parameters
    ----------
    data : str
        A folder, or a table that names files.
    state : NodeState
        Has the secret, without which a server could try out what the data is.

    Returns
    -------
    str
        Equal for the same data; empty where there is none that can be looked at.
    """
    place = Path(data).expanduser()
    try:
        files = sorted(_files_below(place) if place.is_dir() else _files_of_table(place))
        facts = [(str(path), status.st_size, status.st_mtime_ns) for path in files for status in [path.stat()]]
        return hmac.digest(state.secret(), repr(facts).encode(), hashlib.sha256).hex()
    except (OSError, ValueError, csv.Error):
        return ""


def _files_below(folder: Path) -> Iterable[Path]:
    for below, _, names in os.walk(folder, followlinks=True):
        yield from (Path(below) / name for name in names)


def _files_of_table(table: Path) -> Iterable[Path]:
    """List the table, and what it names where it is text; the paths in a Parquet file are not looked into."""
    yield table
    if table.suffix == ".csv":
        with table.open(newline="", encoding="utf-8", errors="replace") as file:
            named = [row.get(PATH_COLUMN) for row in csv.DictReader(file)]
        yield from (path for name in named if name and (path := table.parent / name).is_file())
