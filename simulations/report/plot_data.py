"""Pictures of the data: who holds what, and the spectra of rebuilt covariances."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator
from numpy.typing import NDArray

from simulations.report.figure_style import (
    INK,
    MOST_NAMED_CLASSES,
    SMALL,
    FloatArray,
    as_number,
    new_figure,
    plain_label,
)
from simulations.report.seed_averages import SeedAverage

# A smaller share of the largest eigenvalue is rounding.
SMALLEST_DRAWN = 1e-6


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
    figure, axes = new_figure(7, 4.4)
    if clients > 400:
        # Every client keeps a pixel of its own.
        figure.set_dpi(300)
    norm = LogNorm(vmin=1, vmax=max(int(counts.max()), 2))
    shown = np.ma.masked_equal(counts[order].T, 0)
    image = axes.imshow(shown, aspect="auto", norm=norm, cmap="viridis_r", interpolation="nearest")
    axes.set_xlabel(f"{clients} clients, by their commonest class (a white cell holds none)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if len(class_names) == classes <= MOST_NAMED_CLASSES:
        axes.set_yticks(range(classes), [plain_label(name, 24) for name in class_names])
    else:
        axes.set_ylabel(f"{classes} classes")
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_title(plain_label(caption, 64), fontsize=10)
    bar = figure.colorbar(image, ticks=LogLocator(subs=(1, 2, 5)), format=FuncFormatter(as_number))
    bar.minorticks_off()
    bar.set_label("samples")
    return figure


def spectra(averages: Sequence[SeedAverage]) -> Figure:
    """Draw the spectra of rebuilt covariances beside the oracle's.

    Parameters
    ----------
    averages : sequence of SeedAverage
        At least one, each with a diagnostic; a line each, and one of the oracle's.

    Returns
    -------
    Figure
        Eigenvalue in squared feature units against its rank, both on logarithmic scales.
    """
    figure, axes = new_figure(7, 4.6)
    known = [(average, average.diagnostic) for average in averages if average.diagnostic]
    largest = max(np.nanmax(_numbers(diagnostic.oracle_spectrum)) for _, diagnostic in known)
    colours = colormaps["viridis"](np.linspace(0.05, 0.85, len(known)))
    for (average, diagnostic), colour in zip(known, colours, strict=True):
        axes.plot(diagnostic.ranks, _above(diagnostic.spectrum, largest), color=colour, lw=1, alpha=0.4)
        axes.plot(
            diagnostic.ranks,
            _numbers(diagnostic.shrunk_spectrum),
            color=colour,
            label=plain_label(average.label, 60),
        )
    _, diagnostic = known[0]
    axes.plot(diagnostic.ranks, _above(diagnostic.oracle_spectrum, largest), color=INK, ls="--", label="the oracle")
    axes.set(xscale="log", yscale="log", xlabel="rank", ylabel="eigenvalue")
    axes.xaxis.set_major_formatter(as_number)
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, fontsize=SMALL, loc="lower left")
    return figure


def _above(spectrum: Sequence[float], largest: float) -> FloatArray:
    """Leave out what a logarithmic scale has no room for: a covariance of few rows has eigenvalues of zero."""
    values = _numbers(spectrum)
    return np.where(values > SMALLEST_DRAWN * largest, values, np.nan)


def _numbers(spectrum: Sequence[float]) -> FloatArray:
    """Take what a results file has as null, because JSON has no word for it, for not a number."""
    return np.array(spectrum, dtype=np.float64)
