"""Whether a node's data has changed, told by sizes and times of change in a digest that says nothing of it."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable
from pathlib import Path

from clients.node_state import NodeState
from fedcof.data.folder_walk import walk
from fedcof.errors import UserError


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
        files = sorted({path for path, _ in walk(place, "").files} if place.is_dir() else _files_of_table(place))
        facts = [(path, status.st_size, status.st_mtime_ns) for path in files for status in [Path(path).stat()]]
        return hmac.digest(state.secret(), repr(facts).encode(), hashlib.sha256).hex()
    except (OSError, UserError):
        return ""


def _files_of_table(table: Path) -> Iterable[str]:
    """List the table, and those of the files in it that are there."""
    # What reads tables takes a second to import, which a node with a folder need not wait for.
    from fedcof.data.node_table import files_of_table

    named, _ = files_of_table(table)
    return {str(table), *(path for path in named if Path(path).is_file())}
