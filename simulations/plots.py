"""The pictures of a report; each takes data and gives a matplotlib figure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from numpy.typing import NDArray

from simulations.runs_over_seeds import Setting
from simulations.training_courses import course_of, is_trained

# Okabe and Ito's colours, which people who cannot tell red from green tell apart.
STYLES = {
    "fedncm": ("#E69F00", "s"),
    "fedcof": ("#0072B2", "o"),
    "fed3r": ("#D55E00", "D"),
    "random": ("#009E73", "^"),
    "oracle": ("#555555", "*"),
}
LINES = ["-", "--", ":", "-."]
MARKERS = ["o", "s", "^", "D", "v", "P", "X"]
INK = "#222222"
SMALL = 8.5
MOST_NAMED_CLASSES = 20
# More points than this are named only where nothing else is as accurate for as few bytes.
MOST_NAMED_POINTS = 14
# A smaller share of the largest eigenvalue is rounding.
SMALLEST_DRAWN = 1e-6

FloatArray = NDArray[np.float64]


def accuracy_against_bytes(settings: Sequence[Setting]) -> Figure:
    """Draw accuracy against what the clients sent.

    Parameters
    ----------
    settings : sequence of Setting
        Points; those that sent nothing, as the oracle, are drawn as lines named at the right edge.

    Returns
    -------
    Figure
        Uplink in MB (10^6 bytes, logarithmic) and accuracy in per cent, with the deviation over seeds.
    """
    figure, axes = _figure(7, 4.8)
    sent = [setting for setting in settings if setting.average_of("uplink_bytes") > 0]
    labelled: set[str] = set()
    named = sent if len(sent) <= MOST_NAMED_POINTS else best_for_their_bytes(sent)
    if named is not sent:
        axes.plot(*zip(*map(_point, named), strict=True), color=INK, lw=0.8, alpha=0.5, zorder=1)
    for setting in sent:
        colour, marker = STYLES[setting.method]
        label = None if setting.method in labelled else setting.method
        labelled.add(setting.method)
        deviation = None if setting.accuracy_deviation is None else setting.accuracy_deviation * 100
        x, y = _point(setting)
        axes.errorbar(
            x,
            y,
            deviation,
            color=colour,
            marker=marker,
            ms=7,
            label=label,
            capsize=3,
            ls="",
            alpha=1 if setting in named else 0.35,
        )
    without = [setting for setting in settings if setting not in sent]
    for setting in without:
        axes.axhline(setting.accuracy * 100, color=STYLES[setting.method][0], ls="--", lw=1.2, zorder=1)
    _scale_bytes(axes, [_point(setting)[0] for setting in sent])
    axes.margins(y=0.15)
    axes.set_xlabel("uplink of all clients, MB")
    axes.set_ylabel("accuracy, %")
    axes.grid(alpha=0.25)
    if sent:
        figure.legend(loc="outside upper center", ncols=4, frameon=False)
    _name_lines(axes, without)
    _name_points(axes, named, sent, [setting.accuracy * 100 for setting in without])
    return figure


def best_for_their_bytes(settings: Sequence[Setting]) -> list[Setting]:
    """Pick the settings than which none is as accurate on fewer bytes, or more accurate on as many.

    Parameters
    ----------
    settings : sequence of Setting
        Points.

    Returns
    -------
    list of Setting
        From fewest bytes to most.
    """
    best: list[Setting] = []
    for setting in sorted(settings, key=lambda s: (s.average_of("uplink_bytes"), -s.accuracy)):
        if not best or setting.accuracy > best[-1].accuracy:
            best.append(setting)
    return best


def spectra(settings: Sequence[Setting]) -> Figure:
    """Draw the spectra of rebuilt covariances beside the oracle's.

    Parameters
    ----------
    settings : sequence of Setting
        At least one, each with a diagnostic; a line each, and one of the oracle's.

    Returns
    -------
    Figure
        Eigenvalue in squared feature units against its rank, both on logarithmic scales.
    """
    figure, axes = _figure(7, 4.6)
    known = [(setting, setting.diagnostic) for setting in settings if setting.diagnostic]
    largest = max(max(diagnostic.oracle_spectrum) for _, diagnostic in known)
    colours = colormaps["viridis"](np.linspace(0.05, 0.85, len(known)))
    for (setting, diagnostic), colour in zip(known, colours, strict=True):
        axes.plot(diagnostic.ranks, _above(diagnostic.spectrum, largest), color=colour, lw=1, alpha=0.4)
        axes.plot(diagnostic.ranks, diagnostic.shrunk_spectrum, color=colour, label=_plain(setting.label, 60))
    _, diagnostic = known[0]
    axes.plot(diagnostic.ranks, _above(diagnostic.oracle_spectrum, largest), color=INK, ls="--", label="the oracle")
    axes.set(xscale="log", yscale="log", xlabel="rank", ylabel="eigenvalue")
    axes.xaxis.set_major_formatter(_as_number)
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, fontsize=SMALL, loc="lower left")
    return figure


def _above(spectrum: Sequence[float], largest: float) -> FloatArray:
    """Leave out what a logarithmic scale has no room for: a covariance of few rows has eigenvalues of zero."""
    values = np.array(spectrum)
    return np.where(values > SMALLEST_DRAWN * largest, values, np.nan)


def accuracy_over_rounds(settings: Sequence[Setting]) -> Figure:
    """Draw accuracy over rounds and over the bytes sent until then.

    Parameters
    ----------
    settings : sequence of Setting
        One line each, the mean over seeds as far as all of them went; without rounds, a level dashed line.

    Returns
    -------
    Figure
        Two panels with a common axis of accuracy in per cent.
    """
    figure = Figure(figsize=(7, 3.6 + 0.2 * len(settings)), dpi=150, layout="constrained")
    by_round, by_bytes = figure.subplots(1, 2, sharey=True)
    drawn: list[float] = []
    for setting, style in zip(settings, _line_styles(settings), strict=True):
        label = _plain(setting.label, 60)
        course = course_of(setting)
        numbers, megabytes, accuracy = course.rounds, course.megabytes, course.accuracy
        if not len(numbers):
            by_round.axhline(setting.accuracy * 100, color=style["color"], ls="--", lw=1.2, label=label)
            by_bytes.axhline(setting.accuracy * 100, color=style["color"], ls="--", lw=1.2)
            continue
        sent = megabytes > 0
        drawn.extend(megabytes[sent])
        by_round.plot(numbers, accuracy, label=label, **style)
        by_bytes.plot(megabytes[sent], accuracy[sent], **style)
    by_round.set_xlabel("rounds of training" if any(map(is_trained, settings)) else "round")
    by_round.xaxis.set_major_locator(MaxNLocator(integer=True))
    by_round.set_ylabel("accuracy, %")
    by_bytes.set_xlabel("uplink so far, MB")
    _scale_bytes(by_bytes, drawn)
    for axes in (by_round, by_bytes):
        axes.grid(alpha=0.25)
    figure.legend(loc="outside lower center", ncols=1, fontsize=SMALL, frameon=False)
    return figure


def class_accuracy(settings: Sequence[Setting], class_names: Sequence[str]) -> Figure:
    """Draw the accuracy on each class: a row of dots a class for few, a sorted curve a setting for many.

    Parameters
    ----------
    settings : sequence of Setting
        One colour or curve each, the mean over seeds.
    class_names : sequence of str
        Names of the classes; up to 20 are written out, of more each setting's best and worst.

    Returns
    -------
    Figure
        Accuracy in per cent, the best classes first.
    """
    accuracies = [mean_class_accuracy(setting) * 100 for setting in settings]
    if len(class_names) <= MOST_NAMED_CLASSES:
        return _class_rows(settings, accuracies, class_names)
    return _class_curves(settings, accuracies, class_names)


def federation(counts: NDArray[np.int32], class_names: Sequence[str] = (), caption: str = "") -> Figure:
    """Draw who holds what.

    Parameters
    ----------
    counts : ndarray of shape (clients, C), int
        Samples of each class on each client.
    class_names : sequence of str
        Names of the C classes, written out for up to 20.
    caption : str
        Said above the picture.

    Returns
    -------
    Figure
        Clients across, ordered by their commonest class, and classes down; darker is more samples.
    """
    clients, classes = counts.shape
    order = np.lexsort((-counts.max(axis=1), counts.argmax(axis=1)))
    figure, axes = _figure(7, 4.4)
    if clients > 400:
        # Every client keeps a pixel of its own.
        figure.set_dpi(300)
    norm = LogNorm(vmin=1, vmax=max(int(counts.max()), 2))
    shown = np.ma.masked_equal(counts[order].T, 0)
    image = axes.imshow(shown, aspect="auto", norm=norm, cmap="viridis_r", interpolation="nearest")
    axes.set_xlabel(f"{clients} clients, by their commonest class (a white cell holds none)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if len(class_names) == classes <= MOST_NAMED_CLASSES:
        axes.set_yticks(range(classes), [_plain(name, 24) for name in class_names])
    else:
        axes.set_ylabel(f"{classes} classes")
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_title(_plain(caption, 90), fontsize=10)
    bar = figure.colorbar(image, ticks=LogLocator(subs=(1, 2, 5)), format=FuncFormatter(_as_number))
    bar.minorticks_off()
    bar.set_label("samples")
    return figure


def mean_class_accuracy(setting: Setting) -> FloatArray:
    """Average the accuracy on each class over seeds.

    Parameters
    ----------
    setting : Setting
        Its runs have the same classes.

    Returns
    -------
    ndarray of shape (C,), float64
        From 0 to 1; NaN for a class without a test sample.
    """
    return _mean_of_known([np.array(run.class_accuracy, dtype=np.float64) for run in setting.runs])


def _mean_of_known(rows: Sequence[FloatArray]) -> FloatArray:
    """Average rows without their NaN; NaN where all have one."""
    stacked = np.stack(rows)
    known = ~np.isnan(stacked)
    total = np.where(known, stacked, 0).sum(axis=0)
    return np.where(known.any(axis=0), total / np.maximum(known.sum(axis=0), 1), np.nan)


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), dpi=150, layout="constrained")
    return figure, figure.subplots()


def _plain(text: str, width: int) -> str:
    """Shorten a text, and keep matplotlib from reading formulas into it."""
    line = " ".join(text.split())
    shown = line if len(line) <= width else line[: width - 1].rstrip() + "…"
    return shown.replace("$", r"\$")


def _as_number(value: float, _: object = None) -> str:
    return f"{value:,.12g}"


def _point(setting: Setting) -> tuple[float, float]:
    return setting.average_of("uplink_bytes") / 1e6, setting.accuracy * 100


def _line_styles(settings: Sequence[Setting]) -> list[dict[str, Any]]:
    """Give each line its method's colour, and among those of a method a dash and marker of its own."""
    seen: dict[str, int] = {}
    styles = []
    for setting in settings:
        number = seen[setting.method] = seen.get(setting.method, -1) + 1
        marker = MARKERS[number % len(MARKERS)]
        style = {"linestyle": LINES[number % len(LINES)], "marker": marker, "markersize": 4.5, "alpha": 0.9}
        styles.append({"color": STYLES[setting.method][0], **style})
    return styles


