"""Which adapters of low rank a backbone gets, said without torch; :mod:`fedcof.heads.adapters` makes them."""

from __future__ import annotations

import re
from dataclasses import dataclass

from fedcof.errors import UserError


@dataclass(frozen=True)
class AdapterOptions:
    """What the adapters of a backbone are to be.

    Attributes
    ----------
    rank : int
        Rank r, at least 1; a layer with fewer inputs or outputs takes as many as it has.
    alpha : float
        What the product of an adapter's matrices is multiplied by, times ``rank``.
    layers : str
        A regular expression for the whole name of each module; empty for those that suit the backbone.
    seed : int
        Seed of the drawing.
    """

    rank: int = 8
    alpha: float = 16.0
    layers: str = ""
    seed: int = 0

    @property
    def scaling(self) -> float:
        """What the product of an adapter's matrices is multiplied by."""
        return self.alpha / self.rank


def check_layers(pattern: str) -> None:
    """Check that names of layers can be matched.

    Parameters
    ----------
    pattern : str
        See :attr:`AdapterOptions.layers`.

    Raises
    ------
    UserError
        If it is no regular expression.
    """
    try:
        re.compile(pattern)
    except re.error as error:
        raise UserError(
            f"The key adapter-layers is {pattern!r}, which is no regular expression ({error}): write one for the "
            r"whole names of modules, such as blocks\.\d+\.attn\.qkv, or leave it empty."
        ) from error
