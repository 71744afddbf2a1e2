"""The report's page: everything on it, in one HTML file that stands alone."""

from __future__ import annotations

import math
from collections.abc import Sequence

from jinja2 import Environment, PackageLoader
from markupsafe import Markup, escape

from fedcof.embedding.section import EmbeddingSection
from fedcof.printable import printable
from fedcof.run.influence import ClientInfluence
from fedcof.run.results import NodeResult, RunResult
from fedcof.run.sample_groups import MOST_OF_FEW
from simulations.report.backbone_choice import backbone_sentences
from simulations.report.commands_of_runs import command_of, compare_command, values_by_key
from simulations.report.confused_classes import ConfusedClasses
from simulations.report.failed_runs import FailedSetting
from simulations.report.learning_curves import Reached, how_soon
from simulations.report.machine_paths import (
    names_of_paths,
    relative_command,
    text_without_folders,
    without_folders,
)
from simulations.report.methods_and_keys import always_said, default_config, sends_nothing, unused_keys
from simulations.report.seed_averages import SeedAverage
from simulations.report.sentences import reading
from simulations.report.step_averages import step_averages

DASH = "\N{EN DASH}"
MOST_NAMED_CLIENTS = 10
# What a window of 1,200 pixels leaves to the columns of keys, and what they take; keys that need more share one.
ROOM_FOR_KEYS, PIXELS_OF_A_CHARACTER, PIXELS_BETWEEN_COLUMNS = 430, 8, 15
MOST_CHARACTERS_OF_A_LINE = 24

_BACKBONE = EmbeddingSection.key_of("backbone").name

Pictures = dict[str, tuple[Markup, str]]


def page_of(
    results: Sequence[RunResult],
    averages: Sequence[SeedAverage],
    keys: Sequence[str],
    pictures: Pictures,
    failed: Sequence[FailedSetting] = (),
    confused: ConfusedClasses | None = None,
) -> str:
    """Write the page.

    Parameters
    ----------
    results : sequence of RunResult
        All runs of a folder.
    averages : sequence of SeedAverage
        The same runs, averaged, in the order of the table.
    keys : sequence of str
        Keys in which they differ.
    pictures : dict of str to (Markup, str)
        Address and caption of each picture.
    failed : sequence of FailedSetting
        Runs of the folder that could not be made.
    confused : ConfusedClasses, optional
        Which classes were taken for which.

    Returns
    -------
    str
        HTML; every text of others in it is escaped, and printable.
    """
    together = compare_command(results) if len(results) > 1 else None
    return (
        _environment()
        .get_template("report.html.jinja")
        .render(
            head=_common(results),
            keys=keys,
            own_columns=_fit_side_by_side(averages, keys),
            failed=[(s.label, s.seeds, text_without_folders(s.reason)) for s in failed],
            averages=averages,
            embeds=any(_BACKBONE not in unused_keys(run.config) for run in results),
            asked=[average for average in averages if not sends_nothing(average.method)],
            pictures=pictures,
            reading=[*reading(averages), *backbone_sentences(averages)],
            starts=_starts(averages),
            over_steps=[(a.label, step) for a in averages for step in step_averages(a)],
            diagnosed=[(a.values_label or a.method, a.diagnostic, a.accuracy) for a in averages if a.diagnostic],
            scored=[a for a in averages if a.average_if_known("label_correlation") is not None],
            powered=[(a.label, a.energy) for a in averages if a.energy],
            measured=[a for a in averages if a.average_if_known("macro_f1") is not None],
            confused=confused and confused.pairs(),
            by_samples=[
                (a.label, found) for a in averages if (found := a.accuracy_by_samples) and found.tells_apart
            ],
            most_of_few=MOST_OF_FEW,
            clients_get=[(a.label, a.client_accuracy) for a in averages if a.client_accuracy],
            rejected=_rejections(averages),
            nodes=_nodes(averages),
            influences=_influences(averages),
            num_runs=len(results),
            together=together and relative_command(together, results),
            commands=[_command(average, results) for average in averages],
            folders=names_of_paths(results),
        )
    )


