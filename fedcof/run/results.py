"""results.json: one object a run, always whole on disk."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, is_dataclass, replace
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from fedcof.covariance.diagnostic import CovarianceDiagnostic
from fedcof.errors import UserError
from fedcof.files import write_whole
from fedcof.run.client_accuracy import ClientAccuracy
from fedcof.run.config import RunConfig
from fedcof.run.energy import EnergyUse
from fedcof.run.influence import ClientInfluence
from fedcof.run.sample_groups import AccuracyBySamples
from fedcof.run.steps import StepResult

FILE_NAME = "results.json"
HEAD_FILE_NAME = "head.safetensors"
FEDERATION_FILE_NAME = "federation.npz"
BACKBONE_FILE_NAME = "backbone.safetensors"
FORMAT = 1

START, TRAIN, ANEW = "start", "train", "anew"


@dataclass(frozen=True)
class RoundResult:
    """How far a run was after one of its rounds.

    Attributes
    ----------
    round : int
        Number of the round, from 1.
    clients : int
        Clients whose upload was used: so far at the start, in this round afterwards.
    accuracy : float or None
        Accuracy on the test split, from 0 to 1; None where nobody may know it.
    uplink_bytes, downlink_bytes : int
        Bytes of all messages so far.
    phase : str
        ``start`` for the classifier of the uploads (or of round 0, one drawn at random), ``train`` after a round of
        training, ``anew`` for the classifier that was solved anew after all training.
    loss : float or None
        Mean cross-entropy of the clients that trained, in nats.
    client_accuracy, worst_tenth_accuracy : float or None
        Mean accuracy of the clients on the samples that they keep for it, and that of the worst tenth of them.
    """

    round: int
    clients: int
    accuracy: float | None
    uplink_bytes: int
    downlink_bytes: int
    phase: str = START
    loss: float | None = None
    client_accuracy: float | None = None
    worst_tenth_accuracy: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "accuracy", _known(self.accuracy))


@dataclass(frozen=True)
class NodeResult:
    """What became of a node with data of its own.

    Attributes
    ----------
    name : str
        Its name.
    outcome : str
        A clause: accepted, or why not.
    samples, rows, withheld : int
        Samples that it has (those behind its rows, where an earlier run asked it), rows that it sent, and rows that
        its policy withheld.
    """

    name: str
    outcome: str
    samples: int = 0
    rows: int = 0
    withheld: int = 0


@dataclass(frozen=True)
class RunResult:
    """What one run came to.

    Attributes
    ----------
    method : str
        The method's name.
    seed : int
        The run's seed.
    accuracy : float or None
        Share of the test split classified rightly, from 0 to 1; of the clients' samples, where the server has no
        test split; None where nobody may know it.
    uplink_bytes, downlink_bytes : int
        Bytes of all clients' messages as Flower serialises them.
    clients, clients_rejected : int
        Clients whose upload was used, and clients that failed or did not answer.
    seconds : float
        Time from the first message to the classifier.
    config : dict
        The whole run-config.
    rejected : dict
        Why each client was left out, by client number; by its name where its kept upload was solved again.
    head : str
        The classifier's file, relative to results.json.
    class_names : list of str
        Names of the classes.
    class_accuracy : list of float or None
        Accuracy on the test samples of each class; None for a class without any.
    rounds : list of RoundResult
        How the run went, round by round.
    expected_uplink_bytes : int
        What a formula says the uploads weigh: the arrays' own bytes, without any overhead.
    best_accuracy : float or None
        The highest known accuracy after any round since training began; the network is kept beside the last.
    best_round : int or None
        Its round.
    nodes : list of NodeResult
        What became of every node with data of its own; empty for a simulation.
    covariance : CovarianceDiagnostic or None
        How good the covariance was, where the run was asked to say.
    shrinkage : float or None
        Amount of shrinkage that was used, as it was given or chosen; None where there is none, or it was not kept.
    client_accuracy : ClientAccuracy or None
        What the classifier is worth on each client's own kind of samples; None where the server does not know them.
    nats_per_score : float or None
        What the classifier's scores are multiplied by to be in nats, as a prior needs them; None of an earlier
        version's run.
    left_out : dict
        Bad images that were left out: for each split that has any, their number by class.
    balanced_accuracy, macro_f1 : float or None
        Accuracy on a class and F1 score of a class on the server's test split, from 0 to 1, as means over classes;
        None without one, and for runs of earlier versions.
    calibration_error : float or None
        Expected calibration error there, from 0 to 1.
    accuracy_by_samples : AccuracyBySamples or None
        Accuracy there of classes with no, few and many training samples apart; None where nobody knows how many
        there are of each, and for runs of earlier versions.
    label_correlation, leave_one_out_likelihood, class_information : float or None
        What the statistics say of the backbone without a test image, see
        :class:`fedcof.covariance.backbone_scores.BackboneScores`; None too for runs of earlier versions.
    energy : EnergyUse or None
        What it took of energy; None where that was not measured.
    influence : list of ClientInfluence
        What single clients have done to the classifier of the uploads, the most first; empty where nobody asked.
    without : dict of str to str
        Why clients whose uploads are kept were left out of what was solved again, by their names.
    steps : list of StepResult
        How it went where clients or classes came in steps; empty where all were there at once.
    format : int
        Version of these fields.
    """

    method: str
    seed: int
    accuracy: float | None
    uplink_bytes: int
    downlink_bytes: int
    clients: int
    clients_rejected: int
    seconds: float
    config: dict[str, Any]
    rejected: dict[str, str] = field(default_factory=dict)
    head: str = HEAD_FILE_NAME
    class_names: list[str] = field(default_factory=list)
    class_accuracy: list[float | None] = field(default_factory=list)
    rounds: list[RoundResult] = field(default_factory=list)
    expected_uplink_bytes: int = 0
    best_accuracy: float | None = None
    best_round: int | None = None
    nodes: list[NodeResult] = field(default_factory=list)
    covariance: CovarianceDiagnostic | None = None
    shrinkage: float | None = None
    client_accuracy: ClientAccuracy | None = None
    nats_per_score: float | None = None
    left_out: dict[str, dict[str, int]] = field(default_factory=dict)
    balanced_accuracy: float | None = None
    macro_f1: float | None = None
    calibration_error: float | None = None
    accuracy_by_samples: AccuracyBySamples | None = None
    label_correlation: float | None = None
    leave_one_out_likelihood: float | None = None
    class_information: float | None = None
    energy: EnergyUse | None = None
    influence: list[ClientInfluence] = field(default_factory=list)
    without: dict[str, str] = field(default_factory=dict)
    steps: list[StepResult] = field(default_factory=list)
    format: int = FORMAT

    def __post_init__(self) -> None:
        object.__setattr__(self, "accuracy", _known(self.accuracy))
        object.__setattr__(self, "best_accuracy", _known(self.best_accuracy))

    def run_config(self) -> RunConfig:
        """Read the run-config, which may be one of another version, to be looked at."""
        return RunConfig.loosely(self.config)


def load_results(folder: Path) -> list[RunResult]:
    """Read the results of a folder.

    Parameters
    ----------
    folder : Path
        Folder of one or several runs.

    Returns
    -------
    list of RunResult
        In the order in which the runs ended; empty where none has.

    Raises
    ------
    UserError
        If the file is not a results file of this version.
    """
    path = folder / FILE_NAME
    if not path.exists():
        return []
    try:
        # To open a pipe would wait for somebody to write to it.
        if not path.is_file():
            raise TypeError
        runs = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(runs, list):
            raise TypeError
        if any(run["format"] != FORMAT for run in runs):
            raise UserError(
                f"The file {path} was written by another version of fedcof: "
                "name a new output folder, or run its runs again."
            )
        results = [_run_result(run) for run in runs]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise UserError(f"The file {path} is not a results file of fedcof: name another output folder.") from error
    for result in results:
        _check_within(folder, result.head)
    return results


def _check_within(folder: Path, head: str) -> None:
    """Follow no path out of a folder that may be somebody else's."""
    if not is_within(folder, folder / head):
        raise UserError(
            f"The results in {folder} name a classifier outside of it, at {head}: only files within it are read, "
            "so copy the classifier there and mend the name."
        )


