"""Pictures of accuracy: against the bytes that clients sent, and over rounds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from simulations.report.figure_style import (
    INK,
    LINES,
    MARKERS,
    SMALL,
    Styles,
    as_number,
    new_figure,
    plain_label,
    point_of,
    styles_of,
)
from simulations.report.learning_curves import is_trained, learning_curve
from simulations.report.plot_names import name_lines, name_points
from simulations.report.seed_averages import SeedAverage, accuracy_of, with_known_accuracy

# More points than this are named only where nothing else is as accurate for as few bytes.
MOST_NAMED_POINTS = 14


def accuracy_against_bytes(averages: Sequence[SeedAverage], styles: Styles | None = None) -> Figure:
    """Draw accuracy against what the clients sent.

    Parameters
    ----------
    averages : sequence of SeedAverage
        Points; those that sent nothing, as the oracle, are drawn as lines named at the right edge; those
        whose accuracy nobody knows are left out.
    styles : mapping of str to MethodStyle, optional
        Looks of the methods.

    Returns
    -------
    Figure
        Uplink in MB (10^6 bytes, logarithmic) and accuracy in per cent, with the deviation over seeds.
    """
    averages = with_known_accuracy(averages)
    styles = styles or styles_of(averages)
    figure, axes = new_figure(7, 4.8)
    sent = [average for average in averages if average.average_of("uplink_bytes") > 0]
    named = sent if len(sent) <= MOST_NAMED_POINTS else best_for_their_bytes(sent)
    if named is not sent:
        axes.plot(*zip(*map(point_of, named), strict=True), color=INK, lw=0.8, alpha=0.5, zorder=1)
    labelled: set[str] = set()
    for average in sent:
        name = None if average.method in labelled else plain_label(average.method, 30)
        labelled.add(average.method)
        _draw_point(axes, average, styles, name, 1 if average in named else 0.35)
    without = [average for average in averages if average not in sent]
    for average in without:
        colour = styles[average.method].colour
        axes.axhline(accuracy_of(average) * 100, color=colour, ls="--", lw=1.2, zorder=1)
    _scale_bytes(axes, [point_of(average)[0] for average in sent])
    axes.margins(y=0.15)
    axes.set_xlabel("uplink of all clients, MB")
    axes.set_ylabel("accuracy, %")
    axes.grid(alpha=0.25)
    if sent:
        figure.legend(loc="outside upper center", ncols=4, frameon=False)
    name_lines(axes, without, styles)
    name_points(axes, named, sent, [accuracy_of(average) * 100 for average in without], styles)
    return figure


def _draw_point(axes: Axes, average: SeedAverage, styles: Styles, name: str | None, alpha: float) -> None:
    deviation = None if average.accuracy_deviation is None else average.accuracy_deviation * 100
    style = styles[average.method]
    x, y = point_of(average)
    axes.errorbar(
        x, y, deviation, color=style.colour, marker=style.marker, ms=7, label=name, capsize=3, ls="", alpha=alpha
    )


def best_for_their_bytes(averages: Sequence[SeedAverage]) -> list[SeedAverage]:
    """Pick the settings than which none is as accurate on fewer bytes, or more accurate on as many.

    Parameters
    ----------
    averages : sequence of SeedAverage
        Points.

    Returns
    -------
    list of SeedAverage
        From fewest bytes to most.
    """
    best: list[SeedAverage] = []
    for average in sorted(averages, key=lambda s: (s.average_of("uplink_bytes"), -accuracy_of(s))):
        if not best or accuracy_of(average) > accuracy_of(best[-1]):
            best.append(average)
    return best


def accuracy_over_rounds(averages: Sequence[SeedAverage], styles: Styles | None = None) -> Figure:
    """Draw accuracy over rounds and over the bytes sent until then.

    Parameters
    ----------
    averages : sequence of SeedAverage
        One line each, as far as all seeds went and accuracies are known; without rounds, a level dashed line.
    styles : mapping of str to MethodStyle, optional
        Looks of the methods.

    Returns
    -------
    Figure
        Two panels with a common axis of accuracy in per cent.
    """
    styles = styles or styles_of(averages)
    figure = Figure(figsize=(7, 3.6 + 0.2 * len(averages)), dpi=150, layout="constrained")
    by_round, by_bytes = figure.subplots(1, 2, sharey=True)
    drawn: list[float] = []
    for average, style in zip(averages, _line_styles(averages, styles), strict=True):
        name = plain_label(average.label, 60)
        curve = learning_curve(average)
        if len(curve.rounds):
            sent = curve.megabytes > 0
            drawn.extend(curve.megabytes[sent])
            by_round.plot(curve.rounds, curve.accuracy, label=name, **style)
            by_bytes.plot(curve.megabytes[sent], curve.accuracy[sent], **style)
        elif average.accuracy is not None:
            by_round.axhline(average.accuracy * 100, color=style["color"], ls="--", lw=1.2, label=name)
            by_bytes.axhline(average.accuracy * 100, color=style["color"], ls="--", lw=1.2)
    by_round.set_xlabel("rounds of training" if any(map(is_trained, averages)) else "round")
    by_round.xaxis.set_major_locator(MaxNLocator(integer=True))
    by_round.set_ylabel("accuracy, %")
    by_bytes.set_xlabel("uplink so far, MB")
    _scale_bytes(by_bytes, drawn)
    for axes in (by_round, by_bytes):
        axes.grid(alpha=0.25)
    figure.legend(loc="outside lower center", ncols=1, fontsize=SMALL, frameon=False)
    return figure


def _line_styles(averages: Sequence[SeedAverage], styles: Styles) -> list[dict[str, Any]]:
    """Give each line its method's colour, and among those of a method a dash and marker of its own."""
    seen: dict[str, int] = {}
    lines = []
    for average in averages:
        number = seen[average.method] = seen.get(average.method, -1) + 1
        marker = MARKERS[number % len(MARKERS)]
        style = {"linestyle": LINES[number % len(LINES)], "marker": marker, "markersize": 4.5, "alpha": 0.9}
        lines.append({"color": styles[average.method].colour, **style})
    return lines


def _scale_bytes(axes: Axes, megabytes: Sequence[float]) -> None:
    """Scale an axis of bytes so that it shows all of them and at least one round number."""
    axes.set_xscale("log")
    if megabytes:
        axes.set_xlim(min(megabytes) / 1.7, max(megabytes) * 1.7)
    decades = np.log10(max(megabytes) / min(megabytes)) if megabytes else 0
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if decades < 2.5 else (1,)))
    axes.xaxis.set_major_formatter(FuncFormatter(as_number))
    axes.xaxis.set_minor_formatter(NullFormatter())
