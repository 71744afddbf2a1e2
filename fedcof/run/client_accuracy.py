"""What a classifier is worth to the clients: their accuracy on their own kind of samples."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np

SPREADS = ("all_classes", "held_classes", "own_prior")


@dataclass(frozen=True)
class Spread:
    """One accuracy a client, from 0 to 1, summed up.

    Attributes
    ----------
    mean : float
        Over clients, each counting the same.
    worst_tenth : float
        Of the tenth of them, rounded up, that has the lowest.
    """

    mean: float
    worst_tenth: float

    @classmethod
    def of(cls, accuracies: Sequence[float]) -> Spread:
        """Sum up at least one client's accuracy."""
        ascending = np.sort(np.asarray(accuracies, dtype=np.float64))
        worst = ascending[: math.ceil(len(ascending) / 10)]
        return cls(float(ascending.mean()), float(worst.mean()))


@dataclass(frozen=True)
class ClientAccuracy:
    """Accuracy of one classifier on samples as each of the clients has them.

    Attributes
    ----------
    clients : int
        Clients that are counted: those of whose kind there are samples to evaluate on.
    all_classes : Spread
        With the classifier as it is.
    held_classes : Spread
        With only the classes of which the client has samples.
    own_prior : Spread
        With its own class frequencies as prior.
    """

    clients: int
    all_classes: Spread
    held_classes: Spread
    own_prior: Spread

    @classmethod
    def averaged(cls, found: Sequence[ClientAccuracy]) -> ClientAccuracy:
        """Average at least one, as over seeds; the clients are those of the first."""
        spreads = {}
        for name in SPREADS:
            several: list[Spread] = [getattr(one, name) for one in found]
            spreads[name] = Spread(fmean(one.mean for one in several), fmean(one.worst_tenth for one in several))
        return cls(found[0].clients, **spreads)

    @classmethod
    def of_json(cls, values: Mapping[str, Any]) -> ClientAccuracy:
        """Read what ``dataclasses.asdict`` has made of one; raises TypeError or KeyError if it is another thing."""
        spreads = {
            name: Spread(float(values[name]["mean"]), float(values[name]["worst_tenth"])) for name in SPREADS
        }
        return cls(int(values["clients"]), **spreads)
