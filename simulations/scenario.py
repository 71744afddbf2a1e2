"""Scenarios: a TOML file of run-config keys, and what the command line sets on top."""

from __future__ import annotations

import tomllib
from pathlib import Path

from fedcof.errors import UserError, unknown_name
from fedcof.run.config import RunConfig
from fedcof.run.execution import ExecutionSection
from fedcof.wire.section import GIVEN, WireSection

DEFAULT_SCENARIO = "digits"
DEFAULT_METHODS, DEFAULT_SEEDS = ["fedncm:paper", "fedcof:paper", "fedcof"], ["0"]
# The tables of a scenario, beside its keys: what is compared, and what a paper says of it.
COMPARE, PAPER = "compare", "paper"
FOLDER = Path(__file__).parent / "scenarios"


def scenario_names() -> list[str]:
    """Names of the scenarios that come with the package."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def load_scenario(scenario: str) -> dict[str, object]:
    """Read a scenario's keys.

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
    return {key: value for key, value in _read(scenario).items() if key not in (COMPARE, PAPER)}


def compared(scenario: str) -> tuple[list[str], list[str]]:
    """Read which methods and seeds a comparison of a scenario has, where nobody says otherwise.

    Parameters
    ----------
    scenario : str
        See :func:`load_scenario`.

    Returns
    -------
    tuple of (list of str, list of str)
        Methods and seeds; those of every comparison, and one seed, for a scenario that has no table of them.

    Raises
    ------
    UserError
        As :func:`load_scenario`, or if there is anything else in the table.
    """
    table = _read(scenario).get(COMPARE, {})
    own = table if isinstance(table, dict) else {COMPARE: table}
    lists = {**_COMPARED, **own}
    if set(lists) != set(_COMPARED) or not all(isinstance(found, list) for found in lists.values()):
        raise UserError(
            f"The table {COMPARE} of the scenario {scenario} is {table!r}, but holds the lists "
            f"{' and '.join(_COMPARED)} alone: mend it."
        )
    methods, seeds = ([str(item) for item in lists[name]] for name in _COMPARED)
    return methods, seeds


_COMPARED: dict[str, list[str]] = {"methods": DEFAULT_METHODS, "seeds": DEFAULT_SEEDS}


def paper_figures(scenario: str) -> dict[str, float]:
    """Read what a paper says of a scenario.

    Parameters
    ----------
    scenario : str
        The name of one that comes with the package.

    Returns
    -------
    dict of str to float
        Accuracy in per cent by method, and the number of ``classes``; empty where nothing is known.
    """
    table = _read(scenario).get(PAPER, {})
    assert isinstance(table, dict)
    return {name: float(number) for name, number in table.items()}


def _read(scenario: str) -> dict[str, object]:
    path = at_home(Path(scenario)) if scenario.endswith(".toml") else FOLDER / f"{scenario}.toml"
    if not path.is_file():
        raise unknown_name("scenario", scenario, [*scenario_names(), "the path of a .toml file"])
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
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
    return key.strip(), _parse_value(value.strip())


def _parse_value(text: str) -> object:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        pass
    if text.startswith("[") and text.endswith("]"):
        # A shell eats the quotes that TOML wants around each text of a list.
        return [_parse_value(item.strip()) for item in text[1:-1].split(",") if item.strip()]
    return text


def scenario_values(scenario: str, overrides: list[str]) -> dict[str, object]:
    """Put together a scenario and what was set on top of it.

    Parameters
    ----------
    scenario : str
        See :func:`load_scenario`.
    overrides : list of str
        Each as in :func:`parse_override`; the last one wins.

    Returns
    -------
    dict
        Run-config keys and their values, not checked.

    Raises
    ------
    UserError
        If there is no such scenario, an override is none, or a key is one that the command sets.
    """
    values = {**load_scenario(scenario), **dict(map(parse_override, overrides))}
    if values.keys() & WireSection.ways().keys():
        # Who names one of these means it, also where it is the default.
        values = {**WireSection.named(upload=GIVEN), **values}
    for known, instead in (("output", "give --output instead"), ("plan", "leave it out")):
        key = ExecutionSection.key_of(known).name
        if values.get(key):
            raise UserError(f"The key {key} is {values[key]!r}, but the command sets it itself: {instead}.")
    return values


def configure(scenario: str, overrides: list[str]) -> RunConfig:
    """Make the run-config of a scenario and what was set on top of it.

    Parameters
    ----------
    scenario, overrides
        See :func:`scenario_values`.

    Returns
    -------
    RunConfig
        The checked configuration.

    Raises
    ------
    UserError
        If anything in it is unknown or has the wrong type.
    """
    values = scenario_values(scenario, overrides)
    for key, value in values.items():
        if isinstance(value, list) and key in RunConfig.declared():
            raise UserError(f"The key {key} takes no list here: give one value, or use fedcof compare.")
    return with_absolute_paths(RunConfig.from_mapping(values))


def with_absolute_paths(config: RunConfig) -> RunConfig:
    """Resolve a run-config's paths, because Flower's processes run in folders of their own.

    Parameters
    ----------
    config : RunConfig
        With paths relative to the working directory.

    Returns
    -------
    RunConfig
        With absolute paths.
    """
    found = [known for known in RunConfig.declared().values() if is_path(known.name, config.value(known))]
    changed = {known.argument: str(absolute_value(known.name, config.value(known))[1]) for known in found}
    return config.replaced(**changed) if changed else config


def is_path(key: str, value: object) -> bool:
    """Say whether a key's value is a path, or ends in one.

    Parameters
    ----------
    key : str
        A run-config key, of this version or not.
    value : object
        Its value.

    Returns
    -------
    bool
        Whether it names a place on this machine.
    """
    return bool(_place(key, value))


def absolute_value(key: str, value: object) -> tuple[str, object]:
    """Resolve the path in a key's value, where there is one.

    Parameters
    ----------
    key, value
        See :func:`is_path`.

    Returns
    -------
    tuple of (str, object)
        The key, and its value with an absolute path.
    """
    place = _place(key, value)
    if not place:
        return key, value
    return key, str(value).removesuffix(place) + str(at_home(Path(place)).absolute())


def at_home(path: Path) -> Path:
    """Put a user's home in the place of a tilde; raises UserError where nobody knows that home."""
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise UserError(f"The path {path} begins in a home that nobody knows: write it out.") from error


def _place(key: str, value: object) -> str:
    known = RunConfig.declared().get(key)
    return known.place(str(value)) if known and known.place else ""
