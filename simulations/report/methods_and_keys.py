"""What the report knows of methods and keys: names and looks of methods, and what a key is to a comparison."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from fedcof.run.config import BUDGETS, IGNORED_KEYS, METHODS, RunConfig, keys_without_effect

Config = Mapping[str, Any]


@dataclass(frozen=True)
class MethodStyle:
    """How a method is named and drawn.

    Attributes
    ----------
    title : str
        Its name within a sentence.
    colour, marker : str
        As matplotlib takes them.
    """

    title: str
    colour: str
    marker: str


# Okabe and Ito's colours, which people who cannot tell red from green tell apart.
_STYLES = {
    "fedncm": MethodStyle("FedNCM", "#E69F00", "s"),
    "fedcof": MethodStyle("FedCOF", "#0072B2", "o"),
    "fed3r": MethodStyle("Fed3R", "#D55E00", "D"),
    "random": MethodStyle("a random head", "#009E73", "^"),
    "oracle": MethodStyle("the oracle", "#555555", "*"),
}
_OTHER_COLOURS = ["#CC79A7", "#56B4E9", "#B8A500", "#8C564B", "#6A3D9A"]
_OTHER_MARKERS = ["P", "v", "X", "<", ">", "p", "h"]

# Two methods of the same upload, the second of which rebuilds what the first does without; and what it strives for.
MEANS_ONLY, REBUILT = "fedncm", "fedcof"
CEILINGS = ["fed3r", "oracle"]

PLACES = ["output", "plan"]
# None of them says what was run: the first two have a place of their own, the others are paths of one moment.
_UNSAID = ["method", "seed", *PLACES]
_ALWAYS_SAID = ["dataset", "partition", "num-clients", "backbone", "image-size"]
_DEALING = ["dataset", "partition", "alpha", "classes-per-client", "partition-column"]
_ONLY_ON_THE_SERVER = ["shrinkage", "estimator", "head", "ridge-penalty", "subtract-noise"]
_ON_THE_WIRE = ["encoding", "groups", "rounding-noise", *BUDGETS]
_EXECUTION = ["batch-size", "feature-cache", "broadcast", "clients-per-node", "quorum"]
_EXECUTION += ["node-timeout", "reply-timeout"]
_PATHS = ["dataset", "weights", "classes", "test-data"]


def method_styles(methods: Iterable[str]) -> dict[str, MethodStyle]:
    """Choose names and looks.

    Parameters
    ----------
    methods : iterable of str
        Names of methods, of this version or not.

    Returns
    -------
    dict of str to MethodStyle
        One each; a method that is not known here is called by its name, and takes a colour and a marker of a cycle
        by its place among the unknown names in alphabetical order.
    """
    names = set(methods)
    styles = {name: style for name, style in _STYLES.items() if name in names}
    for number, name in enumerate(sorted(names - set(_STYLES))):
        colour = _OTHER_COLOURS[number % len(_OTHER_COLOURS)]
        styles[name] = MethodStyle(name, colour, _OTHER_MARKERS[number % len(_OTHER_MARKERS)])
    return styles


def method_place(method: str) -> tuple[int, str]:
    """Give what sorts methods in tables: in their own order, and unknown ones behind them by name."""
    return (METHODS.index(method) if method in METHODS else len(METHODS)), method


def sends_nothing(method: str) -> bool:
    """Say whether a method asks no client for statistics, and so has no bytes to be measured."""
    return method == "oracle"


def default_config() -> dict[str, Any]:
    """Give every key with its default, in the order in which keys are listed."""
    return dict(RunConfig.defaults())


def keys_in_order(keys: Collection[str]) -> list[str]:
    """Order keys as the run-config does; those that it does not know come behind, by name."""
    known = [key for key in default_config() if key in keys]
    return [*known, *sorted(set(keys) - set(known))]


def unused_keys(config: Config) -> set[str]:
    """Collect the keys that change nothing beside a run's other values.

    Parameters
    ----------
    config : mapping
        A whole run-config; its method may be one that is not known here, to which every key may mean something.

    Returns
    -------
    set of str
        Keys.
    """
    # A run of an earlier version lacks the keys that have come since: it was as their defaults say.
    values = {**default_config(), **config}
    return keys_without_effect(values if values["method"] in METHODS else {**values, "method": "fedcof"})


def said_by_itself(key: str) -> bool:
    """Say whether a key is never a column: it has a place of its own, or is a path of one moment."""
    return key in _UNSAID


def always_said(values: Config) -> list[str]:
    """List the keys that are worth saying even at their defaults.

    Parameters
    ----------
    values : mapping
        The values that all runs share.

    Returns
    -------
    list of str
        In the order in which to say them.
    """
    said = [key for key in _ALWAYS_SAID if key in values]
    if "dirichlet" in str(values.get("partition", "")):
        said.append("alpha")
    if values.get("partition") == "pathological":
        said.append("classes-per-client")
    return [key for key in said if key in values]


def dealing_keys() -> list[str]:
    """List the keys that decide who holds what."""
    return _DEALING


def path_keys() -> list[str]:
    """List the keys whose value may be a path on one machine, perhaps behind a kind and a colon."""
    return _PATHS


def same_upload(one: Config, other: Config) -> bool:
    """Say whether what reaches the server is the same but for chance and for what fails."""
    return _same_but_for(_ONLY_ON_THE_SERVER, one, other)


def same_federation(one: Config, other: Config) -> bool:
    """Say whether the same clients are asked for what they know, in whatever form."""
    return _same_but_for([*_ONLY_ON_THE_SERVER, *_ON_THE_WIRE], one, other)


def _same_but_for(free: list[str], one: Config, other: Config) -> bool:
    ignored = {*free, *_UNSAID, *_EXECUTION}
    for method in (one["method"], other["method"]):
        if sends_nothing(method):
            # It asks nobody, so how clients are asked is nothing that it could share.
            ignored |= set(IGNORED_KEYS.get(method, []))
    filled = [{**default_config(), **config} for config in (one, other)]
    return all(filled[0].get(key) == filled[1].get(key) for key in {**filled[0], **filled[1]} if key not in ignored)
