"""Names of points and lines, placed where they cover least."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg

from simulations.report.figure_style import INK, SMALL, FloatArray, Styles, drawn_quietly, plain_label, point_of
from simulations.report.seed_averages import SeedAverage, accuracy_of


def name_lines(axes: Axes, averages: Sequence[SeedAverage], styles: Styles) -> None:
    """Name level lines at the right edge, moved apart where they are close.

    Parameters
    ----------
    axes : Axes
        Where the lines are.
    averages : sequence of SeedAverage
        Their settings, of known accuracy.
    styles : mapping of str to MethodStyle
        Looks of the methods.
    """
    if not averages:
        return
    low, high = axes.get_ylim()
    axes.set_ylim(low, high)
    heights = np.array([accuracy_of(average) * 100 for average in averages])
    order = np.argsort(heights)
    steps = np.arange(len(order)) * (high - low) / 24
    places = np.maximum.accumulate(heights[order] - steps) + steps
    places -= np.mean(places - heights[order])
    for i, place in zip(order, places, strict=True):
        name = plain_label(f"{averages[i].method} {averages[i].short_label}", 28)
        axes.annotate(
            f"{name} {heights[i]:.2f}",
            (1, heights[i]),
            (1.03, place),
            xycoords=("axes fraction", "data"),
            textcoords=("axes fraction", "data"),
            va="center",
            fontsize=SMALL,
            color=INK,
            arrowprops={
                "arrowstyle": "-",
                "lw": 0.6,
                "color": styles[averages[i].method].colour,
                "relpos": (0, 0.5),
            },
        )


def name_points(
    axes: Axes,
    averages: Sequence[SeedAverage],
    points: Sequence[SeedAverage],
    lines: Sequence[float],
    styles: Styles,
) -> None:
    """Write each point's values near it where nothing else is, with a line to it where that is not beside it.

    Parameters
    ----------
    axes : Axes
        Where the points are.
    averages : sequence of SeedAverage
        The settings to name, of known accuracy.
    points : sequence of SeedAverage
        All settings that are drawn as points.
    lines : sequence of float
        Heights of the level lines.
    styles : mapping of str to MethodStyle
        Looks of the methods.
    """
    figure = axes.get_figure(root=True)
    if figure is None:
        return
    with drawn_quietly():
        figure.draw_without_rendering()
    renderer = FigureCanvasAgg(figure).get_renderer()  # type: ignore[no-untyped-call]
    scale = figure.dpi / 72
    frame = np.array(axes.get_window_extent(renderer).extents)
    taken = [_extent_of_point(axes, average, scale) for average in points]
    taken += [_extent_of_line(line, axes, frame) for line in lines]
    for average in sorted((s for s in averages if s.short_label), key=point_of):
        named: dict[str, Any] = {"fontsize": SMALL, "color": INK, "va": "center", "ha": "center"}
        name = plain_label(average.short_label, 36)
        measured = axes.text(*point_of(average), name, **named)
        with drawn_quietly():
            size = np.array(measured.get_window_extent(renderer).size)
        measured.remove()
        centre = np.array(axes.transData.transform(point_of(average)))
        offset, box, gap = _freest_place(centre, size, np.array(taken), frame, scale)
        taken.append(box)
        leader = {"arrowstyle": "-", "lw": 0.6, "color": styles[average.method].colour, "shrinkA": 1, "shrinkB": 3}
        placed = axes.annotate(
            name,
            point_of(average),
            (float(offset[0]) / scale, float(offset[1]) / scale),
            textcoords="offset points",
            arrowprops=leader if gap > 9 * scale else None,
            **named,
        )
        # A name may stick out of the frame without pushing it: the places were chosen for this frame.
        placed.set_in_layout(False)


def _extent_of_point(axes: Axes, average: SeedAverage, scale: float) -> FloatArray:
    """Left, bottom, right and top of a marker with its bar, in pixels."""
    x, y = point_of(average)
    half = (average.accuracy_deviation or 0) * 100
    (left, bottom), (_, top) = axes.transData.transform([(x, y - half), (x, y + half)])
    return np.array([left - 5 * scale, bottom - 5 * scale, left + 5 * scale, top + 5 * scale])


def _extent_of_line(height: float, axes: Axes, frame: FloatArray) -> FloatArray:
    pixel = axes.transData.transform((1, height))[1]
    return np.array([frame[0], pixel - 1, frame[2], pixel + 1])


def _freest_place(
    centre: FloatArray, size: FloatArray, taken: FloatArray, frame: FloatArray, scale: float
) -> tuple[FloatArray, FloatArray, float]:
    """Choose among places around a point the one that covers least, and of those the nearest.

    Returns the offset of the text's middle, the text's extent and its distance from the point, in pixels.
    """
    angles = np.arange(0, 2 * np.pi, np.pi / 12) + np.pi / 2
    reach = np.arange(9, 150, 6)[:, None] * scale
    # A flat text needs more room to the sides than above.
    offsets = np.stack(
        [np.cos(angles) * (reach + size[0] / 2 - 4), np.sin(angles) * (reach + size[1] / 2 - 4)], axis=-1
    ).reshape(-1, 2)
    low, high = centre + offsets - size / 2, centre + offsets + size / 2
    width = np.minimum(high[:, None], taken[:, 2:]) - np.maximum(low[:, None], taken[:, :2]) + 1
    covered = np.prod(np.maximum(width, 0), axis=-1).sum(axis=1)
    outside = (np.maximum(frame[:2] - low, 0) + np.maximum(high - frame[2:], 0)).sum(axis=1)
    gap = np.hypot(*np.maximum(np.abs(offsets) - size / 2, 0).T)
    best = int(np.argmin(covered / scale + 200 * outside + gap))
    return offsets[best], np.concatenate([low[best], high[best]]), float(gap[best])
