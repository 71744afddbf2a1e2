"""The picture of a federation that changes over steps: accuracy on the classes so far, and forgetting."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from simulations.report.figure_style import LINES, MARKERS, SMALL, Styles, plain_label, styles_of
from simulations.report.seed_averages import SeedAverage
from simulations.report.step_averages import step_averages


def accuracy_over_steps(averages: Sequence[SeedAverage], styles: Styles | None = None) -> Figure:
    """Draw accuracy on all classes so far, and forgetting, over steps.

    Parameters
    ----------
    averages : sequence of SeedAverage
        At least one; a line each, of those that have steps.
    styles : mapping of str to MethodStyle, optional
        Looks of the methods.

    Returns
    -------
    Figure
        Two panels, in per cent and in points.
    """
    styles = styles or styles_of(averages)
    figure = Figure(figsize=(7, 3.4 + 0.2 * len(averages)), dpi=150, layout="constrained")
    accuracy, forgetting = figure.subplots(1, 2)
    for number, average in enumerate(averages):
        steps = step_averages(average)
        colour = styles[average.method].colour
        line, marker = LINES[number % len(LINES)], MARKERS[number % len(MARKERS)]
        for axes, values in (
            (accuracy, [step.accuracy for step in steps]),
            (forgetting, [step.forgetting for step in steps]),
        ):
            axes.plot(
                [step.step for step in steps],
                [math.nan if value is None else value * 100 for value in values],
                color=colour,
                ls=line,
                marker=marker,
                ms=4.5,
                alpha=0.9,
                label=plain_label(average.label, 60) if axes is accuracy else None,
            )
    accuracy.set_ylabel("accuracy on the classes so far, %")
    forgetting.set_ylabel("forgetting of old classes, points")
    for axes in (accuracy, forgetting):
        axes.set_xlabel("step")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.25)
    figure.legend(loc="outside lower center", ncols=1, fontsize=SMALL, frameon=False)
    return figure
