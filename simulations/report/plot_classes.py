"""Pictures of the accuracy on each class."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from simulations.report.figure_style import (
    LINES,
    MOST_NAMED_CLASSES,
    SMALL,
    FloatArray,
    Styles,
    new_figure,
    plain_label,
    styles_of,
)
from simulations.report.seed_averages import SeedAverage


def class_accuracy(
    averages: Sequence[SeedAverage], class_names: Sequence[str], styles: Styles | None = None
) -> Figure:
    """Draw the accuracy on each class: a row of dots a class for few, a sorted curve a setting for many.

    Parameters
    ----------
    averages : sequence of SeedAverage
        One colour or curve each.
    class_names : sequence of str
        Names of the classes; up to 20 are written out, of more each setting's best and worst.
    styles : mapping of str to MethodStyle, optional
        Looks of the methods.

    Returns
    -------
    Figure
        Accuracy in per cent, the best classes first.
    """
    styles = styles or styles_of(averages)
    accuracies = [mean_class_accuracy(average) * 100 for average in averages]
    if len(class_names) <= MOST_NAMED_CLASSES:
        return _class_rows(averages, accuracies, class_names, styles)
    return _class_curves(averages, accuracies, class_names, styles)


def named_classes(averages: Sequence[SeedAverage], class_names: Sequence[str]) -> set[int]:
    """List the classes that :func:`class_accuracy` names.

    Parameters
    ----------
    averages, class_names
        See :func:`class_accuracy`.

    Returns
    -------
    set of int
        All of few; of many each setting's best and worst.
    """
    if len(class_names) <= MOST_NAMED_CLASSES:
        return set(range(len(class_names)))
    accuracies = map(mean_class_accuracy, averages)
    return {number for accuracy in accuracies if not np.isnan(accuracy).all() for number in _ends_of(accuracy)}


def _ends_of(accuracy: FloatArray) -> tuple[int, int]:
    """Give the best and the worst class of those whose accuracy is known."""
    return int(np.nanargmax(accuracy)), int(np.nanargmin(accuracy))


def mean_class_accuracy(average: SeedAverage) -> FloatArray:
    """Average the accuracy on each class over seeds.

    Parameters
    ----------
    average : SeedAverage
        Its runs have the same classes.

    Returns
    -------
    ndarray of shape (C,), float64
        From 0 to 1; NaN for a class without a test sample.
    """
    return _mean_of_known([np.array(run.class_accuracy, dtype=np.float64) for run in average.runs])


def _mean_of_known(rows: Sequence[FloatArray]) -> FloatArray:
    """Average rows without their NaN; NaN where all have one."""
    stacked = np.stack(rows)
    known = ~np.isnan(stacked)
    total = np.where(known, stacked, 0).sum(axis=0)
    return np.where(known.any(axis=0), total / np.maximum(known.sum(axis=0), 1), np.nan)


def _class_rows(
    averages: Sequence[SeedAverage], accuracies: list[FloatArray], class_names: Sequence[str], styles: Styles
) -> Figure:
    order = np.argsort(-_mean_of_known(accuracies), kind="stable")
    figure, axes = new_figure(7, 0.36 * len(class_names) + 1.6)
    rows = np.arange(len(class_names))
    for row in rows[::2]:
        axes.axhspan(row - 0.5, row + 0.5, color="#0000000d", lw=0)
    for number, (average, accuracy) in enumerate(zip(averages, accuracies, strict=True)):
        style = styles[average.method]
        places = rows + (number - (len(averages) - 1) / 2) * 0.7 / len(averages)
        name = plain_label(average.label, 60)
        axes.plot(accuracy[order], places, style.marker, color=style.colour, ms=6, label=name)
    axes.set_yticks(rows, [plain_label(class_names[i], 30) for i in order])
    axes.set_ylim(len(class_names) - 0.5, -0.5)
    axes.set_xlabel("accuracy on the class, %")
    axes.grid(alpha=0.25, axis="x")
    figure.legend(loc="outside lower center", ncols=1, fontsize=SMALL, frameon=False)
    return figure


def _class_curves(
    averages: Sequence[SeedAverage], accuracies: list[FloatArray], class_names: Sequence[str], styles: Styles
) -> Figure:
    figure, axes = new_figure(7, 3.9 + 0.2 * len(averages))
    for number, (average, accuracy) in enumerate(zip(averages, accuracies, strict=True)):
        known = accuracy[~np.isnan(accuracy)]
        if not len(known):
            continue
        ends = [(plain_label(class_names[i], 20), accuracy[i]) for i in _ends_of(accuracy)]
        best, worst = (f"{name} {value:.0f} %" for name, value in ends)
        name = f"{plain_label(average.label, 48)}: best {best}, worst {worst}"
        line = LINES[number % len(LINES)]
        places = np.arange(1, len(known) + 1)
        axes.plot(places, np.sort(known)[::-1], color=styles[average.method].colour, ls=line, label=name)
    axes.set_xlabel("rank of the class, each line's best first")
    axes.set_ylabel("accuracy on the class, %")
    axes.grid(alpha=0.25)
    figure.legend(loc="outside lower center", ncols=1, fontsize=SMALL, frameon=False)
    return figure
