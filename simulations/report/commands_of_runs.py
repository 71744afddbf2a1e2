"""The commands that make runs again, read off their configurations."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence, Set

from fedcof.errors import UserError
from fedcof.run.results import RunResult
from simulations.comparison import AS_PUBLISHED, comparison_runs, published_values
from simulations.report.methods_and_keys import default_config, path_of_a_moment, said_by_itself, unused_keys
from simulations.scenario import DEFAULT_SCENARIO, scenario_values

# Twenty keys of two values have a million combinations: no folder has them all, and laying them out takes hours.
MOST_COMBINATIONS = 5_000


def compare_command(results: Sequence[RunResult]) -> str | None:
    """Write the one command that makes all runs, where there is one.

    Parameters
    ----------
    results : sequence of RunResult
        All runs of a folder.

    Returns
    -------
    str or None
        A ``fedcof compare`` for a POSIX shell; None where it would make other runs, or not all of them.
    """
    forms = published_values().keys()
    varying = {key for key, values in values_by_key(results).items() if len(values) > 1}
    # By lists of values, or by the forms of methods where these say it.
    return _compare_command(results, set()) or (_compare_command(results, forms) if forms & varying else None)


def _compare_command(results: Sequence[RunResult], by_form: Set[str]) -> str | None:
    methods = list(dict.fromkeys(f"{run.method}{_form_of(run) if by_form else ''}" for run in results))
    seeds = list(dict.fromkeys(str(run.seed) for run in results))
    found = {key: values for key, values in values_by_key(results).items() if key not in by_form}
    if math.prod([len(methods), len(seeds), *map(len, found.values())]) > MOST_COMBINATIONS:
        return None
    base = _base()
    overrides = []
    for key, values in found.items():
        if len(values) > 1:
            overrides.append(f"{key}=[{','.join(map(_as_typed, values))}]")
        elif values != [base.get(key)]:
            overrides.append(f"{key}={_as_typed(values[0])}")
    try:
        made = comparison_runs(scenario_values(DEFAULT_SCENARIO, overrides), methods, seeds).values()
    except UserError:
        return None
    if {_identity(config.to_mapping()) for config in made} != {_identity(run.config) for run in results}:
        return None
    words = [word for override in overrides for word in ("-c", override)]
    lists = ["--methods", ",".join(methods), "--seeds", ",".join(seeds)]
    return shlex.join(["fedcof", "compare", DEFAULT_SCENARIO, *lists, *words])


def _form_of(run: RunResult) -> str:
    """Give what stands behind a method's name where all that its paper has otherwise is as there."""
    unused = unused_keys(run.config)
    meant = {key: value for key, value in published_values().items() if key in run.config and key not in unused}
    as_published = meant and all(run.config[key] == value for key, value in meant.items())
    return f":{AS_PUBLISHED}" if as_published else ""


def command_of(result: RunResult) -> str:
    """Write the command that makes a run.

    Parameters
    ----------
    result : RunResult
        Any run.

    Returns
    -------
    str
        A ``fedcof simulate`` for a POSIX shell.
    """
    base = _base()
    config = {**base, **result.config}
    changed = [key for key, value in config.items() if not path_of_a_moment(key) and value != base.get(key)]
    words = [word for key in changed for word in ("-c", f"{key}={_as_typed(config[key])}")]
    return shlex.join(["fedcof", "simulate", DEFAULT_SCENARIO, *words])


def values_by_key(results: Sequence[RunResult]) -> dict[str, list[object]]:
    """Collect the values of each key in the runs to which it means something.

    Parameters
    ----------
    results : sequence of RunResult
        Runs of a folder.

    Returns
    -------
    dict of str to list of object
        The different values, in the run-config's order of keys, without what has a place of its own.
    """
    found = {}
    known = [(run, unused_keys(run.config)) for run in results]
    for key in default_config():
        meant = [run.config[key] for run, unused in known if key in run.config and key not in unused]
        if meant and not said_by_itself(key):
            found[key] = list(dict.fromkeys(meant))
    return found


def _base() -> dict[str, object]:
    return default_config() | scenario_values(DEFAULT_SCENARIO, [])


def _identity(config: Mapping[str, object]) -> frozenset[tuple[str, object]]:
    return frozenset((key, value) for key, value in config.items() if not path_of_a_moment(key))


def _as_typed(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
