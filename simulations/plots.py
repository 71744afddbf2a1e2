"""The pictures of a report; each takes data and gives a matplotlib figure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from numpy.typing import NDArray

from simulations.settings import Setting

# Okabe and Ito's colours, which people who cannot tell red from green tell apart.
STYLES = {
    "fedncm": ("#E69F00", "s"),
    "fedcof": ("#0072B2", "o"),
    "fed3r": ("#D55E00", "D"),
    "oracle": ("#555555", "*"),
}
LINES = ["-", "--", ":", "-."]
MOST_BARS = 20


def accuracy_against_bytes(settings: Sequence[Setting]) -> Figure:
    """Draw accuracy against what the clients sent.

    Parameters
    ----------
    settings : sequence of Setting
        Points; those of the oracle are drawn as lines, because it sends nothing.

    Returns
    -------
    Figure
        Uplink in MB (10^6 bytes, logarithmic) and accuracy in per cent, with the deviation over seeds.
    """
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    labelled: set[str] = set()
    for setting in settings:
        colour, marker = STYLES[setting.method]
        label = None if setting.method in labelled else setting.method
        labelled.add(setting.method)
        if setting.method == "oracle":
            axes.axhline(setting.accuracy * 100, color=colour, linestyle="--", label=label)
            continue
        megabytes = setting.average_of("uplink_bytes") / 1e6
        deviation = (setting.accuracy_deviation or 0) * 100
        axes.errorbar(
            megabytes, setting.accuracy * 100, deviation, color=colour, marker=marker, label=label, capsize=3, ls=""
        )
    _scale_bytes(axes)
    _annotate(axes, [setting for setting in settings if setting.method != "oracle" and setting.values])
    axes.set_xlabel("uplink of all clients, MB")
    axes.set_ylabel("accuracy, %")
    axes.margins(0.12)
    axes.grid(alpha=0.3, which="both")
    axes.legend()
    return figure


def accuracy_over_rounds(settings: Sequence[Setting]) -> Figure:
    """Draw accuracy over rounds and over the bytes sent until then.

    Parameters
    ----------
    settings : sequence of Setting
        One line each, the mean over seeds.

    Returns
    -------
    Figure
        Two panels with a common axis of accuracy in per cent.
    """
    figure = Figure(figsize=(10, 4.5), layout="constrained")
    by_round, by_bytes = figure.subplots(1, 2, sharey=True)
    for number, setting in enumerate(settings):
        if setting.method == "oracle":
            continue
        length = min(len(run.rounds) for run in setting.runs)
        rounds = [[run.rounds[i] for run in setting.runs] for i in range(length)]
        accuracy = [float(np.mean([entry.accuracy for entry in entries])) * 100 for entries in rounds]
        megabytes = [float(np.mean([entry.uplink_bytes for entry in entries])) / 1e6 for entries in rounds]
        numbers = [entries[0].round for entries in rounds]
        colour, marker = STYLES[setting.method]
        style = {"color": colour, "marker": marker, "markersize": 4, "linestyle": LINES[number % len(LINES)]}
        by_round.plot(numbers, accuracy, label=setting.label, **style)
        by_bytes.plot(megabytes, accuracy, **style)
    by_round.set_xlabel("round")
    by_round.set_ylabel("accuracy, %")
    by_bytes.set_xlabel("uplink so far, MB")
    _scale_bytes(by_bytes)
    for axes in (by_round, by_bytes):
        axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=2, fontsize="small")
    return figure


def class_accuracy(settings: Sequence[Setting], class_names: Sequence[str]) -> Figure:
    """Draw the accuracy on each class: dots for few classes, sorted curves for many.

    Parameters
    ----------
    settings : sequence of Setting
        One dot or curve each; the first run's.
    class_names : sequence of str
        Names of the classes.

    Returns
    -------
    Figure
        Accuracy in per cent.
    """
    few = len(class_names) <= MOST_BARS
    figure = Figure(figsize=(8, 0.32 * len(class_names) + 1.5 if few else 4.5), layout="constrained")
    axes = figure.subplots()
    for number, setting in enumerate(settings):
        accuracy = np.array([np.nan if a is None else a * 100 for a in setting.runs[0].class_accuracy])
        colour, marker = STYLES[setting.method]
        if few:
            offset = (number - (len(settings) - 1) / 2) * 0.6 / max(len(settings), 1)
            places = np.arange(len(class_names)) + offset
            axes.plot(accuracy, places, marker=marker, color=colour, linestyle="", label=setting.label)
        else:
            linestyle = LINES[number % len(LINES)]
            axes.plot(np.sort(accuracy)[::-1], color=colour, label=setting.label, linestyle=linestyle)
    if few:
        axes.set_yticks(range(len(class_names)), class_names)
        axes.invert_yaxis()
        axes.set_xlabel("accuracy on the class, %")
    else:
        axes.set_xlabel("classes, each method's best first")
        axes.set_ylabel("accuracy on the class, %")
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=2, fontsize="small")
    return figure


def federation(counts: NDArray[np.int32]) -> Figure:
    """Draw who holds what.

    Parameters
    ----------
    counts : ndarray of shape (clients, C), int
        Samples of each class on each client.

    Returns
    -------
    Figure
        Clients across, ordered by their commonest class, and classes down; darker is more samples.
    """
    order = np.lexsort((-counts.max(axis=1), counts.argmax(axis=1)))
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    shown = np.ma.masked_equal(counts[order].T, 0)
    norm = LogNorm(vmin=1, vmax=max(int(counts.max()), 2))
    image = axes.imshow(shown, aspect="auto", norm=norm, cmap="viridis_r", interpolation="nearest")
    axes.set_xlabel("clients, by their commonest class")
    axes.set_ylabel("classes")
    figure.colorbar(image, label="samples", format=FuncFormatter(lambda value, _: f"{value:g}"))
    return figure


def _scale_bytes(axes: Axes) -> None:
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _annotate(axes: Axes, settings: Sequence[Setting]) -> None:
    """Write a point's values beside it, above and below in turn, so that neighbours do not overlap."""
    ordered = sorted(settings, key=lambda setting: setting.average_of("uplink_bytes"))
    for number, setting in enumerate(ordered):
        place = (setting.average_of("uplink_bytes") / 1e6, setting.accuracy * 100)
        above = number % 2 == 0
        axes.annotate(
            " ".join(v if isinstance(v, str) else f"{key} {v}" for key, v in setting.values.items()),
            place,
            xytext=(0, 9 if above else -9),
            textcoords="offset points",
            ha="center",
            va="bottom" if above else "top",
            fontsize=7,
            color=STYLES[setting.method][0],
        )
