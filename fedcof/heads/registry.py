"""The heads by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fedcof.registry import Registry

if TYPE_CHECKING:
    from fedcof.heads.head import Head

HEADS: Registry[Head] = Registry(
    "head",
    "fedcof.heads",
    {
        "ridge": "fedcof.heads.ridge:RIDGE",
        "lda": "fedcof.heads.lda:LDA",
        "quadratic": "fedcof.heads.regularised:QUADRATIC",
    },
    "fedcof.heads.head:check_head",
)
