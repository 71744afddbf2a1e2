"""The report of a folder of runs: a table as CSV, plots, and one HTML page that needs no network."""

from __future__ import annotations

import base64
import csv
import io
import re
import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from jinja2 import Environment, PackageLoader
from markupsafe import Markup
from matplotlib.figure import Figure
from numpy.typing import NDArray

from fedcof.errors import UserError
from fedcof.files import write_whole
from fedcof.run.config import BUDGETS, IGNORED_KEYS, METHODS, RunConfig, keys_without_effect
from fedcof.run.results import RunResult, load_results
from simulations import plots
from simulations.comparison import comparison_runs
from simulations.runs_over_seeds import Setting, settings_of
from simulations.scenario import DEFAULT_SCENARIO, scenario_values
from simulations.training_courses import Reached, how_soon

CSV_FILE_NAME = "comparison.csv"
PAGE_FILE_NAME = "report.html"
ALWAYS_SAID = ["dataset", "partition", "num-clients", "backbone", "image-size"]
NAMES = {
    "fedncm": "FedNCM",
    "fedcof": "FedCOF",
    "fed3r": "Fed3R",
    "random": "a random head",
    "oracle": "the oracle",
}

# Neither says what was run: the first two have a place of their own, the others are paths of one moment.
UNSAID = ["method", "seed", "output", "plan"]
ONLY_ON_THE_SERVER = ["shrinkage", "estimator", "head", "ridge-penalty", "subtract-noise"]
ON_THE_WIRE = ["encoding", "groups", "rounding-noise", *BUDGETS]
WITHOUT_EFFECT = ["batch-size", "feature-cache", "broadcast", "clients-per-node", "quorum"]
TIMEOUTS = ["node-timeout", "reply-timeout"]

_FOLDERS = re.compile(r"(?:^|(?<=[\s'\"(=:,]))/(?:[^\s/'\"():,]+/)+")


def write_report(folder: Path) -> Path:
    """Write the report of all runs in a folder.

    Parameters
    ----------
    folder : Path
        Output folder of ``fedcof simulate`` or ``fedcof compare``.

    Returns
    -------
    Path
        The page; beside it ``comparison.csv`` and the plots as PNG.

    Raises
    ------
    UserError
        If the folder holds no finished run.
    """
    results = load_results(folder)
    if not results:
        raise UserError(f"The folder {folder} holds no finished run: run fedcof simulate or compare into it first.")
    settings = _settings(results)
    write_whole(folder / CSV_FILE_NAME, comparison_csv(settings))
    pictures = {
        name: (_save(figure, folder / f"{name}.png"), caption)
        for name, (figure, caption) in _figures(results, settings, folder).items()
    }
    write_whole(folder / PAGE_FILE_NAME, _page(results, settings, pictures))
    return folder / PAGE_FILE_NAME


def comparison_csv(settings: Sequence[Setting]) -> str:
    """Write settings as a table.

    Parameters
    ----------
    settings : sequence of Setting
        One line each.

    Returns
    -------
    str
        Accuracy from 0 to 1 with its sample standard deviation over seeds (empty for one seed), bytes, seconds.
    """
    keys = _keys(settings)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    numbers = ["uplink_bytes", "expected_uplink_bytes", "downlink_bytes", "clients", "clients_rejected", "seconds"]
    writer.writerow(["method", *keys, "seeds", "accuracy", "accuracy_deviation", *numbers])
    for setting in settings:
        deviation = setting.accuracy_deviation
        averages = [_whole(setting.average_of(name)) for name in numbers]
        spread = "" if deviation is None else deviation
        values = [setting.values.get(key, "") for key in keys]
        writer.writerow([setting.method, *values, len(setting.runs), setting.accuracy, spread, *averages])
    return text.getvalue()


