"""Solving again from the uploads that a run has kept: another head, another shrinkage, and no node is asked."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

from fedcof import UserError
from fedcof.data.problem import fingerprint_of, problem_of
from fedcof.heads.temperature import softmax_scale
from fedcof.keys import unknown_key
from fedcof.methods.base import backbone_scores, shrinkage_used
from fedcof.methods.robust import left_out
from fedcof.run.config import RunConfig
from fedcof.run.results import HEAD_FILE_NAME, NodeResult, RunResult
from fedcof.run.training import NO_TRAINING
from server.evaluation import features_of, predictions_of
from server.influence import influence_of_clients
from server.intake import KEPT
from server.run import class_samples, result_of, write_confusion
from server.run_strategy import strategy_of
from server.upload_store import UploadStore, kept_configs


def solve_again(folder: Path, changes: Mapping[str, object], target: str) -> RunResult:
    """Solve from a run's kept uploads, and write the classifier.

    Parameters
    ----------
    folder : Path
        The run's folder.
    changes : mapping
        Run-config keys to change: of those that only the server looks at.
    target : str
        Folder of the new classifier within it.

    Returns
    -------
    RunResult
        Its accuracy is None where the server has no test images.

    Raises
    ------
    UserError
        If the folder keeps no uploads of that kind, or a key is decided before the upload.
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
    config, store = _kept(folder, changes)
    strategy = strategy_of(config)
    started = time.perf_counter()
    nodes, counts = [], []
    for number, name in enumerate(store.names()):
        sent = store.read(name)
        if sent is None:
            raise UserError(
                f"The kept upload of {name} in {store.folder} is damaged, or of another backbone: run the "
                "federation again."
            )
        upload = strategy.read_upload(sent)
        strategy.aggregator.add(upload, number)
        counts.append((upload.class_ids, upload.counts))
        nodes.append(NodeResult(name, KEPT, int(upload.counts.sum()), upload.counts.numel()))
    rejected = left_out(strategy.aggregator)
    for number, (class_ids, of_rows) in enumerate(counts):
        if number in rejected:
            nodes[number] = replace(nodes[number], outcome=f"left out: {rejected[number]}")
        else:
            strategy.class_samples.index_add_(0, class_ids, of_rows)
    solved = strategy.solve()
    seconds = round(time.perf_counter() - started, 3)
    classifier = solved.named(problem_of(config).class_names)
    (folder / target).mkdir(parents=True, exist_ok=True)
    classifier.save(folder / target / HEAD_FILE_NAME)
    nats = softmax_scale(classifier, strategy.aggregator.class_means())
    predictions = predictions_of(classifier, config, features_of(config), nats)
    write_confusion(folder / target, predictions)
    return replace(
        result_of(config, predictions, class_samples(config, strategy.class_samples)),
        clients=len(nodes) - len(rejected),
        clients_rejected=len(rejected),
        rejected={str(number): reason for number, reason in rejected.items()},
        seconds=seconds,
        shrinkage=shrinkage_used(strategy.aggregator),
        **asdict(backbone_scores(strategy.aggregator)),
        nats_per_score=nats,
        nodes=nodes,
        influence=influence_of_clients(strategy.aggregator, config, dict(enumerate(store.names()))),
        head=(Path(target) / HEAD_FILE_NAME).as_posix(),
    )


def _kept(folder: Path, changes: Mapping[str, object]) -> tuple[RunConfig, UploadStore]:
    for kept in kept_configs(folder):
        # Whatever was trained afterwards, it started from these.
        asked = kept.replaced(continue_=NO_TRAINING).to_mapping()
        config = RunConfig.from_mapping({**asked, **changes})
        if UploadStore(folder, config).names():
            return config, UploadStore(folder, config, fingerprint_of(config))
    raise UserError(
        f"The folder {folder} keeps no uploads that this method can be solved from: name the output folder of a "
        "run on nodes, and a method of the same statistics."
    )
