"""What one process has looked up for others: a dataset's classes, and where its features lie.

That takes the dataset, the backbone and its weights, and the seconds to import what reads them. The command does so
once and leaves a note; the processes of its Flower run then need no image and no backbone.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

from fedcof.embedding.feature_table import DESCRIPTION, FeatureTable, open_features
from fedcof.errors import unknown_name
from fedcof.files import private_folder, write_whole

# The folder of the notes, in the environment of the processes that may believe them.
FOLDER_VARIABLE = "FEDCOF_KEPT_PROBLEMS"

Source = tuple[str | int, ...]

_BELIEVED_HERE: list[Path] = []


@dataclass(frozen=True)
class KeptSplit:
    """Where a split's features lie.

    Attributes
    ----------
    folder : str
        The entry of the feature cache.
    num_samples : int
        Number of its samples n.
    """

    folder: str
    num_samples: int


@dataclass(frozen=True)
class KeptProblem:
    """What there is to classify, and where its features lie.

    Attributes
    ----------
    class_names : tuple of str
        What each label stands for.
    feature_dim : int
        Dimension d of the features.
    train, test : KeptSplit
        The two splits.
    left_out : tuple of (str, str, int)
        Bad images that were left out: split, class, and how many.
    summary : tuple of str
        What was taken, and left out, in lines for people.
    """

    class_names: tuple[str, ...]
    feature_dim: int
    train: KeptSplit
    test: KeptSplit
    left_out: tuple[tuple[str, str, int], ...] = ()
    summary: tuple[str, ...] = ()

    def table(self, split: str) -> FeatureTable:
        """Open a split.

        Parameters
        ----------
        split : {"train", "test"}
            Which one.

        Returns
        -------
        FeatureTable
            Its features and labels.

        Raises
        ------
        UserError
            If the split is neither.
        ValueError, KeyError, OSError
            If the features are no longer what they were.
        """
        if split not in ("train", "test"):
            raise unknown_name("split", split, ["train", "test"])
        kept = self.train if split == "train" else self.test
        entry = Path(kept.folder)
        state = (entry / DESCRIPTION).stat()
        return open_features(entry, (kept.num_samples, self.feature_dim), state.st_mtime_ns, state.st_ino)


def leave_note(folder: Path, source: Source, problem: KeptProblem, stamp: str = "") -> None:
    """Write down what was looked up.

    Parameters
    ----------
    folder : Path
        Folder of the notes.
    source : tuple of str and int
        What the problem was made of: dataset, columns, backbone and all else that decides its features.
    problem : KeptProblem
        What was found.
    stamp : str
        What tells a later run that it would find the same, see :func:`fedcof.data.unchanged.stamp_of`.
    """
    private_folder(folder, leave_existing=True)
    write_whole(_path(folder, source), json.dumps({**asdict(problem), "stamp": stamp}))


def noted_problem(source: Source) -> KeptProblem | None:
    """Read what another process has looked up.

    Parameters
    ----------
    source : tuple of str and int
        See :func:`leave_note`.

    Returns
    -------
    KeptProblem or None
        None where no note was left for this process, or the features are gone: they are then looked up here.
    """
    folder = _BELIEVED_HERE[-1] if _BELIEVED_HERE else os.environ.get(FOLDER_VARIABLE)
    return read_note(Path(folder), source) if folder else None


@contextmanager
def believed(folder: Path) -> Iterator[None]:
    """Believe the notes of a folder in this process, as those do that have it in their environment."""
    _BELIEVED_HERE.append(folder)
    try:
        yield
    finally:
        _BELIEVED_HERE.remove(folder)


def read_note(folder: Path, source: Source, stamp: str = "") -> KeptProblem | None:
    """Read a note of a source whose features are still there.

    Parameters
    ----------
    folder : Path
        Folder of the notes; it need not exist.
    source : tuple of str and int
        See :func:`leave_note`.
    stamp : str, optional
        The stamp that it has to have.

    Returns
    -------
    KeptProblem or None
        None where there is no such note, or the cache was cleared since.
    """
    path = _path(folder, source)
    try:
        state = path.stat()
        problem, stamped = _read(path, state.st_mtime_ns, state.st_ino)
        if stamp and stamped != stamp:
            return None
        problem.table("train")
        problem.table("test")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError):
        return None
    return problem


def _path(folder: Path, source: Source) -> Path:
    return folder / f"{hashlib.sha256(json.dumps(source).encode()).hexdigest()[:32]}.json"


@lru_cache(maxsize=8)
def _read(path: Path, written: int, inode: int) -> tuple[KeptProblem, str]:
    """Read a note and its stamp; ``written`` and ``inode`` tell it from a later one in its place."""
    values = json.loads(path.read_text(encoding="utf-8"))
    splits = {split: KeptSplit(**values[split]) for split in ("train", "test")}
    left_out = tuple((split, label, count) for split, label, count in values["left_out"])
    summary = tuple(values["summary"])
    problem = KeptProblem(
        tuple(values["class_names"]), values["feature_dim"], **splits, left_out=left_out, summary=summary
    )
    return problem, values["stamp"]
