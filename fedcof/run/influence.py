"""What single clients have done to a run's classifier."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ClientInfluence:
    """What one client has done.

    Attributes
    ----------
    client : str
        Name of its node, or its number.
    distance : float
        How far the classifier's weights are without it, over their own length.
    gain_on_means : float or None
        What the accuracy on the other clients' class means gains without it; None where there is none to be known.
    gain : float or None
        What the accuracy on the server's test samples gains without it; None where it has none.
    """

    client: str
    distance: float
    gain_on_means: float | None
    gain: float | None

    @classmethod
    def of_json(cls, values: Mapping[str, Any]) -> ClientInfluence:
        """Read what ``dataclasses.asdict`` has made of one; raises TypeError if it is another thing."""
        return cls(**values)
