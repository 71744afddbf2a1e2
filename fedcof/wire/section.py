"""The section ``wire``: how statistics are written, and in how many bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fedcof.errors import UserError
from fedcof.keys import ABOVE_0, AT_LEAST_0, Acts, Beside, Changes, Section, key
from fedcof.wire.registry import CODED, encodings, encodings_of

ROUNDING_NOISE = 0.02

_BUDGETED = Beside("the method sends rows of class means", lambda run: run.method.chosen.takes_groups)
_GROUPED = Beside(
    "the method sends rows of class means, without a budget",
    lambda run: run.method.chosen.takes_groups and not run.wire.has_budget,
)
_ENCODED = Beside(
    "the method's statistics have several encodings, without a budget",
    lambda run: len(encodings_of(run.method.kind)) > 1 and not run.wire.has_budget,
)
_ROUNDED = Beside(
    "encoding is coded", lambda run: run.wire.encoding == CODED and not run.wire.has_budget and _ENCODED.holds(run)
)


@dataclass(frozen=True)
class WireSection(Section):
    """How statistics are written, and in how many bytes; each field says what it means."""

    NAME: ClassVar[str] = "wire"

    groups: int = key(
        1,
        "Class means that a client sends per class; 0 to choose by the number of clients.",
        Acts.CLIENT | Acts.SERVER,
        Changes.UPLOAD,
        numbers=AT_LEAST_0,
        beside=_GROUPED,
        refused_without_effect=True,
    )
    encoding: str = key(
        "float32",
        "How statistics are written.",
        Acts.CLIENT,
        Changes.UPLOAD,
        choices=encodings,
        beside=_ENCODED,
        refused_without_effect=True,
    )
    rounding_noise: float = key(
        ROUNDING_NOISE,
        "Variance that the rounding of coded adds, as a share of the sampling noise of every mean.",
        Acts.CLIENT,
        Changes.UPLOAD,
        numbers=ABOVE_0,
        beside=_ROUNDED,
        refused_without_effect=True,
    )
    bytes_per_client: int = key(
        0,
        "Most bytes of a client's upload, 0 for any number; a budget chooses groups and rounding by itself.",
        Acts.CLIENT | Acts.SERVER,
        Changes.UPLOAD,
        numbers=AT_LEAST_0,
        beside=_BUDGETED,
        refused_without_effect=True,
    )
    bytes_per_class: int = key(
        0,
        "Most bytes of a client's upload for each class that it holds, 0 for any number.",
        Acts.CLIENT | Acts.SERVER,
        Changes.UPLOAD,
        numbers=AT_LEAST_0,
        beside=_BUDGETED,
        refused_without_effect=True,
    )

    @property
    def has_budget(self) -> bool:
        """Whether bytes are given, and so groups and rounding are chosen."""
        return bool(self.bytes_per_client or self.bytes_per_class)

    def check_together(self) -> None:
        """Check that nothing is both given and chosen; raises UserError."""
        if self.encoding != CODED and self.rounding_noise != ROUNDING_NOISE:
            raise UserError(
                f"The key rounding-noise is {self.rounding_noise:g}, but the encoding {self.encoding} rounds in "
                "its own way: set encoding to coded, or leave rounding-noise."
            )
        if self.bytes_per_client and self.bytes_per_class:
            raise UserError(
                "Both bytes-per-client and bytes-per-class are set, but there can be one budget: leave one."
            )
        if self.has_budget:
            self._check_left_to_budget()

    def _check_left_to_budget(self) -> None:
        for known in self.declared():
            value = getattr(self, known.attribute)
            if known.beside in (_GROUPED, _ENCODED, _ROUNDED) and value != known.default:
                raise UserError(
                    f"The key {known.name} is {value}, but a budget in bytes chooses it: set one or the other."
                )
