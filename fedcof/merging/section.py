"""The section ``merging``: how the server puts the networks that clients have trained together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from fedcof.keys import AT_LEAST_0, AT_LEAST_1, SHARE, Acts, Beside, Changes, Section, key
from fedcof.merging.registry import MERGES

MEAN, TIES, CORE_SPACE, FISHER = "mean", "ties", "core-space", "fisher"
# What has a matrix for each client, and so can be done in the core that the clients share.
IN_CORE = ["mean", "task-arithmetic", "ties", "iso-c", "iso-cts"]

_MERGED = Beside(
    "continue is not none and continue-strategy averages",
    lambda run: run.training.follows and run.training.averages,
)


def _has_scale(run: Any) -> bool:  # noqa: ANN401
    merging: MergingSection = run.merging
    plain = merging.rule == CORE_SPACE and merging.core_rule == MEAN
    return _MERGED.holds(run) and MERGES.get(merging.rule).TAKES_SCALE and not plain


_SCALED = Beside("the merge has a scale", _has_scale)


def _with_rule(name: str) -> Beside:
    return Beside(f"continue-merge is {name}", lambda run: _MERGED.holds(run) and run.merging.rule == name)


@dataclass(frozen=True)
class MergingSection(Section):
    """How the server puts trained networks together; each field says what it means."""

    NAME: ClassVar[str] = "merging"

    rule: str = key(
        MEAN,
        "What the server makes of the networks that clients have trained: their mean, or another merge.",
        Acts.CLIENT | Acts.SERVER,
        Changes.RESULT,
        name="continue-merge",
        choices=MERGES.names,
        beside=_MERGED,
        refused_without_effect=True,
    )
    scale: float = key(
        0.0,
        "Factor of the merged update; 0 for the one that makes it as long as the mean of the clients' updates, "
        "times what is best on the samples that clients hold out, if they do.",
        Acts.SERVER,
        Changes.RESULT,
        name="merge-scale",
        numbers=AT_LEAST_0,
        beside=_SCALED,
        refused_without_effect=True,
    )
    density: float = key(
        0.2,
        "Share of each client's update, its largest entries, that ties keeps.",
        Acts.SERVER,
        Changes.RESULT,
        name="merge-density",
        numbers=SHARE,
        beside=_with_rule(TIES),
        refused_without_effect=True,
    )
    core_rule: str = key(
        MEAN,
        "What core-space does with the clients' updates in the space that they share.",
        Acts.SERVER,
        Changes.RESULT,
        name="merge-core",
        choices=lambda: IN_CORE,
        beside=_with_rule(CORE_SPACE),
        refused_without_effect=True,
    )
    atoms: int = key(
        1,
        "Parts of a client's update that fisher weighs apart.",
        Acts.SERVER,
        Changes.RESULT,
        name="merge-atoms",
        numbers=AT_LEAST_1,
        beside=_with_rule(FISHER),
        refused_without_effect=True,
    )

    @property
    def needs_fisher(self) -> bool:
        """Whether clients send how curved their loss is along each weight."""
        return self.rule == FISHER
