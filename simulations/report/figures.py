"""Which pictures a report has, each with its caption, and how they are saved."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure
from numpy.typing import NDArray

from fedcof.files import write_whole
from fedcof.run.results import RunResult, is_within
from simulations.report.class_labels import class_labels, names_behind
from simulations.report.confused_classes import confused_classes
from simulations.report.figure_style import MOST_NAMED_CLASSES, Styles, drawn_quietly, styles_of
from simulations.report.machine_paths import without_folders
from simulations.report.methods_and_keys import dealing_keys
from simulations.report.plot_accuracy import accuracy_against_bytes, accuracy_over_rounds
from simulations.report.plot_classes import class_accuracy, named_classes
from simulations.report.plot_confusion import confusion
from simulations.report.plot_data import federation, spectra
from simulations.report.plot_steps import accuracy_over_steps
from simulations.report.seed_averages import (
    SeedAverage,
    most_accurate_of_each_method,
    told_apart,
    with_known_accuracy,
)
from simulations.report.step_averages import step_averages

Captioned = tuple[Figure, str]


def figures_of(
    results: Sequence[RunResult], averages: Sequence[SeedAverage], keys: Sequence[str], folder: Path
) -> dict[str, Captioned]:
    """Draw what there is to draw.

    Parameters
    ----------
    results : sequence of RunResult
        All runs of a folder.
    averages : sequence of SeedAverage
        The same runs, averaged.
    keys : sequence of str
        Keys in which they differ.
    folder : Path
        The folder.

    Returns
    -------
    dict of str to (Figure, str)
        By the name of the file without its ending, in the page's order; each picture with its caption.
    """
    # Whoever is left out of a picture, a method looks the same in all of them.
    styles = styles_of(averages)
    averages = told_apart(averages)
    found = {
        "accuracy_vs_bytes": _accuracy_against_bytes(averages, styles),
        "rounds": _rounds(averages, styles),
        "steps": _steps(averages, styles),
        "spectra": _spectra(averages),
        "class_accuracy": _classes(results, averages, styles),
        "confusion": _confusion(averages, folder),
        "federation": _federation(results, keys, folder),
    }
    return {name: figure for name, figure in found.items() if figure}


def save_figure(figure: Figure, path: Path) -> Markup:
    """Save a picture.

    Parameters
    ----------
    figure : Figure
        The picture.
    path : Path
        Where it goes, as PNG.

    Returns
    -------
    Markup
        The same file as the address of an image on a page that stands alone.
    """
    buffer = io.BytesIO()
    with drawn_quietly():
        figure.savefig(buffer, format="png", dpi="figure")
    write_whole(path, buffer.getvalue())
    return Markup("data:image/png;base64,") + base64.b64encode(buffer.getvalue()).decode()


def _accuracy_against_bytes(averages: Sequence[SeedAverage], styles: Styles) -> Captioned | None:
    known = with_known_accuracy(averages)
    if not any(average.average_of("uplink_bytes") for average in known):
        return None
    bars = any(average.accuracy_deviation for average in known)
    caption = "Accuracy against bytes sent"
    caption += "; bars are the sample standard deviation over seeds." if bars else "."
    return accuracy_against_bytes(known, styles), caption


def _rounds(averages: Sequence[SeedAverage], styles: Styles) -> Captioned | None:
    # Steps have a picture of their own.
    averages = [average for average in averages if not step_averages(average)]
    runs = [run for average in averages for run in average.runs]
    if not any(len(run.rounds) > 1 and any(e.accuracy is not None for e in run.rounds) for run in runs):
        return None
    caption = "Accuracy after every round, over rounds and over bytes; means over seeds."
    return accuracy_over_rounds(averages, styles), caption


def _steps(averages: Sequence[SeedAverage], styles: Styles) -> Captioned | None:
    over_steps = [average for average in averages if step_averages(average)]
    if not over_steps:
        return None
    caption = "Accuracy on all classes so far, and by how much old classes are below their best, over steps; means "
    return accuracy_over_steps(over_steps, styles), caption + "over seeds."


def _spectra(averages: Sequence[SeedAverage]) -> Captioned | None:
    diagnosed = [average for average in averages if average.diagnostic]
    if not diagnosed:
        return None
    caption = "Eigenvalues of the within-class covariance, largest first: rebuilt from class means, as it is "
    caption += "(faint) and shrunk, beside the oracle's; means over seeds."
    return spectra(diagnosed), caption


def _classes(results: Sequence[RunResult], averages: Sequence[SeedAverage], styles: Styles) -> Captioned | None:
    names = next((run.class_names for run in results if run.class_accuracy), [])
    known = [
        a for a in averages if all(r.class_names == names and len(r.class_accuracy) == len(names) for r in a.runs)
    ]
    best = most_accurate_of_each_method(known)
    if not names or not best:
        return None
    caption = "Accuracy on each class, for the most accurate setting of each method; means over seeds."
    labels = class_labels(names)
    caption += names_behind(labels, names, named_classes(best, names))
    return class_accuracy(best, labels, styles), caption


def _confusion(averages: Sequence[SeedAverage], folder: Path) -> Captioned | None:
    found = confused_classes(averages, folder)
    if found is None:
        return None
    labels = class_labels(found.class_names)
    caption = f"Which classes were taken for which by the most accurate setting ({found.average.label}), "
    caption += f"in per cent of each class's test samples{found.over_seeds}"
    few = len(labels) <= MOST_NAMED_CLASSES
    caption += "." if few else f"; {len(labels)} classes, in the order of their numbers"
    return confusion(found.matrix, labels), caption + names_behind(
        labels, found.class_names, range(len(labels)) if few else ()
    )


def _federation(results: Sequence[RunResult], varying: Sequence[str], folder: Path) -> Captioned | None:
    for run in results:
        counts = _counts_of(run, folder)
        if counts is not None:
            chosen = [f"{key} {without_folders(key, run.config[key])}" for key in dealing_keys() if key in varying]
            caption = ", ".join([*chosen, f"seed {run.seed}"])
            labels = class_labels(run.class_names)
            named = range(len(labels)) if len(labels) == counts.shape[1] <= MOST_NAMED_CLASSES else ()
            told = f"Who holds what ({caption}): every column is a client, every row a class."
            told += names_behind(labels, run.class_names, named)
            return federation(counts, labels, caption), told
    return None


def _counts_of(run: RunResult, folder: Path) -> NDArray[np.int32] | None:
    """Read the samples of each class on each client, of shape (clients, C); None where the run has kept none."""
    path = folder / Path(run.head).parent / "federation.npz"
    if not (path.is_file() and is_within(folder, path)):
        return None
    try:
        with np.load(path) as arrays:
            counts: NDArray[np.int32] = arrays["counts"]
    except (OSError, KeyError, ValueError, EOFError, BadZipFile):
        return None
    return counts if counts.ndim == 2 and counts.size and counts.dtype.kind in "iu" else None
