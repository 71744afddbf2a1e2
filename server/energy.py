"""Measuring the energy of a run, by codecarbon: a meter of the machine where one can be read, else its models."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import psutil

from fedcof.errors import UserError
from fedcof.run.config import RunConfig
from fedcof.run.energy import EnergyUse

JOULES_PER_KWH = 3.6e6
SECONDS_BETWEEN_SAMPLES = 1.0

# What codecarbon calls its ways; it does not say which it took but in its parts.
_CPU_MODES = {
    "intel_rapl": "CPU of the whole machine by its meter (RAPL)",
    "windows_emi": "CPU of the whole machine by its meter (EMI)",
    "intel_power_gadget": "CPU of the whole machine by its meter (Power Gadget)",
    "cpu_load": "CPU by a model: its load by this run times {watts}",
    "constant": "CPU by a model: a constant share of {watts}",
}
_UNKNOWN_MODE = "CPU by a way that codecarbon does not name"


@contextmanager
def measured(config: RunConfig) -> Iterator[Callable[[], EnergyUse | None]]:
    """Measure a run's energy, if it asks for that.

    Parameters
    ----------
    config : RunConfig
        The run.

    Yields
    ------
    callable
        Ends the measurement and says what it came to; None where nothing is to be measured.

    Raises
    ------
    UserError
        If codecarbon is not installed.
    """
    if not config.execution.energy:
        yield lambda: None
        return
    meter = EnergyMeter(clients_are_here=_clients_are_here(config))
    try:
        yield meter.stop
    finally:
        # Its threads would go on after a run that failed.
        meter.close()


def _clients_are_here(config: RunConfig) -> bool:
    """Say whether the clients are processes below this one, as in a simulation on one machine."""
    return not config.data.on_nodes and not config.execution.ray_address


class EnergyMeter:
    """A measurement at work, of this process and those that it has started.

    Parameters
    ----------
    clients_are_here : bool
        Whether the processes that it has started are the clients'.

    Raises
    ------
    UserError
        If codecarbon is not installed.
    """

    def __init__(self, clients_are_here: bool) -> None:
        self._clients_are_here = clients_are_here
        self._tracker = _new_tracker()
        # Looking at the hardware takes seconds, once a process, which are not the run's.
        self._tracker.start()
        self._cpu_seconds = _cpu_seconds()
        self._started = time.perf_counter()
        self._ended = False

    def stop(self) -> EnergyUse:
        """End the measurement and say what it came to."""
        seconds = time.perf_counter() - self._started
        own, below = (after - before for after, before in zip(_cpu_seconds(), self._cpu_seconds, strict=True))
        self.close()
        found = self._tracker.final_emissions_data
        # What a process below this one took is not seen once it and who waited for it have ended.
        own, below = max(own, 0.0), max(below, 0.0)
        share = below / (own + below) if own + below else 0.0
        return EnergyUse(
            cpu_joules=found.cpu_energy * JOULES_PER_KWH,
            gpu_joules=found.gpu_energy * JOULES_PER_KWH,
            memory_joules=found.ram_energy * JOULES_PER_KWH,
            client_share=share if self._clients_are_here else None,
            seconds=round(seconds, 3),
            source=_source(self._tracker, found),
        )

    def close(self) -> None:
        """End the measurement, unless it has ended."""
        if not self._ended:
            self._ended = True
            self._tracker.stop()


def check_codecarbon() -> None:
    """Check that the extra that measures energy is installed; raises UserError."""
    if not find_spec("codecarbon"):
        raise _missing()


def _missing() -> UserError:
    return UserError(
        "Energy is measured by codecarbon, which is not installed: pip install 'fedcof[energy]', or set energy to "
        "false."
    )


def _new_tracker() -> Any:  # noqa: ANN401
    """Make a tracker that asks no network for anything and writes nothing; raises UserError without codecarbon."""
    try:
        codecarbon = import_module("codecarbon")
    except ImportError as error:
        raise _missing() from error
    logging.getLogger("codecarbon").setLevel(logging.ERROR)
    return codecarbon.OfflineEmissionsTracker(
        # Where electricity comes from is of no interest: with an intensity given nobody is asked for one.
        country_iso_code="USA",
        force_carbon_intensity_g_co2e_kwh=0.0,
        measure_power_secs=SECONDS_BETWEEN_SAMPLES,
        tracking_mode="process",
        output_methods=[],
        emissions_endpoint=None,
        allow_multiple_runs=True,
        log_level="error",
    )


def _cpu_seconds() -> tuple[float, float]:
    """CPU time of this process, and of all below it, ended ones whose parents live among them; in seconds."""
    this = psutil.Process()
    times = this.cpu_times()
    below = times.children_user + times.children_system
    for process in this.children(recursive=True):
        try:
            of_child = process.cpu_times()
        except psutil.Error:
            continue
        below += of_child.user + of_child.system + of_child.children_user + of_child.children_system
    return times.user + times.system, below


def _source(tracker: Any, found: Any) -> str:  # noqa: ANN401
    """Say by what the energy of CPU, memory and GPUs is known."""
    parts = getattr(tracker, "_hardware", [])
    cpu = next((part for part in parts if hasattr(part, "_mode")), None)
    watts = (
        f"the {getattr(cpu, '_tdp', None):g} W of {found.cpu_model}" if getattr(cpu, "_tdp", None) else "its watts"
    )
    said = [_CPU_MODES.get(getattr(cpu, "_mode", ""), _UNKNOWN_MODE).format(watts=watts), "memory by a model"]
    if found.gpu_model:
        said.append(f"{found.gpu_model} by its meter")
    return ", ".join(said)
