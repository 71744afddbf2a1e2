"""Features that were computed elsewhere: two splits of arrays in a folder, and who owns each training sample."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedcof.embedding.feature_table import FeatureTable
from fedcof.errors import UserError, unknown_name

PREFIX = "features:"

CLASSES_FILE_NAME = "classes.txt"
OWNERS_FILE_NAME = "train_owners.npy"


@dataclass(frozen=True, eq=False)
class PrecomputedFeatures:
    """Features of a training and a test split.

    Attributes
    ----------
    name : str
        The dataset name they were loaded by.
    train, test : FeatureTable
        Features (n, d) float32, mapped from disk, and labels (n,) int64.
    owners : ndarray of shape (n,), optional
        Who holds each training sample, as numbers or texts.
    class_names : tuple of str
        What each label stands for.
    """

    name: str
    train: FeatureTable
    test: FeatureTable
    owners: NDArray[Any] | None
    class_names: tuple[str, ...]

    @property
    def num_classes(self) -> int:
        """Number of classes, those without a sample included."""
        return len(self.class_names)

    @property
    def feature_dim(self) -> int:
        """Dimension d of the features."""
        return int(self.train.features.shape[1])

    def table(self, split: str) -> FeatureTable:
        """Give a split.

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
        """
        if split not in ("train", "test"):
            raise unknown_name("split", split, ["train", "test"])
        return self.train if split == "train" else self.test


def is_precomputed(dataset: str) -> bool:
    """Whether a dataset's name stands for features and not for images."""
    return dataset.startswith(PREFIX)


@lru_cache(maxsize=4)
def shared_features(dataset: str) -> PrecomputedFeatures:
    """Open features once per process.

    Parameters
    ----------
    dataset : str
        ``features:DIR``; see :func:`load_features`.

    Returns
    -------
    PrecomputedFeatures
        The same object for the same name.

    Raises
    ------
    UserError
        As :func:`load_features` does.
    """
    return load_features(Path(dataset.removeprefix(PREFIX)))


def load_features(folder: Path) -> PrecomputedFeatures:
    """Open the features of a folder, without reading them.

    Parameters
    ----------
    folder : Path
        ``train_features.npy`` (n, d) and ``test_features.npy`` (m, d) in float32; ``train_labels.npy`` (n,) and
        ``test_labels.npy`` (m,) with whole numbers from 0; and, where there are any, ``train_owners.npy`` (n,) with
        numbers or texts, and ``classes.txt`` with a class name on each line, in the order of the labels.

    Returns
    -------
    PrecomputedFeatures
        Both splits. Without ``classes.txt`` the classes are those up to the largest label, named by their numbers.

    Raises
    ------
    UserError
        If a file is missing or no array of numbers, the shapes do not belong together, or a label is out of range.
    """
    train, test = (_table(folder, split) for split in ("train", "test"))
    dims = train.features.shape[1], test.features.shape[1]
    if dims[0] != dims[1]:
        raise UserError(
            f"In {folder} the training features have {dims[0]} dimensions and the test features {dims[1]}: "
            "compute both with the same model."
        )
    names = _class_names(folder, train, test)
    return PrecomputedFeatures(f"{PREFIX}{folder}", train, test, _owners(folder, len(train.labels)), names)


def _table(folder: Path, split: str) -> FeatureTable:
    """Open one split and check that its two files belong together."""
    path = folder / f"{split}_features.npy"
    features = _array(path, mapped=True)
    if features.ndim != 2 or features.dtype != np.float32 or 0 in features.shape:
        raise UserError(
            f"The file {path} holds {features.dtype} of shape {features.shape}, but features have the shape "
            "(samples, dimension) and the type float32: save them so."
        )
    labels = _array(folder / f"{split}_labels.npy")
    if labels.shape != features.shape[:1] or labels.dtype.kind not in "iu":
        raise UserError(
            f"The file {folder / f'{split}_labels.npy'} holds {labels.dtype} of shape {labels.shape}, but "
            f"{path.name} has {len(features)} samples: save one whole number for each of them."
        )
    return FeatureTable(features, labels.astype(np.int64))


def _array(path: Path, mapped: bool = False) -> NDArray[Any]:
    """Read or map an array; one that holds Python objects could run code and is refused."""
    try:
        array = np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)
    except FileNotFoundError as error:
        raise UserError(f"There is no file {path}: a folder of features needs it.") from error
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"The file {path} cannot be read as an array: write it with numpy.save.") from error
    if not isinstance(array, np.ndarray):
        raise UserError(f"The file {path} holds several arrays: write one with numpy.save.")
    # A plain view of the map: numpy's own class for maps makes every slice slower.
    return np.asarray(array)


def _owners(folder: Path, num_samples: int) -> NDArray[Any] | None:
    path = folder / OWNERS_FILE_NAME
    if not path.exists():
        return None
    owners = _array(path)
    if owners.shape != (num_samples,) or owners.dtype.kind not in "iuUS":
        raise UserError(
            f"The file {path} holds {owners.dtype} of shape {owners.shape}, but there are {num_samples} training "
            "samples: save one number or text for each of them."
        )
    return owners


def _class_names(folder: Path, train: FeatureTable, test: FeatureTable) -> tuple[str, ...]:
    labels = np.concatenate([train.labels, test.labels])
    smallest, largest = int(labels.min()), int(labels.max())
    path = folder / CLASSES_FILE_NAME
    try:
        names = tuple(path.read_text(encoding="utf-8").splitlines())
    except FileNotFoundError:
        names = tuple(map(str, range(largest + 1)))
    except UnicodeDecodeError as error:
        raise UserError(f"The file {path} is not UTF-8 text: write a class name on each line.") from error
    if smallest < 0 or largest >= len(names):
        raise UserError(
            f"The labels in {folder} go from {smallest} to {largest}, but with {len(names)} classes they must go "
            f"from 0 to at most {len(names) - 1}: number them from 0, and name each in {path.name} if any."
        )
    return names
