"""The codecs by the kind of statistics that they write and their own name, as ``class-means.int8``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fedcof.registry import Registry

if TYPE_CHECKING:
    from fedcof.wire.codec import Codec

CODED = "coded"

CODECS: Registry[Codec] = Registry(
    "codec",
    "fedcof.codecs",
    {
        "class-means.float32": "fedcof.wire.plain:FLOAT32",
        "class-means.float16": "fedcof.wire.plain:FLOAT16",
        "class-means.int8": "fedcof.wire.quantised:INT8",
        "class-means.int4": "fedcof.wire.quantised:INT4",
        "class-means.coded": "fedcof.wire.coded:CODED_MEANS",
        "gram.float32": "fedcof.wire.gram:MOMENTS",
    },
    "fedcof.wire.codec:check_codec",
)


def encodings() -> list[str]:
    """List the names of all encodings, whatever they write.

    Returns
    -------
    list of str
        Each once.
    """
    return list(dict.fromkeys(tag.rpartition(".")[2] for tag in CODECS.names()))


def encodings_of(kind: str) -> list[str]:
    """List the encodings of a kind of statistics.

    Parameters
    ----------
    kind : str
        See :class:`fedcof.statistics.base.Statistics`.

    Returns
    -------
    list of str
        Their names; none for a kind that cannot be sent.
    """
    tags = (tag.rpartition(".") for tag in CODECS.names())
    return [encoding for found, _, encoding in tags if found == kind]


def known_kinds() -> list[str]:
    """List the kinds of statistics that can be sent.

    Returns
    -------
    list of str
        Each once.
    """
    return list(dict.fromkeys(tag.rpartition(".")[0] for tag in CODECS.names()))
