"""Forgetting a client: what was made with its upload is found, removed and, where possible, made again without."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from fedcof.data.class_list import places_of
from fedcof.data.problem import problem_of
from fedcof.errors import UserError
from fedcof.heads.classifier import Classifier
from fedcof.run.config import RunConfig
from fedcof.run.results import FILE_NAME, RunResult, load_results, write_results
from fedcof.run.training import NO_TRAINING
from fedcof.statistics.class_means import ClassMeans
from server.corrected import corrected, decoded, without_classes
from server.intake import NO_UPLOAD
from server.keeping import store_of
from server.name_book import NameBook
from server.resolving import no_uploads, solved_from, written
from server.row_cache import clear_rows
from server.run_strategy import strategy_of
from server.selection import Selection, unknown_client
from server.upload_store import UploadStore, stores_below
from simulations.folder_contents import Contents, contents

SOLVED = "solved"


@dataclass(frozen=True)
class Affected:
    """A result that was made with the client.

    Attributes
    ----------
    folder : Path
        Whose results.json has it.
    result : RunResult
        As it stands there.
    place : Path or None
        The run whose kept uploads it can be solved from again; None where there are none.
    config : RunConfig or None
        What is then solved: the closed form that training started from, where it was trained.
    """

    folder: Path
    result: RunResult
    place: Path | None = None
    config: RunConfig | None = None

    @property
    def was_trained(self) -> bool:
        """Whether it is more than a closed form of the uploads."""
        return self.result.run_config().training.follows

    @property
    def target(self) -> str:
        """Folder, within the run's, of the classifier that is solved in its place."""
        assert self.place is not None
        head = (self.folder / self.result.head).parent
        if self.result.without:
            # Its name says whom it was solved without, or with.
            return f"{SOLVED}-{hashlib.sha256(repr(self.result.without).encode()).hexdigest()[:8]}"
        return SOLVED if self.was_trained else head.relative_to(self.place).as_posix()


@dataclass(frozen=True)
class Forgetting:
    """What is to be done to forget a client, or classes of it.

    Attributes
    ----------
    folder : Path
        Of one run, or of a comparison.
    name : str
        The node's name, or the client's number.
    classes : tuple of str
        Labels that are taken out of its upload; none for all of it.
    stores : list of (Path, RunConfig)
        The runs that keep an upload of it.
    affected : list of Affected
        The results that were made with it.
    found : Contents
        The files that are there.
    """

    folder: Path
    name: str
    classes: tuple[str, ...]
    stores: list[tuple[Path, RunConfig]]
    affected: list[Affected]
    found: Contents

    @property
    def uploads(self) -> list[Path]:
        """Files that hold its upload."""
        files = []
        for place, config in self.stores:
            store = UploadStore(place, config)
            files.append(store.folder / store.uploads()[self.name].file)
        return files


@dataclass(frozen=True)
class Remade:
    """A classifier that was solved again.

    Attributes
    ----------
    head : Path
        Its file.
    clients : int
        Of whose uploads.
    equals : bool
        Whether it is, to the last bit, the one that was solved of the others before anything was removed.
    was_trained : bool
        Whether what it takes the place of was trained on.
    """

    head: Path
    clients: int
    equals: bool
    was_trained: bool


def planned(folder: Path, name: str, classes: Sequence[str] = ()) -> Forgetting:
    """Find all that was made with a client's upload.

    Parameters
    ----------
    folder : Path
        Output folder of one run, or of a comparison.
    name : str
        The node's name, or the simulated client's number.
    classes : sequence of str
        Labels, where only these samples' rows are to go.

    Returns
    -------
    Forgetting
        Nothing is done yet.

    Raises
    ------
    UserError
        If the folder keeps no upload of that name, or a class is none of the run's.
    """
    if not (stores := stores_below(folder)):
        raise no_uploads(folder)
    kept = {(place, config.digest): UploadStore(place, config).names() for place, config in stores}
    having = [(place, config) for place, config in stores if name in kept[place, config.digest]]
    if not having:
        raise unknown_client(name, sorted({one for names in kept.values() for one in names}), folder)
    for _, config in having:
        _places_of_classes(config, classes)
    places = {place for place, _ in having}
    affected = [
        _affected(path.parent, result, places)
        for path in sorted(folder.rglob(FILE_NAME))
        for result in load_results(path.parent)
        if _was_made_with(result, name, _place_of(path.parent, result, places) is not None)
    ]
    runs = places | {(one.folder / one.result.head).parent for one in affected} | {one.folder for one in affected}
    return Forgetting(folder, name, tuple(classes), having, affected, contents(folder, runs))


def carried_out(plan: Forgetting) -> list[Remade]:
    """Forget: remove, solve again, and compare with what the others alone come to.

    Parameters
    ----------
    plan : Forgetting
        What :func:`planned` has found.

    Returns
    -------
    list of Remade
        The classifiers that were solved again; none where nobody is left.

    Raises
    ------
    UserError
        If what is left cannot be solved, in which case nothing has been removed.
    """
    expected = [(one, _expected(plan, one)) for one in _different(plan)]
    corrections = [_correction(plan, place, config) for place, config in plan.stores]
    # Uploads go last: whatever breaks this off, the same command then goes on with the rest.
    for path in plan.found.made:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    for folder in {one.folder for one in plan.affected}:
        gone = [one.result for one in plan.affected if one.folder == folder]
        write_results(folder, [result for result in load_results(folder) if result not in gone])
    for (place, _), (store, rows) in zip(plan.stores, corrections, strict=True):
        if rows is None:
            store.remove(plan.name)
            NameBook(place).forget(plan.name)
        else:
            store.correct(store.uploads()[plan.name], corrected(rows), rows)
        clear_rows(store.folder)
    for place in {(one.folder / one.result.head).parent for one in plan.affected}:
        with suppress(OSError):
            place.rmdir()
    return [_made_again(plan, one, classifier) for one, classifier in expected if classifier is not None]


