"""The files that kept uploads lie in: one of its own for each node, or packs of many simulated clients."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from fedcof.files import write_whole
from fedcof.run.protocol import FINGERPRINT
from fedcof.statistics.base import Statistics
from fedcof.wire.codec import Sent

PREFIX, PACK_PREFIX, SUFFIX = "node-", "pack-", ".safetensors"
# Two digits more than a pack can have clients keep the packs' names in their order.
PACK_DIGITS = 6

TAG, DATA_STATE, ARRIVED, CLASSES, ASKED, CLIENTS = "tag", "data-state", "arrived", "classes", "asked", "clients"
ROWS, NUM_SAMPLES, HELD = "rows", "samples", "held"
UNKNOWN = -1

# Whatever a file that is damaged can make its readers raise.
DAMAGED = (SafetensorError, ValueError, OSError, KeyError, TypeError, AttributeError, struct.error)


@dataclass(frozen=True)
class KeptUpload:
    """What is known of a kept upload without its numbers.

    Attributes
    ----------
    name : str
        The node's name, or the simulated client's number as text.
    file : str
        Name of the file within the store's folder.
    arrived : str
        When it came: an ISO date and time in UTC; of a file of an earlier version, when that was written.
    tag : str
        How it is written, see :attr:`fedcof.wire.codec.Codec.tag`; empty in files of earlier versions.
    data_state : str
        What its node said of its data.
    fingerprint, classes, asked : str
        What made its features, a digest of the class list, and the name of the folder that it was kept in; empty
        where that was not noted.
    rows, samples, held : int
        Its rows, the samples behind them, and the classes that it has rows of; -1 where that was not noted.
    num_bytes : int
        Bytes of its numbers.
    damage : str
        Why the file cannot be read; empty if it can.
    """

    name: str
    file: str
    arrived: str
    tag: str = ""
    data_state: str = ""
    fingerprint: str = ""
    classes: str = ""
    asked: str = ""
    rows: int = UNKNOWN
    samples: int = UNKNOWN
    held: int = UNKNOWN
    num_bytes: int = 0
    damage: str = ""

    @property
    def time(self) -> datetime:
        """When it came."""
        return datetime.fromisoformat(self.arrived)


def now() -> str:
    """Give the time, as an ISO date and time in UTC."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def noted_of(name: str, file: str, sent: Sent, statistics: Statistics | None = None, **noted: str) -> KeptUpload:
    """Note what is to be known of an upload.

    Parameters
    ----------
    name, file
        See :class:`KeptUpload`.
    sent : Sent
        The upload as it was sent.
    statistics : Statistics, optional
        The same, read.
    **noted : str
        Other attributes; the time is now where it is not given.

    Returns
    -------
    KeptUpload
        To be written beside it.
    """
    counted = {}
    if statistics is not None:
        counted[ROWS] = statistics.num_rows
        counted[NUM_SAMPLES] = int(statistics.counts.sum())
        counted[HELD] = len(torch.unique(statistics.class_ids))
    num_bytes = sum(array.nbytes for array in sent.arrays.values())
    arrived = noted.pop(ARRIVED, "") or now()
    return KeptUpload(name, file, arrived, sent.tag, num_bytes=num_bytes, **noted, **counted)  # type: ignore[arg-type]


def file_of_node(name: str) -> str:
    """Name the file of a node's upload."""
    return f"{PREFIX}{quote(name, safe='')}{SUFFIX}"


def file_of_pack(number: int) -> str:
    """Name the file of a pack, by its number."""
    return f"{PACK_PREFIX}{number:0{PACK_DIGITS}d}{SUFFIX}"


def node_of_file(file: str) -> str:
    """Give the name of the node whose upload a file is."""
    return unquote(file.removeprefix(PREFIX).removesuffix(SUFFIX))


def write_node(folder: Path, upload: KeptUpload, sent: Sent) -> None:
    """Write the upload of one node, in one step.

    Parameters
    ----------
    folder : Path
        The store's.
    upload : KeptUpload
        What is to be known of it.
    sent : Sent
        Its arrays.
    """
    noted = {_KEYS[name]: str(value) for name, value in asdict(upload).items() if name in _KEYS}
    write_whole(folder / upload.file, save(_contiguous(sent.arrays), noted))


