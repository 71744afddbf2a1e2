"""What a method is to a comparison; without torch, because the command's tables need it."""

from __future__ import annotations

from enum import Enum


class Role(Enum):
    """What a method is to a comparison."""

    MEANS_ALONE = "does without a covariance"
    REBUILT = "rebuilds one from the same upload"
    CEILING = "shows what could be reached"
    OTHER = "nothing in particular"