def reading(settings: Sequence[Setting]) -> list[str]:
    """Say in sentences what the numbers say.

    Parameters
    ----------
    settings : sequence of Setting
        All settings of a comparison.

    Returns
    -------
    list of str
        One sentence a comparison that the runs allow.
    """
    sentences = []
    for means in (setting for setting in settings if setting.method == "fedncm"):
        rivals = [s for s in settings if s.method == "fedcof" and _same(s, means, ONLY_ON_THE_SERVER)]
        # Where clients failed in one of them, what reached the server was not the same.
        rivals = [s for s in rivals if s.average_of("clients") == means.average_of("clients")]
        if rivals:
            sentences.append(_beside_class_means(means, rivals))
    free = [*ONLY_ON_THE_SERVER, *ON_THE_WIRE]
    for ceiling in (setting for setting in settings if setting.method in ("fed3r", "oracle")):
        peers = [s for s in settings if s.method == ceiling.method and _same(s, ceiling, free)]
        if ceiling is not max(peers, key=lambda setting: setting.accuracy):
            continue
        rivals = [s for s in settings if s.method == "fedcof" and _same(s, ceiling, free)]
        if rivals:
            sentences.append(_beside_ceiling(ceiling, rivals))
    return list(dict.fromkeys(sentences))


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
    methods = list(dict.fromkeys(run.method for run in results))
    seeds = list(dict.fromkeys(str(run.seed) for run in results))
    base = RunConfig.defaults() | scenario_values(DEFAULT_SCENARIO, [])
    overrides = []
    for key, values in _values_by_key(results).items():
        if len(values) > 1:
            overrides.append(f"{key}=[{','.join(map(_as_typed, values))}]")
        elif values != [base[key]]:
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
    base = RunConfig.defaults() | scenario_values(DEFAULT_SCENARIO, [])
    changed = [
        key for key in base if key not in ("output", "plan") and result.config.get(key, base[key]) != base[key]
    ]
    words = [word for key in changed for word in ("-c", f"{key}={_as_typed(result.config[key])}")]
    return shlex.join(["fedcof", "simulate", DEFAULT_SCENARIO, *words])


def _beside_class_means(means: Setting, rivals: Sequence[Setting]) -> str:
    points = sorted(_points(rival, means) for rival in rivals)
    upload = f" ({means.label})" if means.values else ""
    if len(rivals) > 1 and points[0] != points[-1]:
        return (
            f"{len(rivals)} settings of FedCOF are {points[0]:+.1f} to {points[-1]:+.1f} points from FedNCM "
            f"on the same upload{upload}."
        )
    return f"FedCOF is {_more_or_less(points[0])} FedNCM on the same upload{upload}."


def _beside_ceiling(ceiling: Setting, rivals: Sequence[Setting]) -> str:
    """Compare with the best FedCOF on the same federation; of equally good ones, the one that sends least."""
    best = max(rivals, key=lambda s: (round(s.accuracy, 4), -s.average_of("uplink_bytes")))
    choice = f"the best of {len(rivals)} settings of FedCOF here" if len(rivals) > 1 else "FedCOF"
    named = f" ({', '.join(best.label.split(', ')[1:])})" if best.values else ""
    name = NAMES[ceiling.method] + (f" ({', '.join(ceiling.label.split(', ')[1:])})" if ceiling.values else "")
    sentence = f"{name[0].upper()}{name[1:]} is {_more_or_less(_points(ceiling, best))} {choice}{named}"
    sent = [setting.average_of("uplink_bytes") for setting in (ceiling, best)]
    if not all(sent):
        return f"{sentence}."
    ratio = sent[0] / sent[1]
    return f"{sentence}, and sends {ratio:.0f} times as much." if ratio >= 2 else f"{sentence}."


def _points(one: Setting, other: Setting) -> float:
    """Percentage points between two accuracies, as far as they are said."""
    return round((one.accuracy - other.accuracy) * 100, 1)


def _more_or_less(points: float) -> str:
    if points == 0:
        return "as accurate (to 0.1 points) as"
    return f"{abs(points):.1f} points {'more' if points > 0 else 'less'} accurate than"


def _same(one: Setting, other: Setting, free: Sequence[str]) -> bool:
    """Whether two settings differ at most in some keys, and have the same seeds."""
    ignored = {*free, *UNSAID, *WITHOUT_EFFECT, *TIMEOUTS}
    configs = [{k: v for k, v in setting.runs[0].config.items() if k not in ignored} for setting in (one, other)]
    # The oracle asks nobody, so how clients are asked is nothing that it could share.
    asked = IGNORED_KEYS["oracle"] if "oracle" in (one.method, other.method) else []
    same = all(value == configs[1].get(key) for key, value in configs[0].items() if key not in asked)
    return same and {run.seed for run in one.runs} == {run.seed for run in other.runs}


def _identity(config: dict[str, object] | dict[str, bool | int | float | str]) -> frozenset[tuple[str, object]]:
    return frozenset((key, value) for key, value in config.items() if key not in ("output", "plan"))


