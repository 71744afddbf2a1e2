"""The names that both ends of the wire use for messages and records."""

from __future__ import annotations

INTRODUCTION = "introduction"
"""Query in which a node says which partition it is, and of how many."""

STATISTICS = "statistics"
"""Query for a client's statistics, and the beginning of the name of the record that carries them."""

CONFIG = "config"
"""Record with the run-config."""

PACKED = "packed"
"""Name of the one array of such a record, whose bytes :mod:`fedcof.wire.packing` makes of named arrays."""

PACKED_TYPE = "fedcof.packed"
"""What Flower calls the way in which an array was made bytes: no file of numpy's, with its header of 128 bytes."""

ARRAYS = "arrays"
"""Record with a model's arrays."""

FISHER = "fisher"
"""Record with how curved a client's loss is along each weight of a model's arrays, where a merge asks for it."""

NETWORK = "network"
"""Record with the arrays of a network that has been trained, whose backbone embeds what is asked about."""

METRICS = "metrics"
"""Record with a client's metrics, over as many samples as the key below says."""

NUM_EXAMPLES = "num-examples"

SERVER_ROUND = "server-round"
"""Key of the run-config that Flower's strategies set to the round."""

NODE = "node"
"""Record of a node's introduction, and of what a node with data of its own says of its upload."""

SAMPLES, WITHHELD, FINGERPRINT = "samples", "withheld", "backbone"
"""Keys of a node record that comes with an upload."""

NAME = "name"
"""Key of the introduction of a node with data of its own, in place of the two below."""

DATA_STATE = "data-state"
"""Key of that introduction with what tells whether the node's data has changed, and nothing of what it is."""

DATA = "data"
"""Key of the node-config that says where a node's own data lies."""

ENCODER = "encoder"
"""Key of the node-config that declares what computed a node's features, where its data are features."""

PARTITION_ID = "partition-id"
NUM_PARTITIONS = "num-partitions"

HOSTED = "hosted"
"""Record that lists, under the key below, the clients a message is for, where one node hosts several."""

CLIENTS = "clients"

ERROR = "error"
"""Record with, under the key below, why a hosted client has no reply."""

REASON = "reason"

NO_SAMPLE = "it has no sample to train on"
"""The reason of a client that cannot train, which is no failure."""

_SEPARATOR = ":"


def hosted_key(client: int, record: str) -> str:
    """Name a hosted client's record within the reply of its node.

    Parameters
    ----------
    client : int
        Client number.
    record : str
        The record's name in the client's own reply.

    Returns
    -------
    str
        The name in the node's reply.
    """
    return f"{client}{_SEPARATOR}{record}"


def split_hosted_key(key: str) -> tuple[int, str]:
    """Take a name made by :func:`hosted_key` apart.

    Parameters
    ----------
    key : str
        Name of a record in a node's reply.

    Returns
    -------
    tuple of (int, str)
        Client number and the record's own name.

    Raises
    ------
    ValueError
        If the key is none of these.
    """
    client, separator, record = key.partition(_SEPARATOR)
    if not separator:
        raise ValueError(f"{key!r} names no hosted client")
    return int(client), record


def statistics_record(tag: str) -> str:
    """Name the record that carries statistics.

    Parameters
    ----------
    tag : str
        How they are written, see :class:`fedcof.wire.codec.Codec`.

    Returns
    -------
    str
        The record's name.
    """
    return f"{STATISTICS}.{tag}"


def tag_of(record: str) -> str | None:
    """Read from a record's name how the statistics in it are written.

    Parameters
    ----------
    record : str
        Name of a record.

    Returns
    -------
    str or None
        The tag; empty for a name without one, as earlier versions gave; None if the record carries no statistics.
    """
    name, _, tag = record.partition(".")
    return tag if name == STATISTICS else None
