"""What a run has taken of energy, and by which meter or model that is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any


@dataclass(frozen=True)
class EnergyUse:
    """Energy of a run on the server's machine, on which a simulation has its clients too.

    Attributes
    ----------
    cpu_joules, gpu_joules, memory_joules : float
        What each has taken, in joules.
    client_share : float or None
        Share of the CPU time that the clients took, from 0 to 1, by which all joules are divided; None where they
        are on other machines, so that all is the server's.
    seconds : float
        How long it was measured: from the first message until the results are evaluated. Of a run that was gone on
        with, the last part alone.
    source : str
        By what each number is known: a meter, or a model.
    """

    cpu_joules: float
    gpu_joules: float
    memory_joules: float
    client_share: float | None
    seconds: float
    source: str

    @property
    def joules(self) -> float:
        """All of it, in joules."""
        return self.cpu_joules + self.gpu_joules + self.memory_joules

    @property
    def client_joules(self) -> float | None:
        """The clients' part, in joules; None where they are on other machines."""
        return None if self.client_share is None else self.client_share * self.joules

    @property
    def server_joules(self) -> float:
        """The server's part, in joules."""
        return self.joules - (self.client_joules or 0.0)

    @classmethod
    def averaged(cls, found: Sequence[EnergyUse]) -> EnergyUse:
        """Average at least one, as over seeds."""
        shares = [one.client_share for one in found if one.client_share is not None]
        return cls(
            cpu_joules=fmean(one.cpu_joules for one in found),
            gpu_joules=fmean(one.gpu_joules for one in found),
            memory_joules=fmean(one.memory_joules for one in found),
            client_share=fmean(shares) if len(shares) == len(found) else None,
            seconds=fmean(one.seconds for one in found),
            source="; ".join(dict.fromkeys(one.source for one in found)),
        )

    @classmethod
    def of_json(cls, values: Mapping[str, Any]) -> EnergyUse:
        """Read what ``dataclasses.asdict`` has made of one; raises TypeError if it is another thing."""
        return cls(**values)