def _class_rows(settings: Sequence[Setting], accuracies: list[FloatArray], class_names: Sequence[str]) -> Figure:
    order = np.argsort(-_mean_of_known(accuracies), kind="stable")
    figure, axes = _figure(7, 0.36 * len(class_names) + 1.6)
    rows = np.arange(len(class_names))
    for row in rows[::2]:
        axes.axhspan(row - 0.5, row + 0.5, color="#0000000d", lw=0)
    for number, (setting, accuracy) in enumerate(zip(settings, accuracies, strict=True)):
        colour, marker = STYLES[setting.method]
        places = rows + (number - (len(settings) - 1) / 2) * 0.7 / len(settings)
        axes.plot(accuracy[order], places, marker, color=colour, ms=6, label=_plain(setting.label, 60))
    axes.set_yticks(rows, [_plain(class_names[i], 30) for i in order])
    axes.set_ylim(len(class_names) - 0.5, -0.5)
    axes.set_xlabel("accuracy on the class, %")
    axes.grid(alpha=0.25, axis="x")
    figure.legend(loc="outside lower center", ncols=1, fontsize=SMALL, frameon=False)
    return figure


def _class_curves(settings: Sequence[Setting], accuracies: list[FloatArray], class_names: Sequence[str]) -> Figure:
    figure, axes = _figure(7, 3.9 + 0.2 * len(settings))
    for number, (setting, accuracy) in enumerate(zip(settings, accuracies, strict=True)):
        known = accuracy[~np.isnan(accuracy)]
        if not len(known):
            continue
        ends = [
            (_plain(class_names[i], 20), accuracy[i])
            for i in map(int, (np.nanargmax(accuracy), np.nanargmin(accuracy)))
        ]
        best, worst = (f"{name} {value:.0f} %" for name, value in ends)
        label = f"{_plain(setting.label, 48)}: best {best}, worst {worst}"
        style = LINES[number % len(LINES)]
        places = np.arange(1, len(known) + 1)
        axes.plot(places, np.sort(known)[::-1], color=STYLES[setting.method][0], ls=style, label=label)
    axes.set_xlabel("rank of the class, each line's best first")
    axes.set_ylabel("accuracy on the class, %")
    axes.grid(alpha=0.25)
    figure.legend(loc="outside lower center", ncols=1, fontsize=SMALL, frameon=False)
    return figure


