"""The section ``privacy``: what is promised to every sample of a client."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fedcof.errors import UserError
from fedcof.keys import AT_LEAST_0, BETWEEN_0_AND_1, Acts, Beside, Changes, Section, key

_BOTH = Acts.CLIENT | Acts.SERVER
_UPLOADS = Beside("the method asks clients", lambda run: bool(run.method.kind))
_PRIVATE = Beside("epsilon is above 0", lambda run: bool(run.method.kind) and run.privacy.epsilon > 0)


@dataclass(frozen=True)
class PrivacySection(Section):
    """What is promised to every sample of a client; each field says what it means."""

    NAME: ClassVar[str] = "privacy"

    epsilon: float = key(
        0.0,
        "Differential privacy of every sample in its client's one upload; 0 for none. Who asks a client in several "
        "runs spends the sum of what they cost.",
        _BOTH,
        Changes.UPLOAD,
        numbers=AT_LEAST_0,
        beside=_UPLOADS,
        refused_without_effect=True,
    )
    delta: float = key(
        1e-5,
        "Chance at which the promise may fail.",
        _BOTH,
        Changes.UPLOAD,
        numbers=BETWEEN_0_AND_1,
        beside=_PRIVATE,
    )
    clip_norm: float = key(
        0.0,
        "Longest feature vector, in the backbone's units, that counts in full; goes with epsilon.",
        _BOTH,
        Changes.UPLOAD,
        numbers=AT_LEAST_0,
        beside=_PRIVATE,
    )
    subtract_noise: bool = key(
        True,
        "Whether the server takes the known noise off its covariance and the lengths of its class means.",
        Acts.SERVER,
        Changes.RESULT,
        beside=_PRIVATE,
        after_upload=True,
    )

    def check_together(self) -> None:
        """Check that a promise has all its numbers; raises UserError."""
        if (self.epsilon > 0) != (self.clip_norm > 0):
            raise UserError(
                f"The key epsilon is {self.epsilon:g} and clip-norm is {self.clip_norm:g}, but privacy needs both "
                "above 0: set both or neither."
            )
