"""failures.json: the runs of a comparison that could not be made, each with the sentence that says why."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fedcof.errors import UserError
from fedcof.files import write_whole
from fedcof.run.config import RunConfig

FILE_NAME = "failures.json"
FORMAT = 1


@dataclass(frozen=True)
class RunFailure:
    """A run that could not be made.

    They stand in a file of their own, so that whoever reads results finds nothing but results.

    Attributes
    ----------
    method : str
        The method's name.
    seed : int
        The seed.
    reason : str
        Why, in one sentence.
    config : dict
        The whole run-config; its values need not go together, because that may be the reason.
    format : int
        Version of these fields.
    """

    method: str
    seed: int
    reason: str
    config: dict[str, Any]
    format: int = FORMAT

    @staticmethod
    def of(config: RunConfig, reason: object) -> RunFailure:
        """Say that a run failed, for a reason whose text is the sentence."""
        return RunFailure(config.method.name, config.data.seed, str(reason), config.to_mapping())


def load_failures(folder: Path) -> list[RunFailure]:
    """Read which runs of a folder failed.

    Parameters
    ----------
    folder : Path
        Folder of one or several runs.

    Returns
    -------
    list of RunFailure
        In the order in which they failed; empty where none has.

    Raises
    ------
    UserError
        If the file is not one of this version.
    """
    path = folder / FILE_NAME
    try:
        if path.exists() and not path.is_file():
            raise TypeError
        entries = json.loads(path.read_text(encoding="utf-8"))
        if any(entry["format"] != FORMAT for entry in entries):
            raise ValueError
        failures = [
            RunFailure(**{**entry, "config": RunConfig.of_any_version(entry["config"])}) for entry in entries
        ]
        if not all(isinstance(one.reason, str) for one in failures):
            raise TypeError
        return failures
    except FileNotFoundError:
        return []
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise UserError(
            f"The file {path} is not a list of failed runs of this version of fedcof: delete it, and the runs are "
            "tried again."
        ) from error


def note_failure(folder: Path, failure: RunFailure) -> None:
    """Add a run to those that failed, in the place of the same one's older entry.

    Parameters
    ----------
    folder : Path
        Folder of the runs; made if missing.
    failure : RunFailure
        The run.
    """
    others = [known for known in load_failures(folder) if known.config != failure.config]
    _write(folder, [*others, failure])


def forget_failures(folder: Path, configs: Iterable[RunConfig]) -> None:
    """Take runs that are to be tried again out of those that failed.

    Parameters
    ----------
    folder : Path
        Folder of the runs.
    configs : iterable of RunConfig
        Their configurations; how patiently and where they were computed does not matter.
    """
    known = load_failures(folder)
    digests = {config.digest for config in configs}
    kept = [failure for failure in known if RunConfig.loosely(failure.config).digest not in digests]
    if len(kept) < len(known):
        _write(folder, kept)


def _write(folder: Path, failures: list[RunFailure]) -> None:
    if failures:
        write_whole(folder / FILE_NAME, json.dumps([asdict(failure) for failure in failures], indent=1))
    else:
        (folder / FILE_NAME).unlink(missing_ok=True)