def _different(plan: Forgetting) -> list[Affected]:
    """List what is to be solved again: of results that come to the same once the client is gone, the first."""
    found: dict[str, Affected] = {}
    for one in plan.affected:
        if one.place is not None and one.config is not None:
            found.setdefault(repr((one.place, one.config, _selection(plan, one))), one)
    return list(found.values())


def _made_again(plan: Forgetting, one: Affected, expected: Classifier) -> Remade:
    """Solve from the files alone, by another way than what is expected was solved by."""
    assert one.place is not None
    assert one.config is not None
    solved = solved_from(store_of(one.place, one.config), _selection(plan, one), cached=False)
    reasons = {name: one.result.without.get(name, reason) for name, reason in solved.left_out.items()}
    result = written(one.place, one.target, one.config, replace(solved, left_out=reasons))
    head = one.place / result.head
    kept = [run for run in load_results(one.folder) if (run.config, run.without) != (result.config, result.without)]
    write_results(one.folder, [*kept, replace(result, head=head.relative_to(one.folder).as_posix())])
    return Remade(head, result.clients, same_bits(solved.classifier, expected), one.was_trained)


def same_bits(one: Classifier, other: Classifier) -> bool:
    """Say whether two classifiers are the same to the last bit.

    Parameters
    ----------
    one, other : Classifier
        The classifiers.

    Returns
    -------
    bool
        Whether all their arrays are.
    """
    if type(one) is not type(other) or vars(one).keys() != vars(other).keys():
        return False
    return all(
        torch.equal(value, vars(other)[name]) if isinstance(value, Tensor) else value == vars(other)[name]
        for name, value in vars(one).items()
    )


def _expected(plan: Forgetting, one: Affected) -> Classifier | None:
    """Solve of the others alone while all uploads are still there; None where nobody is left."""
    assert one.place is not None
    assert one.config is not None
    store = store_of(one.place, one.config)
    if plan.classes:
        upload = _corrected_upload(plan, store)
        instead = {plan.name: strategy_of(one.config).take_decoded(upload)}
        return solved_from(store, _selection(plan, one), instead=instead).classifier
    if set(store.names()) == {plan.name, *one.result.without}:
        return None
    return solved_from(store, _selection(plan, one, plan.name)).classifier


def _selection(plan: Forgetting, one: Affected, *more: str) -> Selection:
    """Leave out whom the result leaves out, apart from a client that is gone, and more."""
    gone = "" if plan.classes else plan.name
    return Selection(without=(*(name for name in one.result.without if name != gone), *more))


def _correction(plan: Forgetting, place: Path, config: RunConfig) -> tuple[UploadStore, ClassMeans | None]:
    """Give a store, and what takes the place of the upload there; None where nothing does."""
    if not plan.classes:
        return UploadStore(place, config), None
    store = store_of(place, config)
    return store, _corrected_upload(plan, store)


def _corrected_upload(plan: Forgetting, store: UploadStore) -> ClassMeans:
    (sent,) = store.load([store.uploads()[plan.name]])
    return without_classes(decoded(sent), torch.tensor(_places_of_classes(store.config, plan.classes)))


def _places_of_classes(config: RunConfig, classes: Sequence[str]) -> list[int]:
    names = problem_of(config).class_names if classes else ()
    found = places_of(names, classes)
    for label, place in zip(classes, found, strict=True):
        if place < 0:
            raise unknown_label(label, names)
    return found


def unknown_label(label: str, names: Sequence[str]) -> UserError:
    """Make the error for a class that the run does not have."""
    return UserError(f"The run has no class {label!r}: name one of {', '.join(names)}.")


def _place_of(folder: Path, result: RunResult, places: set[Path]) -> Path | None:
    """Find the run whose uploads a result was made of: the nearest above its classifier."""
    head = (folder / result.head).parent
    return next((place for place in (head, *head.parents) if place in places), None)


def _affected(folder: Path, result: RunResult, places: set[Path]) -> Affected:
    place = _place_of(folder, result, places)
    if place is None:
        return Affected(folder, result)
    config = RunConfig.from_mapping(result.config)
    if config.training.follows:
        config = config.replaced(continue_=NO_TRAINING)
    can_be_solved = bool(UploadStore(place, config).names())
    return Affected(folder, result, place if can_be_solved else None, config if can_be_solved else None)


def _was_made_with(result: RunResult, name: str, has_upload: bool) -> bool:
    config = result.run_config()
    if not config.data.on_nodes:
        # What rejects an upload does not keep a client from training.
        return has_upload or name not in result.rejected or config.training.follows
    outcomes: Mapping[str, str] = {node.name: node.outcome for node in result.nodes}
    return has_upload or outcomes.get(name, NO_UPLOAD) != NO_UPLOAD
