"""Whether a node's data has changed, told by sizes and times of change in a digest that says nothing of it."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Mapping
from pathlib import Path

from clients.node_state import NodeState, state_of
from fedcof.data.folder_walk import walk
from fedcof.data.node_features import files_of_features
from fedcof.errors import UserError
from fedcof.run.protocol import DATA, ENCODER


def own_data_state(node_config: Mapping[str, object]) -> str:
    """Digest the state of what a node's owner has given as its data; see :func:`data_state_of`.

    Parameters
    ----------
    node_config : mapping
        With ``data``, and ``encoder`` if the data are features.

    Returns
    -------
    str
        Equal for the same data of the same encoder.
    """
    return data_state_of(str(node_config[DATA]), state_of(node_config), str(node_config.get(ENCODER, "")))


def data_state_of(data: str, state: NodeState, encoder: str = "") -> str:
    """Digest the state of a node's data.

    Parameters
    ----------
    data : str
        A folder of images or a table that names them; or a folder or a file of features.
    state : NodeState
        Has the secret, without which a server could try out what the data is.
    encoder : str
        What computed the features; empty for images.

    Returns
    -------
    str
        Equal for the same data; empty where there is none that can be looked at.
    """
    place = Path(data).expanduser()
    try:
        files = sorted(_files_of_features(place) if encoder else _files_of_images(place))
        facts: list[object] = [
            (path, status.st_size, status.st_mtime_ns) for path in files for status in [Path(path).stat()]
        ]
        if encoder:
            facts.append(encoder)
        return hmac.digest(state.secret(), repr(facts).encode(), hashlib.sha256).hex()
    except (OSError, UserError):
        return ""


def _files_of_features(place: Path) -> list[str]:
    files = files_of_features(place)
    if not files:
        raise FileNotFoundError(place)
    return [str(file) for file in files]


def _files_of_images(place: Path) -> Iterable[str]:
    return {path for path, _ in walk(place, "").files} if place.is_dir() else _files_of_table(place)


def _files_of_table(table: Path) -> Iterable[str]:
    """List the table, and those of the files in it that are there."""
    # What reads tables takes a second to import, which a node with a folder need not wait for.
    from fedcof.data.node_table import files_of_table

    named, _ = files_of_table(table)
    return {str(table), *(path for path in named if Path(path).is_file())}
