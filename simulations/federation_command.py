"""What ``fedcof federation``, ``solve`` and ``forget`` do, and what they say of it."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from itertools import starmap
from pathlib import Path

import typer

from fedcof.errors import UserError
from fedcof.run.config import RunConfig
from fedcof.run.results import FILE_NAME, RunResult, append_result, load_results
from server.corrected import TAG, decoded
from server.kept_files import UNKNOWN, KeptUpload, noted_of
from server.resolving import no_uploads, solve_again
from server.selection import Selection
from server.upload_store import UploadStore, stores_below
from simulations.commands import show_results
from simulations.folder_contents import PAGE_FILE_NAME
from simulations.forgetting import Forgetting, Remade, carried_out, planned
from simulations.scenario import absolute_value, is_path, parse_override
from simulations.terminal import TextTable, console, say

LONGEST_TARGET = 80


def show_federation(folder: Path) -> None:
    """List the kept uploads of a folder, and the classifiers that were made with them.

    Parameters
    ----------
    folder : Path
        Output folder of one run, or of a comparison.

    Raises
    ------
    UserError
        If it keeps none.
    """
    if not (stores := stores_below(folder)):
        raise no_uploads(folder)
    for place, config in stores:
        store = UploadStore(place, config)
        table = TextTable(["name", "came at", "written as"], ["samples", "rows", "classes", "bytes"], ["classes"])
        uploads = [_counted(store, upload) for upload in store.uploads().values()]
        for upload in uploads:
            counts = [_known(count) for count in (upload.samples, upload.rows, upload.held)]
            table.add_texts(
                upload.name, f"{upload.time:%Y-%m-%d %H:%M:%S}", _way(upload), *counts, upload.num_bytes
            )
        console.print(table)
        samples, rows, size = (
            sum(max(getattr(one, name), 0) for one in uploads) for name in ("samples", "rows", "num_bytes")
        )
        say(
            f"{len(uploads)} uploads of {samples} samples in {rows} rows, {size / 1e6:.2f} MB, times in UTC: "
            f"{store.folder}"
        )
        for path, result in _results_below(folder):
            if _is_of(store, place, path.parent / result.head, result):
                say(f"Made with them: {_described(path.parent, result)}")


def solve(folder: Path, settings: list[str], selection: Selection) -> None:
    """Solve again from the uploads that a run has kept, and show all that the folder holds.

    Parameters
    ----------
    folder : Path
        The run's folder.
    settings : list of str
        What is to be different, as for :func:`simulations.scenario.parse_override`.
    selection : Selection
        Whose uploads.

    Raises
    ------
    UserError
        If there are none, or a key is decided before the uploads.
    """
    changes = dict(map(parse_override, settings))
    words = ["solved", *(f"{key}-{value}" for key, value in changes.items() if not is_path(key, value))]
    words += selection.words()
    target = "_".join("".join(c if c.isalnum() or c in ".-" else "-" for c in word) for word in words)
    if len(target) > LONGEST_TARGET:
        target = f"{target[:LONGEST_TARGET]}-{hashlib.sha256(repr((words, selection)).encode()).hexdigest()[:8]}"
    result = solve_again(folder, dict(starmap(absolute_value, changes.items())), target, selection)
    append_result(folder, result)
    show_results(load_results(folder), folder)
    if result.without:
        left = list(result.without.items())
        others = f" and {len(left) - 1} others" if len(left) > 1 else ""
        say(f"Of {result.clients} clients' uploads: without {left[0][0]} ({left[0][1]}){others}.")


def forget(folder: Path, name: str, classes: Sequence[str], yes: bool) -> None:
    """Forget a client, or classes of it, once whoever asks has seen what is removed.

    Parameters
    ----------
    folder : Path
        Output folder of one run, or of a comparison.
    name : str
        The node's name, or the simulated client's number.
    classes : sequence of str
        Labels, where only these samples' rows are to go.
    yes : bool
        Whether nobody is asked.

    Raises
    ------
    UserError
        If there is no such upload, nobody can be asked, or what is left cannot be solved.
    """
    plan = planned(folder, name, classes)
    if not yes and not sys.stdin.isatty():
        raise UserError(
            "Forgetting removes files, and there is no terminal to ask in: look at them, and add --yes."
        )
    _say_plan(plan)
    if not yes and not typer.confirm("Go on?"):
        say("Nothing was removed.")
        return
    had_report = (folder / PAGE_FILE_NAME).exists()
    remade = carried_out(plan)
    for one in remade:
        _say_remade(one, plan)
    for gone in plan.affected:
        if gone.place is None:
            say(
                f"Not made again, because no uploads are kept of it: {_described(gone.folder, gone.result)}",
                "yellow",
            )
    if had_report and load_results(folder):
        from simulations.report.writing import write_report

        say(f"The report is {write_report(folder)}, made again.")
    _say_what_is_left(plan, remade)
    if not all(one.equals for one in remade):
        raise UserError(
            f"What was solved again in {folder} is not the classifier of the others alone: the files have changed "
            "meanwhile, so solve once more and look at them."
        )


def _say_plan(plan: Forgetting) -> None:
    what = f"the classes {', '.join(plan.classes)} of {plan.name}" if plan.classes else plan.name
    say(f"To forget {what} in {plan.folder}:")
    changes = "changed, or its pack written anew" if plan.classes else "removed, or its pack written anew"
    for path in plan.uploads:
        say(f"  {changes}: {path.relative_to(plan.folder)}")
    for path in plan.found.made:
        say(f"  removed: {path.relative_to(plan.folder)}")
    for one in plan.affected:
        again = "solved again" if one.place else "not made again: no uploads are kept of it"
        say(f"  taken out of {FILE_NAME}, and {again}: {_described(one.folder, one.result)}")


def _say_remade(one: Remade, plan: Forgetting) -> None:
    others = "the others alone" if not plan.classes else "the others and what is left of it"
    if one.equals:
        say(f"{one.head}: solved from {one.clients} uploads; to the last bit the classifier of {others}.")
    else:
        say(f"{one.head}: solved from {one.clients} uploads; NOT the classifier of {others}.", "red")


def _say_what_is_left(plan: Forgetting, remade: Sequence[Remade]) -> None:
    if not remade:
        say("Nobody's upload is left to solve from, so there is no classifier any more.", "yellow")
    if any(one.was_trained for one in plan.affected):
        on_nodes = any(config.data.on_nodes for _, config in plan.stores)
        how = (
            "flwr run with the same run-config trains again from the new closed form, on the nodes that are there"
            if on_nodes
            else "a simulation trains all clients that its dataset deals, so only the closed form is without it"
        )
        say(
            f"What was trained cannot be forgotten exactly, so its networks and checkpoints are removed: {how}.",
            "yellow",
        )
    for path in plan.found.may_name:
        say(f"Left, and may name it: {path.relative_to(plan.folder)}")
    for path in plan.found.unknown:
        say(f"Left, as no command of fedcof writes it: {path.relative_to(plan.folder)}")
    say(
        "Out of reach: copies, exports and predictions elsewhere, what clients were sent, backups, and the "
        "client's own data, notes and caches. A node that is still connected is asked again by the next run."
    )


def _counted(store: UploadStore, upload: KeptUpload) -> KeptUpload:
    """Count an upload of an earlier version, which notes nothing."""
    if upload.rows != UNKNOWN or upload.damage:
        return upload
    (sent,) = store.load([upload])
    return noted_of(upload.name, upload.file, sent, decoded(sent), arrived=upload.arrived)


def _known(count: int) -> str:
    return "?" if count == UNKNOWN else str(count)


def _way(upload: KeptUpload) -> str:
    if upload.damage:
        return f"damaged: {upload.damage}"
    return f"{upload.tag} (without some classes)" if upload.tag == TAG else upload.tag or "unsaid"


def _results_below(folder: Path) -> list[tuple[Path, RunResult]]:
    return [(path, result) for path in sorted(folder.rglob(FILE_NAME)) for result in load_results(path.parent)]


def _is_of(store: UploadStore, place: Path, head: Path, result: RunResult) -> bool:
    """Say whether a classifier was made with a store's uploads."""
    if not head.is_relative_to(place):
        return False
    return UploadStore(place, RunConfig.from_mapping(result.config)).folder == store.folder


def _described(folder: Path, result: RunResult) -> str:
    without = f", without {', '.join(list(result.without)[:3])}" if result.without else ""
    more = f" and {len(result.without) - 3} others" if len(result.without) > 3 else ""
    trained = ", trained on" if result.run_config().training.follows else ""
    accuracy = "unknown" if result.accuracy is None else f"{100 * result.accuracy:.2f} %"
    return f"{folder / result.head} ({result.method}, {result.clients} clients{without}{more}{trained}, {accuracy})"