def is_within(folder: Path, path: Path) -> bool:
    """Say whether a path leads to something within a folder, wherever the links on its way lead.

    Parameters
    ----------
    folder : Path
        The folder.
    path : Path
        What need not exist.

    Returns
    -------
    bool
        False for what lies elsewhere, or cannot be a path.
    """
    try:
        return path.resolve().is_relative_to(folder.resolve())
    except (OSError, ValueError, RuntimeError):
        return False


def _run_result(run: dict[str, Any]) -> RunResult:
    rounds = [RoundResult(**entry) for entry in run.get("rounds", [])]
    nodes = [NodeResult(**entry) for entry in run.get("nodes", [])]
    covariance = _diagnostic(run["covariance"]) if run.get("covariance") else None
    found = run.get("client_accuracy")
    clients = ClientAccuracy.of_json(found) if found else None
    by_samples = AccuracyBySamples.of_json(apart) if (apart := run.get("accuracy_by_samples")) else None
    read = {"rounds": rounds, "nodes": nodes, "covariance": covariance, "client_accuracy": clients}
    read["accuracy_by_samples"] = by_samples
    read["influence"] = [ClientInfluence.of_json(entry) for entry in run.get("influence", [])]
    read["energy"] = EnergyUse.of_json(used) if (used := run.get("energy")) else None
    read["steps"] = [StepResult(**entry) for entry in run.get("steps", [])]
    result = RunResult(**{**run, **read})
    _check_types(result)
    return replace(result, config=RunConfig.of_any_version(result.config))