def write_pack(folder: Path, uploads: Sequence[tuple[KeptUpload, Sent]]) -> None:
    """Write many uploads into one file, in one step.

    Parameters
    ----------
    folder : Path
        The store's.
    uploads : sequence of (KeptUpload, Sent)
        All of one file.
    """
    arrays: dict[str, NDArray[Any]] = {}
    clients = {}
    for upload, sent in uploads:
        place = quote(upload.name, safe="")
        arrays |= {f"{place}/{key}": array for key, array in _contiguous(sent.arrays).items()}
        clients[upload.name] = {
            _KEYS[name]: value
            for name, value in asdict(upload).items()
            if name in _KEYS and name not in _OF_ALL and value not in ("", UNKNOWN)
        }
    first = uploads[0][0]
    shared = {_KEYS[name]: str(getattr(first, name)) for name in _OF_ALL}
    write_whole(folder / first.file, save(arrays, {**shared, CLIENTS: json.dumps(clients)}))


def read_noted(path: Path) -> list[KeptUpload]:
    """Read what is known of the uploads of a file, without their numbers.

    Parameters
    ----------
    path : Path
        A node's file, or a pack.

    Returns
    -------
    list of KeptUpload
        A damaged file of a node is one with the damage; of a damaged pack nobody knows whose uploads it held.

    Raises
    ------
    FileNotFoundError
        If it is gone.
    """
    is_pack = path.name.startswith(PACK_PREFIX)
    try:
        metadata, sizes = _header(path)
        if not is_pack:
            size = sum(sizes.values())
            return [_of_metadata(node_of_file(path.name), path, metadata, num_bytes=size)]
        held: dict[str, int] = {}
        for key, size in sizes.items():
            place = key.partition("/")[0]
            held[place] = held.get(place, 0) + size
        shared = {name: metadata.get(_KEYS[name], "") for name in _OF_ALL}
        clients = json.loads(metadata[CLIENTS])
        return [
            _of_metadata(name, path, noted, num_bytes=held.get(quote(name, safe=""), 0), **shared)
            for name, noted in clients.items()
        ]
    except FileNotFoundError:
        raise
    except DAMAGED as error:
        return [
            KeptUpload("" if is_pack else node_of_file(path.name), path.name, _written(path), damage=str(error))
        ]


def read_arrays(path: Path, names: Sequence[str]) -> list[dict[str, NDArray[Any]]]:
    """Read the numbers of uploads of one file.

    Parameters
    ----------
    path : Path
        A node's file, or a pack.
    names : sequence of str
        Whose.

    Returns
    -------
    list of dict of str to ndarray
        In the order of the names.
    """
    with safe_open(path, framework="np") as file:
        if not path.name.startswith(PACK_PREFIX):
            return [{key: file.get_tensor(key) for key in file.keys()}]  # noqa: SIM118
        keys: dict[str, list[str]] = {}
        for key in file.keys():  # noqa: SIM118
            keys.setdefault(key.partition("/")[0], []).append(key)
        places = [quote(name, safe="") for name in names]
        return [{key.partition("/")[2]: file.get_tensor(key) for key in keys[place]} for place in places]


# How each attribute that is written is called there; those of all uploads of a pack are written once.
_KEYS = {
    "arrived": ARRIVED,
    "tag": TAG,
    "data_state": DATA_STATE,
    "fingerprint": FINGERPRINT,
    "classes": CLASSES,
    "asked": ASKED,
    "rows": ROWS,
    "samples": NUM_SAMPLES,
    "held": HELD,
}
_OF_ALL = ("fingerprint", "classes", "asked")
_NUMBERS = ("rows", "samples", "held")


def _of_metadata(name: str, path: Path, noted: Mapping[str, Any], **known: Any) -> KeptUpload:  # noqa: ANN401
    texts = {attribute: str(noted.get(key, "")) for attribute, key in _KEYS.items() if attribute not in _NUMBERS}
    numbers = {attribute: int(noted.get(_KEYS[attribute], UNKNOWN)) for attribute in _NUMBERS}
    if not texts["arrived"]:
        texts["arrived"] = _written(path)
    found = KeptUpload(name=name, file=path.name, **{**texts, **numbers, **known})
    # Whatever is no time is damage, and said to be.
    if found.time.tzinfo is None:
        raise ValueError(f"the time {found.arrived} has no offset")
    return found


def _header(path: Path) -> tuple[dict[str, str], dict[str, int]]:
    """Read a safetensors file's metadata, and the bytes of each tensor."""
    size = path.stat().st_size
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        if length > size - 8:
            raise ValueError("it is cut off")
        header = json.loads(file.read(length))
    metadata = header.pop("__metadata__", {})
    ends = {key: said["data_offsets"] for key, said in header.items()}
    if any(last + 8 + length > size for _, last in ends.values()):
        raise ValueError("it is cut off")
    return metadata, {key: last - first for key, (first, last) in ends.items()}


def _written(path: Path) -> str:
    return datetime.fromtimestamp(path.stat().st_mtime, UTC).isoformat(timespec="microseconds")


def _contiguous(arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    return {key: np.ascontiguousarray(array) for key, array in arrays.items()}
