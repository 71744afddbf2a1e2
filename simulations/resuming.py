"""Going on with a run that was interrupted: what it was to be is kept beside what it came to."""

from __future__ import annotations

import tomllib
from pathlib import Path

import tomli_w

from fedcof.errors import UserError
from fedcof.files import write_whole
from fedcof.run.config import RunConfig
from server.reporting import CHECKPOINT_FILE_NAME

FILE_NAME = "run-config.toml"


def keep_config(folder: Path, config: RunConfig) -> None:
    """Write down what is about to be run.

    Parameters
    ----------
    folder : Path
        Folder for the results.
    config : RunConfig
        The run; the file is a scenario too.

    Raises
    ------
    UserError
        If the folder holds a run that was interrupted.
    """
    if (folder / CHECKPOINT_FILE_NAME).exists():
        raise UserError(
            f"The folder {folder} holds a run that was interrupted: go on with fedcof simulate --resume {folder}, "
            "or name a new one with --output."
        )
    values = config.replaced(output="", plan="").to_mapping()
    write_whole(folder / FILE_NAME, tomli_w.dumps(values))


def kept_config(folder: Path, asked: RunConfig | None = None) -> RunConfig:
    """Read what a folder's run was to be.

    Parameters
    ----------
    folder : Path
        Its folder.
    asked : RunConfig, optional
        What the user says it is, where the user does.

    Returns
    -------
    RunConfig
        As it was started; or as it is asked, which may differ in where it is computed and how long is waited.

    Raises
    ------
    UserError
        If the folder holds no run that was started, or another one.
    """
    path = folder / FILE_NAME
    if not path.exists():
        raise UserError(f"The folder {folder} holds no run to go on with: name the --output of fedcof simulate.")
    try:
        kept = RunConfig.from_mapping(RunConfig.of_any_version(tomllib.loads(path.read_text(encoding="utf-8"))))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"The file {path} is not a run-config ({error}): mend it, or start anew.") from error
    key = (asked or kept).differing_key(kept.to_mapping())
    if asked and key:
        raise UserError(
            f"The run in {folder} has {key.name} {kept.value(key)!r}, and not {asked.value(key)!r}: leave the "
            "setting out, or name a new folder with --output."
        )
    return asked or kept
