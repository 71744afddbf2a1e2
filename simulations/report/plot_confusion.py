"""A picture of which classes were taken for which."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fedcof.run.confusion import Confusion
from simulations.report.figure_style import INK, MOST_NAMED_CLASSES, SMALL, FloatArray, new_figure, plain_label

# As many cells can be told apart in a picture of a page's width.
MOST_CELLS = 100
# Shares are small beside the diagonal's; so a tenth is told from nothing.
EXPONENT = 0.4
LIGHT_INK_ABOVE = 25


def confusion(matrix: Confusion, class_names: Sequence[str]) -> Figure:
    """Draw which classes were taken for which.

    Parameters
    ----------
    matrix : Confusion
        Of C classes.
    class_names : sequence of str
        Names of the classes; up to 20 are written out, with the number in every cell.

    Returns
    -------
    Figure
        Classes down and what they were taken for across, darker for a larger share of the class. Of more than 100
        classes as many neighbours stand together as make at most 100 blocks.
    """
    blocks = matrix.blocks(MOST_CELLS)
    samples = blocks.sum(axis=1, keepdims=True)
    shares = np.ma.masked_where(samples.repeat(len(blocks), axis=1) == 0, 100 * blocks / np.maximum(samples, 1))
    few = len(class_names) <= MOST_NAMED_CLASSES
    figure, axes = new_figure(7, 2.2 + 0.36 * len(class_names) if few else 6.4)
    size = -(-matrix.num_classes // len(blocks))
    end = len(blocks) * size - 0.5
    image = axes.imshow(
        shares,
        aspect="auto" if few else "equal",
        norm=PowerNorm(EXPONENT, vmin=0, vmax=100),
        cmap="Blues",
        interpolation="nearest",
        extent=(-0.5, end, end, -0.5),
    )
    if few:
        names = [plain_label(name, 24) for name in class_names]
        axes.set_yticks(range(len(names)), names)
        axes.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor")
        _write_numbers(axes, shares)
    else:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    blocked = f", {size} to a cell" if size > 1 else ""
    axes.set_ylabel("class" if few else f"number of the class{blocked}")
    axes.set_xlabel("taken for")
    bar = figure.colorbar(image, ticks=[0, 1, 5, 20, 50, 100])
    bar.set_label("share of the class, %")
    return figure


def _write_numbers(axes: Axes, shares: FloatArray) -> None:
    """Write the share into every cell that is not empty."""
    for (row, column), share in np.ndenumerate(np.ma.filled(shares, 0.0)):
        if share:
            colour = "white" if share > LIGHT_INK_ABOVE else INK
            axes.text(column, row, f"{share:.0f}", ha="center", va="center", color=colour, fontsize=SMALL)
