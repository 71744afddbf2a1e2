"""Comparisons: methods, seeds and lists of values, laid out as runs; what is finished is not run again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from typing import Any, Protocol

from fedcof.data.section import DataSection
from fedcof.errors import UserError, unknown_name
from fedcof.keys import unknown_key
from fedcof.methods.registry import METHODS
from fedcof.methods.section import MethodSection
from fedcof.run.config import RunConfig, keys_without_effect
from fedcof.run.failures import RunFailure
from fedcof.run.results import RunResult
from simulations.scenario import absolute_value, with_absolute_paths

Runs = dict[str, RunConfig]

# Behind a method's name: as its paper has it.
AS_PUBLISHED = "paper"


class Configured(Protocol):
    """A run that was made, or could not be."""

    @property
    def method(self) -> str:
        """Name of its method."""

    @property
    def config(self) -> dict[str, Any]:
        """The whole run-config."""


def comparison_runs(values: dict[str, object], methods: list[str], seeds: list[str]) -> Runs:
    """Lay a comparison out as runs, all of which must be possible.

    Parameters
    ----------
    values, methods, seeds
        See :func:`laid_out`.

    Returns
    -------
    dict of str to RunConfig
        By folder.

    Raises
    ------
    UserError
        As :func:`laid_out`, and if a single one of the runs is impossible.
    """
    runs, impossible = laid_out(values, methods, seeds)
    if impossible:
        raise UserError(impossible[0].reason)
    return runs


def laid_out(values: dict[str, object], methods: list[str], seeds: list[str]) -> tuple[Runs, list[RunFailure]]:
    """Lay a comparison out as runs, each with a folder of its own.

    A key that would change nothing for a method, or beside other values, keeps its default there, and runs that
    come out the same are run once: with ``encoding=["float32", "int8"]`` there are two runs of FedCOF and one of
    Fed3R.

    Parameters
    ----------
    values : dict
        Run-config keys with a value, or a list of values to compare.
    methods, seeds : list of str
        What else to compare; ``fedcof:paper`` is FedCOF as its paper has it, whatever the values say.

    Returns
    -------
    runs : dict of str to RunConfig
        By folder; seeds outermost, so that runs on the same federation follow one another.
    impossible : list of RunFailure
        Those whose values do not go together.

    Raises
    ------
    UserError
        If a method, key or value is unknown, a list is empty or given to a key that takes none, or no run is
        possible.
    """
    lists = _checked_lists(values, methods, seeds)
    runs: Runs = {}
    impossible: list[RunFailure] = []
    for seed, *choice in product(seeds, *lists.values()):
        for method in methods:
            name, published = _form_of(method)
            chosen = {**values, **dict(zip(lists, choice, strict=True)), **published}
            chosen |= {**MethodSection.named(name=name), **DataSection.named(seed=seed)}
            without_effect = keys_without_effect(chosen)
            kept = {key: value for key, value in chosen.items() if key not in without_effect}
            try:
                config = with_absolute_paths(RunConfig.from_mapping(kept))
            except UserError as error:
                impossible.append(_impossible(kept, error))
                continue
            runs[_folder_of(config, [key for key in lists if key in kept])] = config
    if not runs:
        raise UserError(impossible[0].reason)
    return runs, [failure for i, failure in enumerate(impossible) if failure not in impossible[:i]]


def _form_of(method: str) -> tuple[str, dict[str, object]]:
    """Take ``name`` or ``name:paper`` apart into the method and the keys that its paper has otherwise."""
    name, separator, form = method.partition(":")
    if separator and form != AS_PUBLISHED:
        raise unknown_name("form of a method", form, [AS_PUBLISHED])
    return name, published_values() if separator else {}


def published_values() -> dict[str, object]:
    """Give the keys that the papers of the methods have otherwise than this package, as they have them."""
    known = RunConfig.declared().values()
    return {key.name: key.published for key in known if key.published is not None}


def _checked_lists(
    values: Mapping[str, object], methods: Sequence[str], seeds: Sequence[str]
) -> dict[str, list[object]]:
    """Check all that is wrong whatever it stands beside, and give the lists; raises UserError."""
    known = RunConfig.declared()
    method, seed = MethodSection.key_of("name"), DataSection.key_of("seed")
    for named, given in ((method, methods), (seed, seeds)):
        if not given:
            raise UserError(
                f"The option {named.several} names no {named.name}: give at least one, several separated by commas."
            )
    for key, value in values.items():
        if key not in known:
            raise unknown_key(key, list(known))
        if isinstance(value, list) and known[key].several:
            raise UserError(f"The key {key} takes no list: use {known[key].several} for several.")
        if value == []:
            raise UserError(f"The key {key} has an empty list: give at least one value.")
        for one in value if isinstance(value, list) else [value]:
            known[key].validate(known[key].read(one))
    for one in methods:
        METHODS.get(_form_of(one)[0])
    for one in seeds:
        seed.validate(seed.read(one))
    return {key: value for key, value in values.items() if isinstance(value, list)}


def _impossible(kept: Mapping[str, object], error: UserError) -> RunFailure:
    mapping = RunConfig.loosely(kept).to_mapping()
    absolute = dict(absolute_value(key, value) for key, value in mapping.items())
    return RunFailure.of(RunConfig.loosely(absolute), error)


def unfinished(runs: Runs, results: Iterable[RunResult], failures: Iterable[RunFailure] = ()) -> Runs:
    """Leave out the runs that have a result and did not fail.

    Parameters
    ----------
    runs : dict of str to RunConfig
        The runs of a comparison, by folder.
    results : iterable of RunResult
        What the folder holds.
    failures : iterable of RunFailure
        Which runs of the folder failed. Of two that differ only in how patient they are, one may have a result.

    Returns
    -------
    dict of str to RunConfig
        The runs still to be made.
    """
    # Without some of its clients it is another run.
    finished = {RunConfig.from_mapping(result.config).digest for result in results if not result.without}
    failed = [failure.config for failure in failures]
    return {
        folder: config
        for folder, config in runs.items()
        if config.digest not in finished or config.to_mapping() in failed
    }


def varying_keys(results: Sequence[Configured]) -> list[str]:
    """List the keys, apart from method and seed, in which runs of the same method differ.

    Parameters
    ----------
    results : sequence of RunResult or RunFailure
        Runs of one comparison.

    Returns
    -------
    list of str
        Run-config keys, in their order; behind them those that this version does not know.
    """
    # A run of an earlier version was as the defaults of later keys say.
    defaults = RunConfig.defaults()
    seen: dict[tuple[str, str], set[object]] = {}
    for result in results:
        for key, value in {**defaults, **result.config}.items():
            seen.setdefault((result.method, key), set()).add(value)
    differing = {key for (_, key), found in seen.items() if len(found) > 1}
    in_order = [*defaults, *sorted(differing - set(defaults))]
    return [key for key in in_order if key in differing and key not in DataSection.named(seed=None)]


def _folder_of(config: RunConfig, keys: list[str]) -> str:
    """Name a run so that a person can find it, and so that no two runs share a name."""
    values = config.to_mapping()
    parts = [
        config.method.name,
        *(f"{key}-{values[key]}" for key in keys),
        f"seed-{config.data.seed}",
        config.digest,
    ]
    return "_".join("".join(c if c.isalnum() or c in ".-" else "-" for c in part) for part in parts)
