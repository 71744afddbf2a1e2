"""The merges by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fedcof.registry import Registry

if TYPE_CHECKING:
    from fedcof.merging.merge import Merge

MERGES: Registry[type[Merge]] = Registry(
    "merge",
    "fedcof.merges",
    {
        "mean": "fedcof.merging.mean:Mean",
        "task-arithmetic": "fedcof.merging.task_arithmetic:TaskArithmetic",
        "ties": "fedcof.merging.ties:Ties",
        "iso-c": "fedcof.merging.iso_c:IsoC",
        "iso-cts": "fedcof.merging.iso_cts:IsoCTS",
        "core-space": "fedcof.merging.core_space:CoreSpace",
        "opcm": "fedcof.merging.opcm:OPCM",
        "fisher": "fedcof.merging.fisher:Fisher",
    },
    "fedcof.merging.merge:check_merge",
)
"""Rules that make one network of those that clients have trained, as classes."""