def _environment() -> Environment:
    """Make jinja escape all text and print numbers that nobody knows as a dash."""
    environment = Environment(
        loader=PackageLoader("simulations"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_finalize,
    )
    environment.filters |= {"number": _number, "command": _whole_command}
    return environment


def _finalize(value: object) -> object:
    """Make whatever is put into the page printable; what is HTML already holds nothing of others."""
    return value if isinstance(value, Markup | int | float) else printable(value)


def _whole_command(command: str) -> Markup:
    """Keep the line ends of a command, which are part of quoted values, and make the rest printable."""
    return Markup("\n").join(escape(printable(line)) for line in command.split("\n"))


def _fit_side_by_side(averages: Sequence[SeedAverage], keys: Sequence[str]) -> bool:
    """Whether there is room for a column a key, of which headings are broken behind their hyphens."""
    pixels = 0
    for key in keys:
        values = [str(average.values.get(key, DASH)) for average in averages]
        longest = max(map(len, [*key.replace("-", "- ").split(), *values]))
        characters = min(longest, MOST_CHARACTERS_OF_A_LINE)
        pixels += characters * PIXELS_OF_A_CHARACTER + PIXELS_BETWEEN_COLUMNS
    return pixels <= ROOM_FOR_KEYS


def _number(value: float | None, form: str = ".2f", scale: float = 1) -> str:
    """Write a number by a format, scaled; a dash where it is unknown or has no end."""
    return DASH if value is None or not math.isfinite(value) else format(value * scale, form)


def _starts(averages: Sequence[SeedAverage]) -> list[list[str]]:
    """Lay out when each start is as accurate as each ends, with a row of headings; nothing for fewer than two."""
    starts, reached = how_soon(averages)
    if len(starts) < 2:
        return []
    ends = [f"{_number(start.accuracy, '.2f', 100)} % ({start.method})" for start in starts]
    rows = [[start.method, *map(_when, row)] for start, row in zip(starts, reached, strict=True)]
    return [["start", *ends], *rows]


def _when(reached: Reached | None) -> str:
    return DASH if reached is None else f"{reached.rounds} ({reached.megabytes:.1f} MB)"


def _common(results: Sequence[RunResult]) -> dict[str, object]:
    """Collect what all runs share: what is always worth saying, and every other key that is not at its default."""
    values = {key: found[0] for key, found in values_by_key(results).items() if len(found) == 1}
    defaults = default_config()
    said = always_said(values)
    said += [key for key, value in values.items() if key not in said and value != defaults[key]]
    return {key: without_folders(key, values[key]) for key in said}


def _command(average: SeedAverage, results: Sequence[RunResult]) -> tuple[str, str, str]:
    """Give a setting's label, its command, and the seeds that the command leaves out."""
    others = ", ".join(str(run.seed) for run in average.runs[1:])
    return average.label, relative_command(command_of(average.runs[0]), results), others


def _nodes(averages: Sequence[SeedAverage]) -> list[tuple[str, int, NodeResult, str]]:
    """List setting, seed, node, and what became of it."""
    return [
        (average.label, run.seed, node, text_without_folders(node.outcome))
        for average in averages
        for run in average.runs
        for node in run.nodes
    ]


def _influences(averages: Sequence[SeedAverage]) -> list[tuple[str, int, ClientInfluence]]:
    """List setting, seed, and the clients that have done most to the classifier."""
    return [
        (average.label, run.seed, client)
        for average in averages
        for run in average.runs
        for client in run.influence[:MOST_NAMED_CLIENTS]
    ]


def _rejections(averages: Sequence[SeedAverage]) -> list[tuple[str, int, str, str]]:
    """List setting, seed, clients and the reason they share."""
    rows = []
    for average in averages:
        for run in average.runs:
            clients: dict[str, list[str]] = {}
            for client, reason in run.rejected.items():
                clients.setdefault(text_without_folders(reason), []).append(client)
            rows += [(average.label, run.seed, _listed(ids), reason) for reason, ids in clients.items()]
    return rows


def _listed(clients: list[str]) -> str:
    ordered = sorted(clients, key=lambda client: (len(client), client))
    others = len(ordered) - MOST_NAMED_CLIENTS
    return ", ".join(ordered[:MOST_NAMED_CLIENTS]) + (f" and {others} others" if others > 0 else "")
