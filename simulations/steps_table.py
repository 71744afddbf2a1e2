"""The table that a person sees of a federation that changed over steps."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from fedcof.run.steps import StepResult
from simulations.display import UNKNOWN, percent
from simulations.terminal import TextTable

_ACCURACIES = ["accuracy %", "old %", "new %", "average %", "forgetting"]
# What a narrow terminal does without, the least important first.
_EXPENDABLE = ["downlink MB", "left", "uploads", "average %", "clients"]


def steps_table(steps: Sequence[StepResult]) -> Table:
    """Make the table of steps.

    Parameters
    ----------
    steps : sequence of StepResult
        One row each.

    Returns
    -------
    Table
        Accuracies in per cent, forgetting in points; bytes so far in MB (10^6).
    """
    counts = ["clients", "uploads", "left", "classes"]
    table = TextTable(["step"], [*counts, *_ACCURACIES, "uplink MB", "downlink MB"], _EXPENDABLE)
    for step in steps:
        table.add_texts(
            step.step,
            step.clients,
            step.uploads,
            step.left,
            step.classes,
            *(percent(found) for found in (step.accuracy, step.old_accuracy, step.new_accuracy)),
            percent(step.average_accuracy),
            UNKNOWN if step.forgetting is None else f"{step.forgetting * 100:.2f}",
            f"{step.uplink_bytes / 1e6:.2f}",
            f"{step.downlink_bytes / 1e6:.2f}",
        )
    return table
