"""Checkpoints: all that a run's next round depends on, in one file that is always whole."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord
from flwr.serverapp.strategy import Strategy
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from fedcof import UserError
from fedcof.files import write_whole
from fedcof.run.config import RunConfig
from server.reporting import CHECKPOINT_FILE_NAME

FILE_FORMAT = "fedcof-checkpoint-1"

Arrays = dict[str, NDArray[Any]]

_ARRAY, _LIST, _MAPPING, _RECORD = "array", "list", "mapping", "record"


@dataclass(frozen=True)
class StrategyState:
    """What a strategy remembers from round to round.

    Attributes
    ----------
    arrays : dict of str to (str, dict of str to ndarray)
        For each attribute what kind of collection it is, and its arrays by their keys, in its order.
    scalars : dict of str to bool, int, float, str or None
        The other attributes, as far as they are plain values.
    """

    arrays: dict[str, tuple[str, Arrays]]
    scalars: dict[str, bool | int | float | str | None]


@dataclass(frozen=True)
class Checkpoint:
    """A run after one of its rounds.

    Attributes
    ----------
    config : dict
        The run-config; with the number of the round its seed is the whole random state.
    rounds_done : int
        Rounds of training that are behind it.
    network : dict of str to ndarray
        The arrays of the network.
    present : list of bool
        Which classes somebody has.
    strategy : StrategyState
        What the strategy remembers.
    course : dict
        How the run has gone, in plain values: rounds, ledger, and who was left out.
    """

    config: dict[str, Any]
    rounds_done: int
    network: Arrays
    present: list[bool]
    strategy: StrategyState
    course: dict[str, Any]


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Put a checkpoint in the place of the older one, in one step.

    Parameters
    ----------
    folder : Path
        The run's folder; made if missing.
    checkpoint : Checkpoint
        What to write.
    """
    tensors = {f"network/{name}": array for name, array in checkpoint.network.items()}
    kinds = {}
    for attribute, (kind, arrays) in checkpoint.strategy.arrays.items():
        kinds[attribute] = {"kind": kind, "keys": list(arrays)}
        tensors |= {f"strategy/{attribute}/{key}": array for key, array in arrays.items()}
    description = {
        "config": checkpoint.config,
        "rounds_done": checkpoint.rounds_done,
        "network": list(checkpoint.network),
        "present": checkpoint.present,
        "kinds": kinds,
        "scalars": checkpoint.strategy.scalars,
        "course": checkpoint.course,
    }
    tensors = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
    content = save(tensors, {"format": FILE_FORMAT, "description": json.dumps(description)})
    write_whole(folder / CHECKPOINT_FILE_NAME, content)


def load_checkpoint(folder: Path, config: RunConfig) -> Checkpoint | None:
    """Read a run's checkpoint, if there is one.

    Parameters
    ----------
    folder : Path
        The run's folder.
    config : RunConfig
        What the run is to be; where it is computed and how long is waited may differ.

    Returns
    -------
    Checkpoint or None
        None where the run has finished no round of training.

    Raises
    ------
    UserError
        If the file is damaged, or is another run's.
    """
    path = folder / CHECKPOINT_FILE_NAME
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FILE_FORMAT:
                raise UserError(f"The file {path} is not a checkpoint of this version of fedcof: remove it.")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        checkpoint = _read(json.loads(metadata["description"]), tensors)
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise UserError(
            f"The checkpoint {path} is damaged ({error}): remove it, and the run starts from its first round."
        ) from error
    _check_same_run(path, RunConfig.of_any_version(checkpoint.config), config)
    return checkpoint


def strategy_state(strategy: Strategy) -> StrategyState:
    """Take down what a strategy remembers: its attributes that are plain values, arrays or collections of arrays.

    Parameters
    ----------
    strategy : Strategy
        Flower's, or one's own.

    Returns
    -------
    StrategyState
        Its state. Functions and other objects are no state.
    """
    arrays: dict[str, tuple[str, Arrays]] = {}
    scalars: dict[str, bool | int | float | str | None] = {}
    for name, value in vars(strategy).items():
        if value is None or isinstance(value, bool | int | float | str):
            scalars[name] = value
        elif isinstance(value, np.ndarray):
            arrays[name] = _ARRAY, {"0": value}
        elif isinstance(value, ArrayRecord):
            arrays[name] = _RECORD, {key: array.numpy() for key, array in value.items()}
        elif isinstance(value, list) and _are_arrays(value):
            arrays[name] = _LIST, {str(number): array for number, array in enumerate(value)}
        elif isinstance(value, Mapping) and _are_arrays(list(value.values())):
            arrays[name] = _MAPPING, dict(value)
    return StrategyState(arrays, scalars)


def restore_strategy(strategy: Strategy, state: StrategyState) -> None:
    """Give a strategy its memory back.

    Parameters
    ----------
    strategy : Strategy
        Made as the one whose state this is.
    state : StrategyState
        Given by :func:`strategy_state`.
    """
    vars(strategy).update(state.scalars)
    for name, (kind, arrays) in state.arrays.items():
        values: dict[str, object] = {
            _ARRAY: next(iter(arrays.values()), None),
            _LIST: list(arrays.values()),
            _MAPPING: arrays,
            _RECORD: ArrayRecord({key: Array(array) for key, array in arrays.items()}),
        }
        setattr(strategy, name, values[kind])


def _are_arrays(values: list[Any]) -> bool:
    return bool(values) and all(isinstance(value, np.ndarray) for value in values)


def _read(description: dict[str, Any], tensors: Arrays) -> Checkpoint:
    """Put the parts together, in the order in which they were: the file has an order of its own."""
    arrays = {
        name: (part["kind"], {key: tensors[f"strategy/{name}/{key}"] for key in part["keys"]})
        for name, part in description["kinds"].items()
    }
    return Checkpoint(
        config=description["config"],
        rounds_done=description["rounds_done"],
        network={name: tensors[f"network/{name}"] for name in description["network"]},
        present=description["present"],
        strategy=StrategyState(arrays, description["scalars"]),
        course=description["course"],
    )


def _check_same_run(path: Path, found: Mapping[str, object], config: RunConfig) -> None:
    key = config.differing_key(found)
    if key:
        raise UserError(
            f"The checkpoint {path} is of another run: its {key.name} is {found.get(key.name)!r}, and not "
            f"{config.value(key)!r}. Name another output folder, or give the settings of that run."
        )
