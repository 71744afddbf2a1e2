"""The section ``participation``: who is asked when, and how many must answer."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from fedcof.keys import AT_LEAST_1, PROBABILITY, SHARE, Acts, Beside, Changes, Section, key

_ASKED = Beside("the method asks clients", lambda run: run.method.chosen.asks_clients)
_ANY = Beside("clients are asked", lambda run: run.method.chosen.asks_clients or run.training.follows)


@dataclass(frozen=True)
class ParticipationSection(Section):
    """Who is asked when, and how many must answer; each field says what it means."""

    NAME: ClassVar[str] = "participation"

    init_rounds: int = key(
        1,
        "Rounds in which clients are asked for their statistics, each client once.",
        Acts.SERVER,
        Changes.RESULT,
        numbers=AT_LEAST_1,
        beside=_ASKED,
        refused_without_effect=True,
    )
    fraction: float = key(
        1.0,
        "Share of all clients asked in a round.",
        Acts.SERVER,
        Changes.RESULT,
        numbers=SHARE,
        beside=_ASKED,
        refused_without_effect=True,
    )
    dropout: float = key(
        0.0,
        "Probability with which a client fails to answer, to see what that does.",
        Acts.CLIENT,
        Changes.RESULT,
        numbers=PROBABILITY,
        beside=_ANY,
        refused_without_effect=True,
    )
    broadcast: bool = key(
        True, "Whether all clients are sent the classifier in the end.", Acts.SERVER, Changes.BYTES, beside=_ANY
    )
    quorum: float = key(
        0.8,
        "Share of the clients whose upload must be accepted.",
        Acts.SERVER,
        Changes.NOTHING,
        numbers=SHARE,
        beside=_ANY,
        after_upload=True,
    )

    @property
    def rounds_to_ask(self) -> int:
        """Rounds after which every client has been asked, or as many as are wanted."""
        return min(self.init_rounds, math.ceil(1 / self.fraction))
