"""Comparisons: methods, seeds and lists of values, laid out as runs; what is finished is not run again."""

from __future__ import annotations

import hashlib
import json
from itertools import product

from fedcof.data.section import DataSection
from fedcof.errors import UserError
from fedcof.keys import Changes
from fedcof.methods.registry import METHODS
from fedcof.methods.section import MethodSection
from fedcof.run.config import RunConfig, keys_without_effect
from fedcof.run.results import RunResult
from simulations.scenario import with_absolute_paths

Runs = dict[str, RunConfig]


def comparison_runs(values: dict[str, object], methods: list[str], seeds: list[str]) -> Runs:
    """Lay a comparison out as runs, each with a folder of its own.

    A key that would change nothing for a method, or beside other values, keeps its default there, and runs that
    come out the same are run once: with ``encoding=["float32", "int8"]`` there are two runs of FedCOF and one of
    Fed3R.

    Parameters
    ----------
    values : dict
        Run-config keys with a value, or a list of values to compare.
    methods, seeds : list of str
        What else to compare.

    Returns
    -------
    dict of str to RunConfig
        By folder; seeds outermost, so that runs on the same federation follow one another.

    Raises
    ------
    UserError
        If a method, key or value is unknown, or a list is empty or given to a key that takes none.
    """
    lists = {key: value for key, value in values.items() if isinstance(value, list)}
    known = RunConfig.declared()
    for key, value in lists.items():
        if key in known and known[key].several:
            raise UserError(f"The key {key} takes no list: use {known[key].several} for several.")
        if not value:
            raise UserError(f"The key {key} has an empty list: give at least one value.")
    for method in methods:
        METHODS.get(method)
    runs: Runs = {}
    for seed, *choice in product(seeds, *lists.values()):
        for method in methods:
            chosen = {**values, **dict(zip(lists, choice, strict=True))}
            chosen |= {**MethodSection.named(name=method), **DataSection.named(seed=seed)}
            without_effect = keys_without_effect(chosen)
            kept = {key: value for key, value in chosen.items() if key not in without_effect}
            config = with_absolute_paths(RunConfig.from_mapping(kept))
            runs[_folder_of(config, [key for key in lists if key in kept])] = config
    return runs


def unfinished(runs: Runs, results: list[RunResult]) -> Runs:
    """Leave out the runs that have a result.

    Parameters
    ----------
    runs : dict of str to RunConfig
        The runs of a comparison, by folder.
    results : list of RunResult
        What the folder holds.

    Returns
    -------
    dict of str to RunConfig
        The runs still to be made.
    """
    finished = {_identity(RunConfig.from_mapping(result.config)) for result in results}
    return {folder: config for folder, config in runs.items() if _identity(config) not in finished}


def varying_keys(results: list[RunResult]) -> list[str]:
    """List the keys, apart from method and seed, in which runs of the same method differ.

    Parameters
    ----------
    results : list of RunResult
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
        _identity(config),
    ]
    return "_".join("".join(c if c.isalnum() or c in ".-" else "-" for c in part) for part in parts)


def _identity(config: RunConfig) -> str:
    """Digest everything that a result depends on."""
    made_by = [config.method.name, config.with_effect(Changes.BYTES)]
    return hashlib.sha256(json.dumps(made_by, sort_keys=True).encode()).hexdigest()[:8]
