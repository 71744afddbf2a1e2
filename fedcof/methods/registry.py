"""The methods by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fedcof.registry import Registry
from fedcof.statistics.kinds import CLASS_MEANS, GRAM

if TYPE_CHECKING:
    from fedcof.methods.method import Method

METHODS: Registry[Method] = Registry(
    "method",
    "fedcof.methods",
    {
        "fedncm": "fedcof.methods.fedncm:METHOD",
        "fedcof": "fedcof.methods.fedcof:METHOD",
        "fed3r": "fedcof.methods.fed3r:METHOD",
        "zero-shot": "fedcof.methods.zero_shot:METHOD",
        "random": "fedcof.methods.random_head:METHOD",
        "oracle": "fedcof.methods.oracle:METHOD",
    },
    "fedcof.methods.method:check_method",
)

# What the methods that come with fedcof send, known without importing torch.
_KINDS = {"fedncm": CLASS_MEANS, "fedcof": CLASS_MEANS, "fed3r": GRAM}


def kind_of(name: str) -> str:
    """Give the kind of statistics that clients send for a method.

    Parameters
    ----------
    name : str
        The method's.

    Returns
    -------
    str
        See :attr:`fedcof.methods.method.Method.kind`; empty if they send none.
    """
    return _KINDS[name] if name in _KINDS else METHODS.get(name).kind
