"""Scenarios: a TOML file of run-config keys, and what the command line sets on top."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from pathlib import Path

from fedcof.backbones import PRETRAINED, RANDOM
from fedcof.configuration import RunConfig
from fedcof.errors import UserError, unknown_name

FOLDER = Path(__file__).parent / "scenarios"


def scenario_names() -> list[str]:
    """Names of the scenarios that come with the package."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def load_scenario(scenario: str) -> dict[str, object]:
    """Read a scenario.

    Parameters
    ----------
    scenario : str
        The name of one that comes with the package, or the path of a TOML file.

    Returns
    -------
    dict
        Run-config keys and their values.

    Raises
    ------
    UserError
        If there is no such scenario or the file is not TOML.
    """
    path = Path(scenario) if scenario.endswith(".toml") else FOLDER / f"{scenario}.toml"
    if not path.is_file():
        raise unknown_name("scenario", scenario, [*scenario_names(), "the path of a .toml file"])
    try:
        return tomllib.loads(path.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"The scenario {path} is not a TOML file ({error}): mend that line.") from error


def parse_override(text: str) -> tuple[str, object]:
    """Take ``key=value`` apart; the value is read as TOML, or as plain text where it is none.

    Parameters
    ----------
    text : str
        As typed after ``-c``.

    Returns
    -------
    tuple of (str, object)
        Key and value.

    Raises
    ------
    UserError
        If there is no equal sign.
    """
    key, separator, value = text.partition("=")
    if not separator or not key:
        raise UserError(f"The setting {text!r} has no value: write it as key=value.")
    try:
        return key.strip(), tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key.strip(), value.strip()


def configure(scenario: str, overrides: list[str]) -> RunConfig:
    """Make the run-config of a scenario and what was set on top of it.

    Parameters
    ----------
    scenario : str
        See :func:`load_scenario`.
    overrides : list of str
        Each as in :func:`parse_override`; the last one wins.

    Returns
    -------
    RunConfig
        The checked configuration.

    Raises
    ------
    UserError
        If anything in it is unknown or has the wrong type.
    """
    values = {**load_scenario(scenario), **dict(map(parse_override, overrides))}
    return _with_absolute_paths(RunConfig.from_mapping(values))


def _with_absolute_paths(config: RunConfig) -> RunConfig:
    """Resolve paths here, because Flower's processes run in folders of their own."""
    kind, separator, place = config.dataset.partition(":")
    if kind in ("parquet", "folder") and place:
        config = replace(config, dataset=f"{kind}{separator}{Path(place).expanduser().absolute()}")
    if config.weights not in (PRETRAINED, RANDOM):
        config = replace(config, weights=str(Path(config.weights).expanduser().absolute()))
    return config
