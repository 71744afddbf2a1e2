"""Which classes the most accurate setting of a folder takes for which."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fedcof.run.confusion import CONFUSION_FILE_NAME, Confusion
from fedcof.run.results import RunResult, is_within
from simulations.report.seed_averages import SeedAverage, with_known_accuracy

MOST_PAIRS = 12


@dataclass(frozen=True, eq=False)
class ConfusedClasses:
    """The test samples of a setting by their class and what they were taken for.

    Attributes
    ----------
    average : SeedAverage
        The setting.
    matrix : Confusion
        Of all its seeds together.
    class_names : list of str
        Names of the C classes.
    """

    average: SeedAverage
    matrix: Confusion
    class_names: list[str]

    @property
    def over_seeds(self) -> str:
        """A clause that says of how many seeds it is; empty for one."""
        seeds = len(self.average.runs)
        return f", over {seeds} seeds" if seeds > 1 else ""

    def pairs(self) -> list[tuple[str, str, float, float]]:
        """List the most confused: class, taken for, samples as a mean over seeds, and their share of the class."""
        samples, seeds = self.matrix.samples, len(self.average.runs)
        return [
            (self.class_names[true], self.class_names[taken], count / seeds, count / int(samples[true]))
            for true, taken, count in self.matrix.most_confused(MOST_PAIRS)
        ]


def confused_classes(averages: Sequence[SeedAverage], folder: Path) -> ConfusedClasses | None:
    """Read what the most accurate setting takes for what.

    Parameters
    ----------
    averages : sequence of SeedAverage
        All settings of a folder.
    folder : Path
        The folder.

    Returns
    -------
    ConfusedClasses or None
        None where no setting has kept it for all its seeds.
    """
    by_accuracy = sorted(with_known_accuracy(averages), key=lambda average: -(average.accuracy or 0.0))
    for average in by_accuracy:
        names = average.runs[0].class_names
        found = [_of_run(run, folder) for run in average.runs]
        kept = [matrix for matrix in found if matrix is not None and matrix.num_classes == len(names)]
        if len(kept) == len(found) and all(run.class_names == names for run in average.runs):
            whole = kept[0]
            for other in kept[1:]:
                whole = whole.with_counts_of(other)
            return ConfusedClasses(average, whole, names)
    return None


def _of_run(run: RunResult, folder: Path) -> Confusion | None:
    path = folder / Path(run.head).parent / CONFUSION_FILE_NAME
    return Confusion.load(path.parent) if is_within(folder, path) else None