def _scale_bytes(axes: Axes, megabytes: Sequence[float]) -> None:
    """Scale an axis of bytes so that it shows all of them and at least one round number."""
    axes.set_xscale("log")
    if megabytes:
        axes.set_xlim(min(megabytes) / 1.7, max(megabytes) * 1.7)
    decades = np.log10(max(megabytes) / min(megabytes)) if megabytes else 0
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if decades < 2.5 else (1,)))
    axes.xaxis.set_major_formatter(FuncFormatter(_as_number))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _name_lines(axes: Axes, settings: Sequence[Setting]) -> None:
    """Name level lines at the right edge, moved apart where they are close."""
    if not settings:
        return
    low, high = axes.get_ylim()
    axes.set_ylim(low, high)
    heights = np.array([setting.accuracy * 100 for setting in settings])
    order = np.argsort(heights)
    steps = np.arange(len(order)) * (high - low) / 24
    places = np.maximum.accumulate(heights[order] - steps) + steps
    places -= np.mean(places - heights[order])
    for i, place in zip(order, places, strict=True):
        name = _plain(f"{settings[i].method} {_values(settings[i])}", 28)
        axes.annotate(
            f"{name} {heights[i]:.2f}",
            (1, heights[i]),
            (1.03, place),
            xycoords=("axes fraction", "data"),
            textcoords=("axes fraction", "data"),
            va="center",
            fontsize=SMALL,
            color=INK,
            arrowprops={"arrowstyle": "-", "lw": 0.6, "color": STYLES[settings[i].method][0], "relpos": (0, 0.5)},
        )


