"""The section ``wire``: how statistics are written, and in how many bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from fedcof.errors import UserError
from fedcof.keys import ABOVE_0, AT_LEAST_0, Acts, Beside, Changes, Scalar, Section, key
from fedcof.wire.registry import CODED, encodings, encodings_of

ROUNDING_NOISE = 0.02

BEST, PAPER, GIVEN = UPLOADS = ("best", "paper", "given")


def _chosen(run: Any) -> bool:  # noqa: ANN401
    """Whether a run's groups and rounding are chosen by a budget."""
    # The method, and with it torch, is looked at only where it matters.
    return run.wire.has_budget and bool(run.wire.chooses(run.method.chosen.takes_groups, bool(run.privacy.epsilon)))


_UNSAID = Beside(
    "the method sends rows of class means, and no key says how",
    lambda run: run.method.chosen.takes_groups and not run.wire.says_how,
)
_BUDGETED = Beside("the method sends rows of class means", lambda run: run.method.chosen.takes_groups)
_GROUPED = Beside(
    "the method sends rows of class means, without a budget",
    lambda run: run.method.chosen.takes_groups and not _chosen(run),
)
_ENCODED = Beside(
    "the method's statistics have several encodings, without a budget",
    lambda run: len(encodings_of(run.method.kind)) > 1 and not _chosen(run),
)
_ROUNDED = Beside(
    "encoding is coded", lambda run: run.wire.encoding == CODED and not _chosen(run) and _ENCODED.holds(run)
)

_WAYS = (_GROUPED, _ENCODED, _ROUNDED, _BUDGETED)


@dataclass(frozen=True)
class WireSection(Section):
    """How statistics are written, and in how many bytes; each field says what it means."""

    NAME: ClassVar[str] = "wire"

    upload: str = key(
        BEST,
        "What an upload is: best spends the bytes of one float32 mean for each class that the client holds as well "
        "as can be, paper sends these means, and given is what the next five keys say, which they do too where one "
        "of them is set. With an epsilon, best is one float32 mean.",
        Acts.CLIENT | Acts.SERVER,
        Changes.UPLOAD,
        choices=lambda: UPLOADS,
        beside=_UNSAID,
        earlier=GIVEN,
        published=PAPER,
    )
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
        "Most bytes of a client's message, 0 for any number; a budget chooses groups and rounding by itself.",
        Acts.CLIENT | Acts.SERVER,
        Changes.UPLOAD,
        numbers=AT_LEAST_0,
        beside=_BUDGETED,
        refused_without_effect=True,
    )
    bytes_per_class: int = key(
        0,
        "Most bytes of a client's message for each class that it holds, 0 for any number.",
        Acts.CLIENT | Acts.SERVER,
        Changes.UPLOAD,
        numbers=AT_LEAST_0,
        beside=_BUDGETED,
        refused_without_effect=True,
    )

    @classmethod
    def ways(cls) -> dict[str, Scalar]:
        """Give the keys that say how an upload is written, with their defaults."""
        return {known.name: known.default for known in cls.declared() if known.beside in _WAYS}

    @property
    def says_how(self) -> bool:
        """Whether one of those keys is set, so that the upload is as given whatever ``upload`` is."""
        declared = (known for known in self.declared() if known.beside in _WAYS)
        return any(getattr(self, known.attribute) != known.default for known in declared)

    def chooses(self, takes_rows: bool, private: bool) -> bool:
        """Tell whether a budget chooses groups and rounding.

        Parameters
        ----------
        takes_rows : bool
            Whether the method takes rows of class means, of which there may be several a class.
        private : bool
            Whether there is an epsilon, whose noise does not cover what is chosen by looking at samples.

        Returns
        -------
        bool
            False for the best upload where it cannot be: it is one float32 mean of each class then.
        """
        best = self.upload == BEST and not self.says_how and takes_rows and not private
        return best or self.is_given_bytes

    @property
    def is_given_bytes(self) -> bool:
        """Whether a key gives the bytes."""
        return bool(self.bytes_per_client or self.bytes_per_class)

    @property
    def has_budget(self) -> bool:
        """Whether there is a budget, and so groups and rounding are chosen."""
        return self.chooses(takes_rows=True, private=False)

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
        if self.is_given_bytes:
            self._check_left_to_budget()

    def _check_left_to_budget(self) -> None:
        for known in self.declared():
            value = getattr(self, known.attribute)
            if known.beside in (_GROUPED, _ENCODED, _ROUNDED) and value != known.default:
                raise UserError(
                    f"The key {known.name} is {value}, but a budget in bytes chooses it: set one or the other."
                )
