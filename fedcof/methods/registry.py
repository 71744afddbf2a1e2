"""The methods by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fedcof.registry import Registry

if TYPE_CHECKING:
    from fedcof.methods.method import Method

METHODS: Registry[Method] = Registry(
    "method",
    "fedcof.methods",
    {
        "fedncm": "fedcof.methods.fedncm:METHOD",
        "fedcof": "fedcof.methods.fedcof:METHOD",
        "fed3r": "fedcof.methods.fed3r:METHOD",
        "random": "fedcof.methods.random_head:METHOD",
        "oracle": "fedcof.methods.oracle:METHOD",
    },
    "fedcof.methods.method:check_method",
)