def _check_types(result: RunResult) -> None:
    """Check that each field is what it says, because others compute with it; raises TypeError."""
    kinds = get_type_hints(RunResult)
    # A diagnostic's numbers may be null, where they had no end.
    if not all(_fits(getattr(result, name), kind) for name, kind in kinds.items() if name != "covariance"):
        raise TypeError


def _fits(value: object, kind: Any) -> bool:  # noqa: ANN401
    """Say whether a value that was read from JSON is of a field's type."""
    inner, outer = get_args(kind), get_origin(kind) or kind
    if isinstance(kind, UnionType):
        return any(_fits(value, one) for one in inner)
    if kind is Any:
        return True
    wanted = int | float if kind is float else outer
    if not isinstance(value, wanted) or (kind in (int, float) and isinstance(value, bool)):
        return False
    parts: list[tuple[object, Any]] = []
    if isinstance(value, list) and inner:
        parts = [(item, inner[0]) for item in value]
    elif isinstance(value, dict) and inner:
        parts = [pair for key, item in value.items() for pair in ((key, inner[0]), (item, inner[1]))]
    elif is_dataclass(kind):
        parts = [(getattr(value, name), one) for name, one in get_type_hints(kind).items()]
    return all(_fits(part, one) for part, one in parts)


def _known(accuracy: float | None) -> float | None:
    """Take what is not a number, as earlier versions wrote it, for an accuracy that nobody knows."""
    return accuracy if accuracy is not None and math.isfinite(accuracy) else None


def _diagnostic(values: dict[str, Any]) -> CovarianceDiagnostic:
    """Read a diagnostic, of whose numbers those are null that had no end; raises TypeError."""
    found = CovarianceDiagnostic(**values)
    for name, value in values.items():
        is_list = get_origin(get_type_hints(CovarianceDiagnostic)[name]) is list
        if not _fits(value, list[float | None] if is_list else float | None):
            raise TypeError
    return found


def append_result(folder: Path, result: RunResult) -> None:
    """Add one run to the results of a folder, so that a crash leaves either the old file or the new one.

    A run of the same configuration, on the same clients, takes the older one's place.

    Parameters
    ----------
    folder : Path
        Folder of the runs; made if missing.
    result : RunResult
        The run to add.
    """
    same = result.config, result.without
    write_results(folder, [*(run for run in load_results(folder) if (run.config, run.without) != same), result])


def write_results(folder: Path, results: Sequence[RunResult]) -> None:
    """Write all results of a folder, in one step.

    Parameters
    ----------
    folder : Path
        Folder of the runs; made if missing.
    results : sequence of RunResult
        Whatever else it held is gone.
    """
    content = _without_infinities([asdict(run) for run in results])
    write_whole(folder / FILE_NAME, json.dumps(content, indent=1, allow_nan=False))


def _without_infinities(value: Any) -> Any:  # noqa: ANN401
    """Put None for every number that is none or has no end, because JSON has neither."""
    if isinstance(value, dict):
        return {key: _without_infinities(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_infinities(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