def _as_typed(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _whole(value: float) -> float | int:
    return int(value) if value.is_integer() else value


def _values_by_key(results: Sequence[RunResult]) -> dict[str, list[object]]:
    """Collect the values of each key in the runs to which it means something, in the run-config's order."""
    found = {}
    known = [(run, keys_without_effect(run.config)) for run in results]
    for key in RunConfig.defaults():
        meant = [run.config[key] for run, unused in known if key in run.config and key not in unused]
        if meant and key not in UNSAID:
            found[key] = list(dict.fromkeys(meant))
    return found


def _settings(results: Sequence[RunResult]) -> list[Setting]:
    """Group runs by everything but their seed, by method, with the values in which any two runs differ."""
    varying = [key for key, values in _values_by_key(results).items() if len(values) > 1]
    settings = []
    for setting in settings_of(list(results)):
        config = setting.runs[0].config
        unused = keys_without_effect(config)
        meant = [key for key in varying if key in config and key not in unused]
        settings.append(replace(setting, values={key: _without_folders(key, config[key]) for key in meant}))
    return sorted(settings, key=lambda setting: METHODS.index(setting.method))


def _keys(settings: Sequence[Setting]) -> list[str]:
    """Keys that mean something to at least one of the settings, in the run-config's order."""
    return [key for key in RunConfig.defaults() if any(key in setting.values for setting in settings)]


def _figures(results: Sequence[RunResult], settings: list[Setting], folder: Path) -> dict[str, tuple[Figure, str]]:
    """Draw what there is to draw; each picture with its caption."""
    figures = {}
    if any(setting.average_of("uplink_bytes") for setting in settings):
        bars = any(setting.accuracy_deviation for setting in settings)
        caption = "Accuracy against bytes sent"
        caption += "; bars are the sample standard deviation over seeds." if bars else "."
        figures["accuracy_vs_bytes"] = (plots.accuracy_against_bytes(settings), caption)
    if any(len(run.rounds) > 1 for run in results):
        caption = "Accuracy after every round, over rounds and over bytes; means over seeds."
        figures["rounds"] = (plots.accuracy_over_rounds(settings), caption)
    if any(setting.diagnostic for setting in settings):
        caption = "Eigenvalues of the within-class covariance, largest first: rebuilt from class means, as it is "
        caption += "(faint) and shrunk, beside the oracle's; means over seeds."
        figures["spectra"] = (plots.spectra([s for s in settings if s.diagnostic]), caption)
    names = next((run.class_names for run in results if run.class_accuracy), [])
    known = [
        s for s in settings if all(r.class_names == names and len(r.class_accuracy) == len(names) for r in s.runs)
    ]
    if names and known:
        caption = "Accuracy on each class, for the most accurate setting of each method; means over seeds."
        figures["class_accuracy"] = (plots.class_accuracy(_best_of_each_method(known), names), caption)
    for run in results:
        counts = _federation_of(run, folder)
        if counts is not None:
            figures["federation"] = _federation_figure(run, counts, _keys(settings))
            break
    return figures


def _federation_figure(run: RunResult, counts: NDArray[np.int32], varying: Sequence[str]) -> tuple[Figure, str]:
    dealt = ["dataset", "partition", "alpha", "classes-per-client", "partition-column"]
    chosen = [f"{key} {_without_folders(key, run.config[key])}" for key in dealt if key in varying]
    caption = ", ".join([*chosen, f"seed {run.seed}"])
    figure = plots.federation(counts, run.class_names, caption)
    return figure, f"Who holds what ({caption}): every column is a client, every row a class."


def _federation_of(run: RunResult, folder: Path) -> NDArray[np.int32] | None:
    """Read the samples of each class on each client, of shape (clients, C); None where the run has kept none."""
    try:
        with np.load(folder / Path(run.head).parent / "federation.npz") as arrays:
            counts: NDArray[np.int32] = arrays["counts"]
    except (OSError, KeyError, ValueError, EOFError, BadZipFile):
        return None
    return counts if counts.ndim == 2 and counts.size else None


def _best_of_each_method(settings: list[Setting]) -> list[Setting]:
    methods = dict.fromkeys(setting.method for setting in settings)
    return [max((s for s in settings if s.method == method), key=lambda s: s.accuracy) for method in methods]


def _save(figure: Figure, path: Path) -> Markup:
    """Save a picture, and give it as text that a page can hold."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi="figure")
    write_whole(path, buffer.getvalue())
    return Markup("data:image/png;base64,") + base64.b64encode(buffer.getvalue()).decode()


def _page(results: list[RunResult], settings: list[Setting], pictures: dict[str, tuple[Markup, str]]) -> str:
    environment = Environment(
        loader=PackageLoader("simulations"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    together = compare_command(results) if len(results) > 1 else None
    return environment.get_template("report.html.jinja").render(
        head=_common(results),
        keys=_keys(settings),
        settings=settings,
        pictures=pictures,
        reading=reading(settings),
        starts=_starts(settings),
        diagnosed=[
            (", ".join(s.label.split(", ")[1:]) or s.method, s.diagnostic, s.accuracy)
            for s in settings
            if s.diagnostic
        ],
        rejected=_rejections(settings),
        nodes=[(s.label, run.seed, node) for s in settings for run in s.runs for node in run.nodes],
        num_runs=len(results),
        together=together and _relative(together, results),
        commands=[(s.label, _relative(command_of(s.runs[0]), results), _other_seeds(s)) for s in settings],
        folders=sorted({name for run in results for name in _machine_paths(run).values()}),
    )


def _starts(settings: Sequence[Setting]) -> list[list[str]]:
    """Lay out when each start is as accurate as each ends, with a row of headings; nothing for fewer than two."""
    starts, reached = how_soon(settings)
    if len(starts) < 2:
        return []
    ends = [f"{start.accuracy * 100:.2f} % ({start.method})" for start in starts]
    rows = [[start.method, *map(_when, row)] for start, row in zip(starts, reached, strict=True)]
    return [["start", *ends], *rows]


def _when(reached: Reached | None) -> str:
    return "\N{EN DASH}" if reached is None else f"{reached.rounds} ({reached.megabytes:.1f} MB)"


def _common(results: Sequence[RunResult]) -> dict[str, object]:
    """Collect what all runs share: what is always worth saying, and every other key that is not at its default."""
    values = {key: found[0] for key, found in _values_by_key(results).items() if len(found) == 1}
    defaults = RunConfig.defaults()
    said = [key for key in ALWAYS_SAID if key in values]
    if "dirichlet" in str(values.get("partition", "")):
        said.append("alpha")
    if values.get("partition") == "pathological":
        said.append("classes-per-client")
    said += [key for key, value in values.items() if key not in said and value != defaults[key]]
    return {key: _without_folders(key, values[key]) for key in said if key in values}


def _other_seeds(setting: Setting) -> str:
    return ", ".join(str(run.seed) for run in setting.runs[1:])


def _rejections(settings: Sequence[Setting]) -> list[tuple[str, int, str, str]]:
    """List setting, seed, clients and the reason they share."""
    rows = []
    for setting in settings:
        for run in setting.runs:
            clients: dict[str, list[str]] = {}
            for client, reason in run.rejected.items():
                clients.setdefault(_FOLDERS.sub("…/", reason), []).append(client)
            rows += [(setting.label, run.seed, _listed(ids), reason) for reason, ids in clients.items()]
    return rows


def _listed(clients: list[str]) -> str:
    ordered = sorted(clients, key=lambda client: (len(client), client))
    return ", ".join(ordered[:10]) + (f" and {len(ordered) - 10} others" if len(ordered) > 10 else "")


def _machine_paths(run: RunResult) -> dict[str, str]:
    """Find the paths in a configuration, as given and without the folders that only one machine has."""
    given = [str(run.config.get(key, "")).rpartition(":")[2] for key in ("dataset", "weights")]
    return {path: Path(path).name for path in given if path.startswith("/")}


def _relative(command: str, results: Sequence[RunResult]) -> str:
    """Make a command's paths relative to the folder that holds what they name."""
    words = shlex.split(command)
    for path, name in sorted({pair for run in results for pair in _machine_paths(run).items()}, reverse=True):
        words = [word.replace(path, name) for word in words]
    return shlex.join(words)


def _without_folders(key: str, value: object) -> object:
    """Name a dataset or a file of weights without the folders that only one machine has."""
    if key not in ("dataset", "weights"):
        return value
    kind, colon, place = str(value).rpartition(":")
    return f"{kind}{colon}{Path(place).name}" if place.startswith("/") else value
