"""Writing the report of a folder: a table as CSV, pictures, and one HTML page that needs no network."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from fedcof.errors import UserError
from fedcof.files import write_whole
from fedcof.printable import printable
from fedcof.run.failures import load_failures
from fedcof.run.results import RunResult, load_results
from simulations.report.backbone_choice import SCORES
from simulations.report.commands_of_runs import values_by_key
from simulations.report.confused_classes import confused_classes
from simulations.report.failed_runs import failed_settings
from simulations.report.figures import figures_of, save_figure
from simulations.report.fonts import fonts_for
from simulations.report.machine_paths import without_folders
from simulations.report.methods_and_keys import keys_in_order, method_place, unused_keys
from simulations.report.page import page_of
from simulations.report.seed_averages import SeedAverage, averages_over_seeds

CSV_FILE_NAME = "comparison.csv"
PAGE_FILE_NAME = "report.html"

_COUNTS = ["uplink_bytes", "expected_uplink_bytes", "downlink_bytes", "clients", "clients_rejected", "seconds"]
_QUALITIES = ["balanced_accuracy", "macro_f1", "calibration_error", *SCORES]


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
    results, failures = load_results(folder), load_failures(folder)
    if not results:
        failed = f" but {len(failures)} that failed ({failures[0].reason.rstrip('.')})" if failures else ""
        raise UserError(
            f"The folder {folder} holds no finished run{failed}: run fedcof simulate or compare into it first."
        )
    averages = settings_in(results)
    keys = keys_in(averages)
    write_whole(folder / CSV_FILE_NAME, comparison_csv(averages))
    drawn = [*(average.label for average in averages), *(name for run in results for name in run.class_names)]
    with fonts_for(set(map(printable, drawn))):
        pictures = {
            name: (save_figure(figure, folder / f"{name}.png"), caption)
            for name, (figure, caption) in figures_of(results, averages, keys, folder).items()
        }
    failed_here = failed_settings(failures, results)
    confused = confused_classes(averages, folder)
    write_whole(folder / PAGE_FILE_NAME, page_of(results, averages, keys, pictures, failed_here, confused))
    return folder / PAGE_FILE_NAME


def comparison_csv(averages: Sequence[SeedAverage]) -> str:
    """Write settings as a table.

    Parameters
    ----------
    averages : sequence of SeedAverage
        One line each.

    Returns
    -------
    str
        Accuracy from 0 to 1 (empty where nobody knows it) with its sample standard deviation over seeds (empty for
        one seed), bytes, seconds, the clients whose kept uploads were left out (divided by semicolons), the amount
        of shrinkage that was used (empty where it was not kept), balanced accuracy, macro-F1, expected calibration
        error, label correlation, leave-one-out likelihood and class information, and joules with the clients' part
        (empty where they are unknown).
    """
    keys = keys_in(averages)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    headings = ["method", *keys, "seeds", "accuracy", "accuracy_deviation", *_COUNTS, "without", "shrinkage_used"]
    writer.writerow(map(_cell, [*headings, *_QUALITIES, "joules", "client_joules"]))
    for average in averages:
        values = [average.values.get(key) for key in keys]
        accuracies = [average.accuracy, average.accuracy_deviation]
        counts = [_whole(average.average_of(name)) for name in _COUNTS]
        qualities = [average.average_if_known(name) for name in _QUALITIES]
        known = average.energy
        energy = [known.joules, known.client_joules] if known else [None, None]
        without = ";".join(average.runs[0].without)
        row = [average.method, *values, len(average.runs), *accuracies, *counts, without, average.shrinkage]
        row += [*qualities, *energy]
        writer.writerow(map(_cell, row))
    return text.getvalue()


def settings_in(results: Sequence[RunResult]) -> list[SeedAverage]:
    """Average runs over seeds, in the order of methods, with the values in which any two runs differ.

    Parameters
    ----------
    results : sequence of RunResult
        All runs of a folder.

    Returns
    -------
    list of SeedAverage
        One a setting.
    """
    varying = [key for key, values in values_by_key(results).items() if len(values) > 1]
    settings = []
    for average in averages_over_seeds(list(results)):
        config = average.runs[0].config
        unused = unused_keys(config)
        meant = [key for key in varying if key in config and key not in unused]
        settings.append(replace(average, values={key: without_folders(key, config[key]) for key in meant}))
    return sorted(settings, key=lambda average: method_place(average.method))


def keys_in(averages: Sequence[SeedAverage]) -> list[str]:
    """List the keys that mean something to at least one of the settings, in the run-config's order."""
    return keys_in_order({key for average in averages for key in average.values})


def _cell(value: object) -> object:
    return printable(value) if isinstance(value, str) else value


def _whole(value: float) -> float | int:
    return int(value) if value.is_integer() else value
