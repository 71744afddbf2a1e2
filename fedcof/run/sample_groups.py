"""Accuracy of classes with no, few and many training samples apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

# Up to so many are few, as in ImageNet-LT (Liu et al., CVPR 2019); its medium and many are one here.
MOST_OF_FEW = 20
GROUPS = ("none", "few", "many")


@dataclass(frozen=True)
class GroupAccuracy:
    """Accuracy on some of the classes.

    Attributes
    ----------
    classes : int
        How many there are of them.
    accuracy : float or None
        Share of their test samples that is classified rightly, from 0 to 1; None without one.
    """

    classes: int
    accuracy: float | None


@dataclass(frozen=True)
class AccuracyBySamples:
    """Accuracy of classes by the number of training samples that the whole federation has of them.

    Attributes
    ----------
    none, few, many : GroupAccuracy
        Of classes with no sample, with 1 to 20, and with more.
    """

    none: GroupAccuracy
    few: GroupAccuracy
    many: GroupAccuracy

    @property
    def known(self) -> dict[str, GroupAccuracy]:
        """The groups that have test samples, by name."""
        groups = {name: getattr(self, name) for name in GROUPS}
        return {name: group for name, group in groups.items() if group.accuracy is not None}

    @property
    def tells_apart(self) -> bool:
        """Whether it says more than one accuracy of all classes does."""
        return len(self.known) > 1

    @classmethod
    def averaged(cls, found: Sequence[AccuracyBySamples]) -> AccuracyBySamples:
        """Average at least one, as over seeds; unknown where one is, and the numbers of classes rounded."""
        return cls(**{name: _mean([getattr(one, name) for one in found]) for name in GROUPS})

    @classmethod
    def of_json(cls, values: Mapping[str, Any]) -> AccuracyBySamples:
        """Read what ``dataclasses.asdict`` has made of one; raises TypeError or KeyError if it is another thing."""
        return cls(**{name: GroupAccuracy(**values[name]) for name in GROUPS})


def _mean(groups: Sequence[GroupAccuracy]) -> GroupAccuracy:
    known = [group.accuracy for group in groups if group.accuracy is not None]
    accuracy = fmean(known) if len(known) == len(groups) else None
    return GroupAccuracy(round(fmean(group.classes for group in groups)), accuracy)
