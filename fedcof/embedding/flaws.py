"""Why something is not taken for an image; apart from what reads images, because messages are made of it too."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from fedcof.errors import UserError


class Kind(StrEnum):
    """What kind of flaw it is; the value is what a summary calls those that have it."""

    NO_IMAGE = "no image"
    EMPTY = "empty"
    FORMAT = "of a format that is not read"
    BROKEN = "broken"
    MISSING = "missing"
    UNREADABLE = "unreadable"
    HIDDEN = "hidden"
    BESIDE = "beside the classes"
    LINK = "links that lead nowhere"
    OTHER = "of no split"


@dataclass(frozen=True)
class Flaw:
    """Why something is not taken for an image.

    Attributes
    ----------
    kind : Kind
        What kind of flaw it is.
    reason : str
        A clause that says it.
    """

    kind: Kind
    reason: str


class UndecodableImageError(UserError):
    """An image that only decoding shows to be damaged; there may be others like it in its split."""