def _name_points(
    axes: Axes, settings: Sequence[Setting], points: Sequence[Setting], lines: Sequence[float]
) -> None:
    """Write each point's values near it where nothing else is, with a line to it where that is not beside it."""
    figure = axes.get_figure(root=True)
    if figure is None:
        return
    figure.draw_without_rendering()
    renderer = FigureCanvasAgg(figure).get_renderer()  # type: ignore[no-untyped-call]
    scale = figure.dpi / 72
    frame = np.array(axes.get_window_extent(renderer).extents)
    taken = [_extent_of_point(axes, setting, scale) for setting in points]
    taken += [_extent_of_line(line, axes, frame) for line in lines]
    for setting in sorted((s for s in settings if s.values), key=_point):
        named: dict[str, Any] = {"fontsize": SMALL, "color": INK, "va": "center", "ha": "center"}
        name = _plain(_values(setting), 36)
        measured = axes.text(*_point(setting), name, **named)
        size = np.array(measured.get_window_extent(renderer).size)
        measured.remove()
        centre = np.array(axes.transData.transform(_point(setting)))
        offset, box, gap = _freest_place(centre, size, np.array(taken), frame, scale)
        taken.append(box)
        leader = {"arrowstyle": "-", "lw": 0.6, "color": STYLES[setting.method][0], "shrinkA": 1, "shrinkB": 3}
        placed = axes.annotate(
            name,
            _point(setting),
            (float(offset[0]) / scale, float(offset[1]) / scale),
            textcoords="offset points",
            arrowprops=leader if gap > 9 * scale else None,
            **named,
        )
        # A name may stick out of the frame without pushing it: the places were chosen for this frame.
        placed.set_in_layout(False)


def _values(setting: Setting) -> str:
    return " ".join(v if isinstance(v, str) else f"{key} {v}" for key, v in setting.values.items())


def _extent_of_point(axes: Axes, setting: Setting, scale: float) -> FloatArray:
    """Left, bottom, right and top of a marker with its bar, in pixels."""
    x, y = _point(setting)
    half = (setting.accuracy_deviation or 0) * 100
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
