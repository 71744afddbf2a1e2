"""What the report knows of methods and keys: names and looks of methods, and what a key is to a comparison."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from fedcof.keys import Acts, Changes, Key, Shown
from fedcof.methods.registry import METHODS
from fedcof.methods.role import Role
from fedcof.run.config import RunConfig, keys_without_effect
from fedcof.wire.section import WireSection

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
_OTHER_COLOURS = ["#CC79A7", "#56B4E9", "#B8A500", "#8C564B", "#6A3D9A"]
_OTHER_MARKERS = ["P", "v", "X", "<", ">", "p", "h"]


def method_styles(methods: Iterable[str]) -> dict[str, MethodStyle]:
    """Choose names and looks.

    Parameters
    ----------
    methods : iterable of str
        Names of methods, of this version or not.

    Returns
    -------
    dict of str to MethodStyle
        One each; a method that is not known here is called by its name, and what a method does not say of its looks
        is taken from a cycle, by its place among those that do not.
    """
    styles: dict[str, MethodStyle] = {}
    chosen = 0
    for name in sorted(set(methods), key=method_place):
        title, colour, marker = name, "", ""
        if name in METHODS.names():
            method = METHODS.get(name)
            title, colour, marker = method.title, method.colour, method.marker
        if not (colour and marker):
            colour = colour or _OTHER_COLOURS[chosen % len(_OTHER_COLOURS)]
            marker = marker or _OTHER_MARKERS[chosen % len(_OTHER_MARKERS)]
            chosen += 1
        styles[name] = MethodStyle(title, colour, marker)
    return styles


def method_place(method: str) -> tuple[int, str]:
    """Give what sorts methods in tables: in their own order, and unknown ones behind them by name."""
    known = METHODS.names()
    return (known.index(method) if method in known else len(known)), method


def role_of(method: str) -> Role:
    """Give what a method is to a comparison; one that is not known here is nothing in particular."""
    return METHODS.get(method).role if method in METHODS.names() else Role.OTHER


def sends_nothing(method: str) -> bool:
    """Say whether a method asks no client for anything, and so has no bytes to be measured."""
    return method in METHODS.names() and METHODS.get(method).pools_samples


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
    known = str(values["method"]) in METHODS.names()
    return keys_without_effect(values if known else {**values, "method": RunConfig.defaults()["method"]})


def said_by_itself(key: str) -> bool:
    """Say whether a key is never a column: it has a place of its own, or is a path of one moment."""
    known = RunConfig.declared()
    return key in known and known[key].shown is Shown.NEVER


def path_of_a_moment(key: str) -> bool:
    """Say whether a key only says where one run's files are."""
    known = RunConfig.declared()
    return said_by_itself(key) and Acts.EXECUTION in known[key].acts


def is_telling(key: str) -> bool:
    """Say whether a classifier, what is known of it or an upload may depend on a key; of unknown ones it may."""
    known = RunConfig.declared()
    return key not in known or known[key].changes > Changes.BYTES


def always_said(values: Config) -> list[str]:
    """List the keys that are worth saying even at their defaults.

    Parameters
    ----------
    values : mapping
        The values that all runs share.

    Returns
    -------
    list of str
        In the order of their declaration.
    """
    worth = [name for name, known in RunConfig.declared().items() if known.shown is Shown.ALWAYS]
    unused = unused_keys(values)
    return [name for name in worth if name in values and name not in unused]


def dealing_keys() -> list[str]:
    """List the keys that decide who holds what."""
    declared = RunConfig.sections()["data"].declared()
    return [known.name for known in declared if known.shown is Shown.ALWAYS and known.changes is Changes.UPLOAD]


def path_keys() -> list[str]:
    """List the keys whose value may be a path on one machine, perhaps behind a kind and a colon."""
    return [name for name, known in RunConfig.declared().items() if known.place]


def same_upload(one: Config, other: Config) -> bool:
    """Say whether what reaches the server is the same but for chance and for what fails."""
    return _same_but_for(_only_on_the_server, one, other)


def same_federation(one: Config, other: Config) -> bool:
    """Say whether the same clients are asked for what they know, in whatever form."""
    return _same_but_for(lambda known: _only_on_the_server(known) or known.section == "wire", one, other)


def _settled(config: Config) -> dict[str, object]:
    """Give, for the key that has two words for one upload, and for some methods none, what it comes to."""
    if config["method"] not in METHODS.names():
        return {}
    run = RunConfig.loosely(config)
    return WireSection.named(upload=run.wire.chooses(run.method.chosen.takes_groups, bool(run.privacy.epsilon)))


def _only_on_the_server(known: Key) -> bool:
    """Whether a key decides what is made of the uploads, after they have come."""
    return known.after_upload and known.acts == Acts.SERVER and known.section != "data"


def _same_but_for(free: Callable[[Key], bool], one: Config, other: Config) -> bool:
    declared = RunConfig.declared().values()
    ignored = {k.name for k in declared if free(k) or k.shown is Shown.NEVER or k.changes <= Changes.BYTES}
    for config in (one, other):
        if sends_nothing(config["method"]):
            # It asks nobody, so how clients are asked is nothing that it could share.
            ignored |= unused_keys(config)
    filled = [{**default_config(), **config, **_settled(config)} for config in (one, other)]
    return all(filled[0].get(key) == filled[1].get(key) for key in {**filled[0], **filled[1]} if key not in ignored)
