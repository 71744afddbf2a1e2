"""The section ``execution``: where a run is computed, and how patiently."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fedcof.keys import ABOVE_0, AT_LEAST_0, AT_LEAST_1, Acts, Changes, Range, Section, Shown, key


def _is_ray_address(address: str) -> bool:
    host, separator, port = address.rpartition(":")
    return not address or (bool(host and separator) and "/" not in host and port.isascii() and port.isdigit())


def _names(text: str) -> list[str]:
    return list(dict.fromkeys(name.strip() for name in text.split(",")))


# Ray gives out shares of one GPU, or whole ones.
_GPUS = Range(
    "-1, from 0 to 1, or a whole number",
    lambda number: number == -1 or 0 <= number <= 1 or (number > 1 and float(number).is_integer()),
)
_NOBODY = "none"
_TRACKERS = Range(
    "names separated by commas, or none alone",
    lambda text: all(names := _names(text)) and (len(names) == 1 or _NOBODY not in names),
)
_ADDRESS = Range("HOST:PORT of a Ray cluster, or empty", _is_ray_address)


@dataclass(frozen=True)
class ExecutionSection(Section):
    """Where a run is computed, and how patiently; each field says what it means."""

    NAME: ClassVar[str] = "execution"

    clients_per_node: int = key(
        0,
        "Clients that one simulated SuperNode hosts; 0 to choose by their number.",
        Acts.EXECUTION,
        Changes.NOTHING,
        numbers=AT_LEAST_0,
    )
    num_cpus: int = key(
        1,
        "CPU cores of a simulated SuperNode at work; as many work at once as the machine has room for.",
        Acts.EXECUTION,
        Changes.NOTHING,
        numbers=AT_LEAST_1,
    )
    num_gpus: float = key(
        -1.0,
        "GPUs of a simulated SuperNode at work: a share from 0 to 1, or a whole number; -1 to derive it from the "
        "memory that the backbone takes. It does not cap the memory that is used.",
        Acts.EXECUTION,
        Changes.NOTHING,
        numbers=_GPUS,
    )
    ray_address: str = key(
        "",
        "HOST:PORT of an existing Ray cluster to simulate on; empty for a Ray of one's own on this machine.",
        Acts.EXECUTION,
        Changes.NOTHING,
        numbers=_ADDRESS,
    )
    node_timeout: float = key(
        120.0,
        "Seconds to wait for the next node to join, counted from the last that did.",
        Acts.EXECUTION,
        Changes.NOTHING,
        numbers=ABOVE_0,
    )
    reply_timeout: float = key(
        3600.0,
        "Seconds to wait for a reply, counted from the last that came.",
        Acts.EXECUTION,
        Changes.NOTHING,
        numbers=ABOVE_0,
    )
    energy: bool = key(
        False,
        "Whether the energy of a run is measured, by the extra energy: by a meter of the machine where one can be "
        "read, else by a model of its CPU.",
        Acts.EXECUTION,
        Changes.NOTHING,
        several="nothing",
    )
    trackers: str = key(
        "tensorboard",
        "What draws curves of a run, by commas: tensorboard (event files in the run's folder, where there are "
        "several rounds), wandb or mlflow (by extras of these names), what an installed package offers, or none.",
        Acts.EXECUTION,
        Changes.NOTHING,
        numbers=_TRACKERS,
        several="nothing",
    )
    keep_uploads: bool = key(
        False,
        "Whether a simulation keeps its clients' uploads beside the results, to be solved again, listed and "
        "forgotten; those of nodes are always kept.",
        Acts.EXECUTION,
        Changes.NOTHING,
        several="nothing",
    )
    output: str = key(
        "",
        "Folder for the results.",
        Acts.EXECUTION,
        Changes.NOTHING,
        shown=Shown.NEVER,
        several="--output",
    )
    plan: str = key(
        "",
        "File that lists several runs, written by fedcof compare.",
        Acts.EXECUTION,
        Changes.NOTHING,
        shown=Shown.NEVER,
        several="nothing",
    )

    @property
    def tracker_names(self) -> list[str]:
        """Names of the trackers, each once."""
        return [name for name in _names(self.trackers) if name != _NOBODY]
