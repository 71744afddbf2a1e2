"""Solving again from the uploads that a run has kept: other heads, other clients, and nobody is asked."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from fedcof import UserError
from fedcof.data.problem import problem_of
from fedcof.heads.classifier import Classifier
from fedcof.heads.temperature import softmax_scale
from fedcof.keys import unknown_key
from fedcof.methods.base import backbone_scores, shrinkage_used
from fedcof.methods.projected import Projected
from fedcof.methods.robust import left_out
from fedcof.run.config import RunConfig
from fedcof.run.results import HEAD_FILE_NAME, NodeResult, RunResult
from fedcof.run.training import NO_TRAINING
from fedcof.statistics.base import Statistics
from server.evaluation import features_of, predictions_of
from server.influence import influence_of_clients
from server.intake import KEPT
from server.keeping import store_of
from server.kept_files import KeptUpload
from server.one_shot import OneShotStrategy
from server.row_cache import FEWEST_UPLOADS, RowCache
from server.run import class_samples, result_of, write_confusion
from server.run_strategy import strategy_of
from server.selection import ALL, Selection
from server.upload_store import UploadStore, kept_configs, stores_below


@dataclass(frozen=True, eq=False)
class Solved:
    """What kept uploads come to.

    Attributes
    ----------
    classifier : Classifier
        With the names of the classes.
    strategy : OneShotStrategy
        What the uploads were added to.
    uploads : dict of str to Statistics
        Those that it was solved from, in their order.
    left_out : dict of str to str
        Why others were not.
    rejected : dict of str to str
        Why some of those uploads were not believed.
    seconds : float
        Time that it took.
    """

    classifier: Classifier
    strategy: OneShotStrategy
    uploads: dict[str, Statistics]
    left_out: dict[str, str]
    rejected: dict[str, str]
    seconds: float


def solve_again(folder: Path, changes: Mapping[str, object], target: str, selection: Selection = ALL) -> RunResult:
    """Solve from a run's kept uploads, and write the classifier.

    Parameters
    ----------
    folder : Path
        The run's folder.
    changes : mapping
        Run-config keys to change: of those that only the server looks at.
    target : str
        Folder of the new classifier within it.
    selection : Selection
        Whose uploads.

    Returns
    -------
    RunResult
        Its accuracy is None where the server has no test images.

    Raises
    ------
    UserError
        If the folder keeps no uploads of that kind, a key is decided before the upload, nobody is left, or too few
        had come by the time that was asked for.
    """
    free = [name for name, known in RunConfig.declared().items() if known.after_upload]
    for key in changes:
        if key not in RunConfig.declared():
            raise unknown_key(key, list(RunConfig.declared()))
        if key not in free:
            raise UserError(
                f"The key {key} is decided before the uploads, so it cannot be changed for these: set one of "
                f"{', '.join(free)}, or run again."
            )
    config, store = kept_run(folder, changes)
    return written(folder, target, config, solved_from(store, selection))


def solved_from(
    store: UploadStore,
    selection: Selection = ALL,
    cached: bool = True,
    instead: Mapping[str, Statistics] | None = None,
) -> Solved:
    """Solve from kept uploads, in the one order that they have.

    Parameters
    ----------
    store : UploadStore
        With the run's configuration.
    selection : Selection
        Whose.
    cached : bool
        False to read every upload from its own file.
    instead : mapping of str to Statistics, optional
        What is added in the place of some uploads, by their names.

    Returns
    -------
    Solved
        To the last bit that of a federation of these clients alone.

    Raises
    ------
    UserError
        As :func:`solve_again`.
    """
    started = time.perf_counter()
    strategy = strategy_of(store.config)
    cache = RowCache(store.folder) if cached else None
    uploads = store.uploads(cache.read_noted) if cache else store.uploads()
    not_chosen = selection.left_out(uploads, store.folder)
    if selection.as_of:
        _check_quorum(store.config, len(uploads) - len(not_chosen), selection.as_of)
    chosen = [upload for name, upload in uploads.items() if name not in not_chosen]
    read = read_uploads(strategy, store, chosen, cache)
    read = [(instead or {}).get(upload.name, one) for upload, one in zip(chosen, read, strict=True)]
    for number, statistics in enumerate(read):
        strategy.aggregator.add(statistics, number)
    against = left_out(strategy.aggregator)
    believed = [one for number, one in enumerate(read) if number not in against]
    class_ids, counts = (torch.cat([getattr(one, name) for one in believed]) for name in ("class_ids", "counts"))
    strategy.class_samples.index_add_(0, class_ids, counts)
    solved = strategy.solve()
    seconds = round(time.perf_counter() - started, 3)
    names = problem_of(store.config).class_names
    held = dict(zip((upload.name for upload in chosen), read, strict=True))
    rejected = {chosen[number].name: reason for number, reason in against.items()}
    return Solved(solved.named(names), strategy, held, not_chosen, rejected, seconds)


def read_uploads(
    strategy: OneShotStrategy, store: UploadStore, chosen: Sequence[KeptUpload], cache: RowCache | None = None
) -> list[Statistics]:
    """Read kept uploads as what the aggregator adds.

    Parameters
    ----------
    strategy : OneShotStrategy
        Of the store's run.
    store : UploadStore
        Where they are.
    chosen : sequence of KeptUpload
        Which.
    cache : RowCache, optional
        What has been decoded before.

    Returns
    -------
    list of Statistics
        In their order.

    Raises
    ------
    UserError
        If one cannot be used in this run.
    """

    def decode(uploads: Sequence[KeptUpload]) -> list[Statistics]:
        return [strategy.read_kept(sent) for sent in store.load(uploads)]

    store.check(chosen)
    # Rows under a promise of privacy note its noise as they are read, and those before a map are mapped one by one.
    plain = not store.config.privacy.epsilon and not isinstance(strategy.aggregator, Projected)
    if cache is None or not plain or len(chosen) < FEWEST_UPLOADS:
        return decode(chosen)
    return cache.rows(chosen, decode)


def written(folder: Path, target: str, config: RunConfig, solved: Solved) -> RunResult:
    """Write a classifier, and say what it is worth.

    Parameters
    ----------
    folder : Path
        The run's folder.
    target : str
        Folder of the classifier within it.
    config : RunConfig
        What was solved.
    solved : Solved
        What it came to.

    Returns
    -------
    RunResult
        With who was left out.
    """
    classifier, strategy = solved.classifier, solved.strategy
    (folder / target).mkdir(parents=True, exist_ok=True)
    classifier.save(folder / target / HEAD_FILE_NAME)
    nats = softmax_scale(classifier, strategy.aggregator.class_means())
    predictions = predictions_of(classifier, config, features_of(config), nats)
    write_confusion(folder / target, predictions)
    # Of all clients of a simulation it is known without their uploads, which may have left out some.
    some = solved.left_out or solved.rejected
    samples = strategy.class_samples.numpy() if some else class_samples(config, strategy.class_samples)
    return replace(
        result_of(config, predictions, samples),
        clients=len(solved.uploads) - len(solved.rejected),
        clients_rejected=len(solved.rejected),
        rejected=solved.rejected,
        seconds=solved.seconds,
        shrinkage=shrinkage_used(strategy.aggregator),
        **asdict(backbone_scores(strategy.aggregator)),
        nats_per_score=nats,
        nodes=_nodes(solved) if config.data.on_nodes else [],
        influence=influence_of_clients(strategy.aggregator, config, dict(enumerate(solved.uploads))),
        without=solved.left_out,
        head=(Path(target) / HEAD_FILE_NAME).as_posix(),
    )


def _nodes(solved: Solved) -> list[NodeResult]:
    outcomes = {name: f"left out: {reason}" for name, reason in solved.rejected.items()}
    taken = [
        NodeResult(name, outcomes.get(name, KEPT), int(one.counts.sum()), one.counts.numel())
        for name, one in solved.uploads.items()
    ]
    return [*taken, *(NodeResult(name, f"left out: {reason}") for name, reason in solved.left_out.items())]


def kept_run(folder: Path, changes: Mapping[str, object]) -> tuple[RunConfig, UploadStore]:
    """Find the kept uploads that a run can be solved from.

    Parameters
    ----------
    folder : Path
        The run's folder.
    changes : mapping
        Run-config keys that are other than when the uploads came.

    Returns
    -------
    config : RunConfig
        What is to be solved.
    store : UploadStore
        Its uploads.

    Raises
    ------
    UserError
        If there are none.
    """
    for kept in kept_configs(folder):
        # Whatever was trained afterwards, it started from these.
        asked = kept.replaced(continue_=NO_TRAINING).to_mapping()
        config = RunConfig.from_mapping({**asked, **changes})
        if not UploadStore(folder, config).is_empty:
            return config, store_of(folder, config)
    raise no_uploads(folder)


def no_uploads(folder: Path) -> UserError:
    """Make the error for a folder without kept uploads, with the folders in it that have some."""
    below = sorted({str(place) for place, _ in stores_below(folder) if place != folder})
    if below:
        return UserError(
            f"The folder {folder} itself keeps no uploads, but {', '.join(below)} do: name one of these."
        )
    return UserError(
        f"The folder {folder} keeps no uploads that this method can be solved from: name the output folder of a "
        f"run on nodes, or of a simulation with -c {_KEEP}=true, and a method of the same statistics."
    )


_KEEP = next(known.name for known in RunConfig.declared().values() if known.attribute == "keep_uploads")


def _check_quorum(config: RunConfig, left: int, as_of: str) -> None:
    expected, quorum = config.data.num_clients, config.participation.quorum
    if left < max(quorum * expected, 1):
        raise UserError(
            f"Only {left} of {expected} clients had sent an upload by {as_of}, fewer than the quorum of "
            f"{quorum:g}, with which there was no classifier then: name a later date, or lower the quorum with -c."
        )
