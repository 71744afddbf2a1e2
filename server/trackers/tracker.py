"""What a tracker is, and what it is told in plain numbers: never a node's name, nor a path of the server's."""

from __future__ import annotations

import inspect
from dataclasses import fields
from importlib.util import find_spec
from pathlib import PurePath
from typing import ClassVar

from fedcof.errors import UserError
from fedcof.keys import Changes, Key, Scalar
from fedcof.run.config import RunConfig
from fedcof.run.energy import EnergyUse
from fedcof.run.results import RoundResult, RunResult
from server.callbacks import Callback

# Whole numbers of a result that say which it is, not how good.
_NO_MEASURES = {"round", "seed", "format"}


class Tracker(Callback):
    """A callback that is chosen by name, made anew for every run, and tolerated: what it raises costs no run.

    Attributes
    ----------
    name : str
        What it is chosen by.
    """

    name: ClassVar[str]

    @classmethod
    def check(cls) -> None:
        """Check that it can work on this machine, before Flower starts; raises UserError if it cannot."""


def check_tracker(name: str, item: object) -> None:
    """Check that an object can be a tracker.

    Parameters
    ----------
    name : str
        Under which it is to be known.
    item : object
        The object.

    Raises
    ------
    UserError
        If it is no class that fills in :class:`Tracker`, or says another name of itself.
    """
    if not (isinstance(item, type) and issubclass(item, Tracker)) or inspect.isabstract(item):
        raise UserError(
            f"The tracker {name} is {item!r}: give a class that inherits from server.trackers.tracker.Tracker."
        )
    if getattr(item, "name", None) != name:
        said = getattr(item, "name", "nothing")
        raise UserError(f"The tracker {name} says of itself that it is {said}: register it as that.")


def check_installed(module: str, name: str) -> None:
    """Check that the module that a tracker writes by is installed, which is an extra of the tracker's name.

    Parameters
    ----------
    module : str
        The module.
    name : str
        The tracker and the extra.

    Raises
    ------
    UserError
        If it is not.
    """
    if not find_spec(module):
        raise UserError(
            f"The tracker {name} needs the package {module}, which is not installed: pip install 'fedcof[{name}]', "
            "or choose other trackers."
        )


def title_of(config: RunConfig) -> str:
    """Name a run in a few words."""
    return f"{config.method.name}, seed {config.data.seed}"


def settings_of(config: RunConfig) -> dict[str, Scalar]:
    """Give what a run's result depends on, fit to be handed to somebody else.

    Parameters
    ----------
    config : RunConfig
        The run.

    Returns
    -------
    dict
        Keys that have an effect, without those of this machine; of a path the last part alone.
    """
    known = RunConfig.declared()
    return {name: _without_path(value, known[name]) for name, value in config.with_effect(Changes.BYTES).items()}


def _without_path(value: Scalar, known: Key) -> Scalar:
    path = known.place(str(value)) if known.place else ""
    return str(value).replace(path, PurePath(path).name) if path else value


def numbers_of(result: RoundResult | RunResult) -> dict[str, float]:
    """Give what is measured of a round or a run, by the names that it has in ``results.json``.

    Parameters
    ----------
    result : RoundResult or RunResult
        The round or the run.

    Returns
    -------
    dict of str to float
        Plain numbers that are known, and joules where energy was measured; no lists, in which clients or nodes are.
    """
    values = {field.name: getattr(result, field.name) for field in fields(result)}
    energy = values.get("energy")
    if isinstance(energy, EnergyUse):
        values |= {"joules": energy.joules, "client_joules": energy.client_joules}
    return {
        name: float(value)
        for name, value in values.items()
        if isinstance(value, int | float) and name not in _NO_MEASURES
    }
