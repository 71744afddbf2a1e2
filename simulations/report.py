"""The report of a folder of runs: a table as CSV, plots, and one HTML page that needs no network."""

from __future__ import annotations

import base64
import csv
import io
import shlex
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jinja2 import Environment, PackageLoader
from markupsafe import Markup
from matplotlib.figure import Figure

from fedcof.configuration import RunConfig
from fedcof.errors import UserError
from fedcof.results import RunResult, load_results, write_whole
from simulations import plots
from simulations.settings import Setting, settings_of

CSV_FILE_NAME = "comparison.csv"
PAGE_FILE_NAME = "report.html"
NAMED_IN_THE_HEAD = ["dataset", "partition", "alpha", "num-clients", "backbone", "image-size"]


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
    settings = settings_of(results)
    write_whole(folder / CSV_FILE_NAME, comparison_csv(settings))
    pictures = {name: _save(figure, folder / f"{name}.png") for name, figure in _figures(settings, folder).items()}
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
        averages = [setting.average_of(name) for name in numbers]
        spread = "" if deviation is None else deviation
        writer.writerow(
            [
                setting.method,
                *(setting.values.get(key, "") for key in keys),
                len(setting.runs),
                setting.accuracy,
                spread,
                *averages,
            ]
        )
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
    covariances = [setting for setting in settings if setting.method == "fedcof"]
    for covariance in covariances:
        same = [s for s in settings if s.method == "fedncm" and _same_upload(s, covariance)]
        for means in same:
            points = (covariance.accuracy - means.accuracy) * 100
            word = "more" if points >= 0 else "less"
            upload = f" ({covariance.label})" if len(covariances) > 1 else ""
            sentences.append(
                f"FedCOF is {abs(points):.1f} points {word} accurate than FedNCM on the same upload{upload}."
            )
    moments = [setting for setting in settings if setting.method == "fed3r"]
    if moments and covariances:
        best = max(covariances, key=lambda s: (round(s.accuracy, 4), -s.average_of("uplink_bytes")))
        rival = max(moments, key=lambda setting: setting.accuracy)
        ratio = rival.average_of("uplink_bytes") / best.average_of("uplink_bytes")
        points = (best.accuracy - rival.accuracy) * 100
        sentences.append(
            f"The best FedCOF ({best.label}) is {points:+.1f} points from Fed3R, "
            f"which sends {ratio:.0f} times as much."
        )
    return sentences


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
    defaults = RunConfig.defaults()
    left_out = ("output", "plan")
    changed = {key: value for key, value in result.config.items() if value != defaults[key] and key not in left_out}
    words = [word for key, value in changed.items() for word in ("-c", f"{key}={_as_typed(value)}")]
    return shlex.join(["fedcof", "simulate", "digits", *words])


def _as_typed(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _same_upload(one: Setting, other: Setting) -> bool:
    """Whether two settings differ in nothing that a client sends."""
    unsent = ("shrinkage", "estimator", "head")
    sent = [key for key in one.runs[0].config if key not in (*unsent, "method", "seed")]
    return all(one.runs[0].config[key] == other.runs[0].config[key] for key in sent)


def _keys(settings: Sequence[Setting]) -> list[str]:
    """Keys that mean something to at least one of the settings, in the run-config's order."""
    return [key for key in RunConfig.defaults() if any(key in setting.values for setting in settings)]


def _figures(settings: list[Setting], folder: Path) -> dict[str, Figure]:
    figures = {}
    if any(setting.method != "oracle" for setting in settings):
        figures["accuracy_vs_bytes"] = plots.accuracy_against_bytes(settings)
    if any(len(run.rounds) > 1 for setting in settings for run in setting.runs):
        figures["rounds"] = plots.accuracy_over_rounds(settings)
    names = settings[0].runs[0].class_names
    if names and all(setting.runs[0].class_accuracy for setting in settings):
        figures["class_accuracy"] = plots.class_accuracy(_best_of_each_method(settings), names)
    held = (folder / Path(setting.runs[0].head).parent / "federation.npz" for setting in settings)
    drawn = next((path for path in held if path.exists()), None)
    if drawn is not None:
        with np.load(drawn) as arrays:
            figures["federation"] = plots.federation(arrays["counts"])
    return figures


def _best_of_each_method(settings: list[Setting]) -> list[Setting]:
    methods = dict.fromkeys(setting.method for setting in settings)
    return [max((s for s in settings if s.method == method), key=lambda s: s.accuracy) for method in methods]


def _save(figure: Figure, path: Path) -> Markup:
    """Save a picture, and give it as text that a page can hold."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150)
    path.write_bytes(buffer.getvalue())
    return Markup("data:image/png;base64,") + base64.b64encode(buffer.getvalue()).decode()


def _page(results: list[RunResult], settings: list[Setting], pictures: dict[str, Markup]) -> str:
    environment = Environment(
        loader=PackageLoader("simulations"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    config = results[0].config
    head = {key: config[key] for key in NAMED_IN_THE_HEAD if key not in _keys(settings)}
    if "dataset" in head:
        head["dataset"] = _without_folders(str(head["dataset"]))
    return environment.get_template("report.html.jinja").render(
        head=head,
        keys=_keys(settings),
        settings=settings,
        pictures=pictures,
        reading=reading(settings),
        rejected=[(run, client, reason) for run in results for client, reason in run.rejected.items()],
        num_runs=len(results),
        commands=[(setting.label, command_of(setting.runs[0])) for setting in settings],
    )


def _without_folders(dataset: str) -> str:
    """Name a dataset without the folders that only this machine has."""
    kind, _, place = dataset.partition(":")
    return f"{kind}:{Path(place).name}" if kind in ("parquet", "folder", "features") else dataset
