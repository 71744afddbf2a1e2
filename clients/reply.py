"""A client's upload as the message that carries it, and how many bytes that message has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects
from numpy.typing import NDArray

from fedcof.run.config import RunConfig
from fedcof.run.protocol import FINGERPRINT, NODE, PACKED, PACKED_TYPE, SAMPLES, WITHHELD, statistics_record
from fedcof.wire.packing import pack_arrays

FINGERPRINT_LENGTH = 64
MOST_SAMPLES = 10**9


@dataclass(frozen=True)
class NodeRecord:
    """What a node with data of its own says beside its upload.

    Attributes
    ----------
    samples, withheld : int
        The samples behind it, and the rows that its policy withheld.
    fingerprint : str
        That of what made its features, see :func:`fedcof.data.problem.fingerprint_of`.
    """

    samples: int
    withheld: int
    fingerprint: str


def longest_node_record(config: RunConfig) -> NodeRecord:
    """Make a record as long as any that a node says beside an upload.

    Parameters
    ----------
    config : RunConfig
        The run.

    Returns
    -------
    NodeRecord
        Made without a look at the backbone, all of whose fingerprints are of one length.
    """
    backbone = "0" * FINGERPRINT_LENGTH
    fingerprint = config.embedding.fingerprint(config.data.encoder or backbone)
    return NodeRecord(MOST_SAMPLES, MOST_SAMPLES, fingerprint)


def reply_with(arrays: Mapping[str, NDArray[Any]], tag: str, node: NodeRecord | None = None) -> RecordDict:
    """Make the reply that carries an upload.

    Parameters
    ----------
    arrays : mapping of str to ndarray
        The upload.
    tag : str
        How it is written.
    node : NodeRecord, optional
        What is said beside it.

    Returns
    -------
    RecordDict
        One ArrayRecord, named after how it is written (``statistics.class-means.float32``), with all arrays packed
        into one; and a ``node`` record where there is something to say.
    """
    packed = pack_arrays(arrays)
    record = ArrayRecord({PACKED: Array("uint8", (len(packed),), PACKED_TYPE, packed)})
    reply = RecordDict({statistics_record(tag): record})
    if node:
        reply[NODE] = ConfigRecord({SAMPLES: node.samples, WITHHELD: node.withheld, FINGERPRINT: node.fingerprint})
    return reply


def arrays_record(arrays: Mapping[str, NDArray[Any]]) -> ArrayRecord:
    """Write arrays as Flower sends them."""
    return ArrayRecord({name: Array(array) for name, array in arrays.items()})


def bytes_of_reply(content: RecordDict) -> int:
    """Count the bytes of a reply as Flower serialises it, which is how the server's ledger counts them.

    Parameters
    ----------
    content : RecordDict
        The reply.

    Returns
    -------
    int
        Bytes of the content and of all objects nested in it.
    """
    return sum(len(item.deflate()) for item in get_all_nested_objects(content).values())
