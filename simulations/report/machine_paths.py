"""Paths that only one machine has: what a report says in their place, and what its commands take."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from fedcof.run.results import RunResult
from simulations.report.methods_and_keys import path_keys

_FOLDERS = re.compile(r"(?:^|(?<=[\s'\"(=:,]))/(?:[^\s/'\"():,]+/)+")


def without_folders(key: str, value: object) -> object:
    """Name a dataset or a file without the folders that only one machine has.

    Parameters
    ----------
    key : str
        A run-config key.
    value : object
        Its value.

    Returns
    -------
    object
        The value itself unless it is a path.
    """
    if key not in path_keys():
        return value
    kind, colon, place = str(value).rpartition(":")
    return f"{kind}{colon}{Path(place).name}" if place.startswith("/") else value


def text_without_folders(text: str) -> str:
    """Shorten all absolute paths in a text to their last part."""
    return _FOLDERS.sub("…/", text)


def names_of_paths(results: Sequence[RunResult]) -> list[str]:
    """List what the paths in configurations are called within the folders that hold them."""
    return sorted({name for run in results for name in _machine_paths(run).values()})


def relative_command(command: str, results: Sequence[RunResult]) -> str:
    """Make a command's paths relative to the folder that holds what they name.

    Parameters
    ----------
    command : str
        For a POSIX shell.
    results : sequence of RunResult
        The runs that it makes, among others.

    Returns
    -------
    str
        The same command, to be run in that folder.
    """
    words = shlex.split(command)
    for path, name in sorted({pair for run in results for pair in _machine_paths(run).items()}, reverse=True):
        words = [word.replace(path, name) for word in words]
    return shlex.join(words)


def _machine_paths(run: RunResult) -> dict[str, str]:
    """Find the paths in a configuration, as given and without the folders that only one machine has."""
    given = [str(run.config.get(key, "")).rpartition(":")[2] for key in path_keys()]
    return {path: Path(path).name for path in given if path.startswith("/")}
