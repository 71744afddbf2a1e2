"""The picture of what merges are worth: accuracy over the rounds, and against the bytes of them."""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.ticker import ScalarFormatter

from fedcof.files import whole_file
from simulations.report.figure_style import LINES, MARKERS, SMALL, new_figure

COLOURS = {"head": "#555555", "adapters": "#0072B2", "all": "#D55E00"}


def plot(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw what :mod:`simulations.benchmarks.merging` has measured.

    Parameters
    ----------
    rows : sequence of dict
        Its lines; those that were refused are left out.
    path : Path
        File to write, .png.
    """
    figure, axes = new_figure(7, 5)
    accuracies: defaultdict[tuple[str, str, str], list[list[float]]] = defaultdict(list)
    cost: dict[tuple[str, str, str], float] = {}
    for row in rows:
        if not row["refused"]:
            name = row["start"], row["trained"], row["merge"]
            accuracies[name].append([100 * accuracy for accuracy in row["accuracies"]])
            cost[name] = row["bytes_of_round"] / 1e6
    merges = list(dict.fromkeys(name[2] for name in accuracies))
    for name, seeds in accuracies.items():
        mean = np.mean(seeds, axis=0)
        look = merges.index(name[2])
        style = LINES[look % len(LINES)] + MARKERS[look % len(MARKERS)]
        megabytes = np.arange(len(mean)) * cost[name]
        label = f"{name[1]}, {name[2]} ({len(seeds)} {'seed' if len(seeds) == 1 else 'seeds'})"
        axes.plot(megabytes[1:], mean[1:], style, color=COLOURS[name[1]], label=label, markersize=5)
    axes.set_xscale("log")
    for ticks in (axes.xaxis.set_major_formatter, axes.xaxis.set_minor_formatter):
        ticks(ScalarFormatter())
    axes.tick_params(axis="x", which="both", labelsize=SMALL)
    axes.set_xlabel("MB of training so far, all clients, both ways")
    axes.set_ylabel("accuracy on the test split, per cent")
    axes.legend(fontsize=SMALL, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.18))
    axes.grid(alpha=0.3)
    with whole_file(path) as unfinished:
        figure.savefig(unfinished, format="png")


def main() -> None:
    """Draw the lines of JSON in files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("lines", nargs="+", type=Path)
    parser.add_argument("-o", "--output", type=Path, default=Path("merging.png"))
    asked = parser.parse_args()
    plot(
        [json.loads(line) for file in asked.lines for line in file.read_text(encoding="utf-8").splitlines()],
        asked.output,
    )


if __name__ == "__main__":
    main()
