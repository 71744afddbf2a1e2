"""Features that were computed elsewhere: two splits of arrays in a folder, and who owns each training sample."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedcof.data.class_list import names_in_json, text_of_file
from fedcof.data.labels import (
    NUMBERS,
    SplitLabels,
    listed_labels,
    matched_labels,
    number_labels,
    placed_labels,
    text_labels,
)
from fedcof.embedding.feature_table import FeatureTable
from fedcof.errors import UserError, unknown_name

PREFIX = "features:"

FEATURES_FILE_NAME, LABELS_FILE_NAME = "features.npy", "labels.npy"
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
        ``test_labels.npy`` (m,) with whole numbers, texts or truth values; and, where there are any,
        ``train_owners.npy`` (n,) with numbers, texts or truth values, and ``classes.txt`` with a class name on each
        line, in the order of the labels, which are then whole numbers from 0, or these names.

    Returns
    -------
    PrecomputedFeatures
        Both splits. Without ``classes.txt`` the classes are the labels of the train split, in their order.

    Raises
    ------
    UserError
        If a file is missing or no array of numbers, the shapes do not belong together, or a label is out of range.
    """
    splits = ("train", "test")
    features = [_features(folder / f"{split}_{FEATURES_FILE_NAME}") for split in splits]
    listed = _listed_names(folder / CLASSES_FILE_NAME)
    labels = [
        _labels(folder / f"{split}_{LABELS_FILE_NAME}", of_split, listed)
        for split, of_split in zip(splits, features, strict=True)
    ]
    dims = features[0].shape[1], features[1].shape[1]
    if dims[0] != dims[1]:
        raise UserError(
            f"In {folder} the training features have {dims[0]} dimensions and the test features {dims[1]}: "
            "compute both with the same model."
        )
    names, *ids = matched_labels(str(folder), *labels)
    train, test = (FeatureTable(*split) for split in zip(features, ids, strict=True))
    return PrecomputedFeatures(f"{PREFIX}{folder}", train, test, _owners(folder, len(train.labels)), names)


def load_arrays(folder: Path) -> tuple[NDArray[np.float32], SplitLabels]:
    """Open features and labels that are in no split.

    Parameters
    ----------
    folder : Path
        Of ``features.npy``, ``labels.npy`` and, if there is one, ``classes.txt``; see :func:`load_features`.

    Returns
    -------
    tuple of (ndarray, SplitLabels)
        Features (n, d) float32, mapped from disk, and their labels. There may be none.

    Raises
    ------
    UserError
        As :func:`load_features`.
    """
    features = _features(folder / FEATURES_FILE_NAME, fewest=0)
    return features, _labels(folder / LABELS_FILE_NAME, features, _listed_names(folder / CLASSES_FILE_NAME))


def _features(path: Path, fewest: int = 1) -> NDArray[np.float32]:
    features = _array(path, mapped=True)
    if features.ndim != 2 or features.dtype != np.float32 or not features.shape[1] or len(features) < fewest:
        raise UserError(
            f"The file {path} holds {features.dtype} of shape {features.shape}, but features have the shape "
            "(samples, dimension) and the type float32: save them so."
        )
    return features


def _labels(path: Path, features: NDArray[np.float32], listed: tuple[str, ...] | None) -> SplitLabels:
    """Read the labels of a split, and check that they belong to its features."""
    labels = _array(path)
    if labels.shape != features.shape[:1] or labels.dtype.kind not in "iufbU":
        raise UserError(
            f"The file {path} holds {labels.dtype} of shape {labels.shape}, but its features have {len(features)} "
            "samples: save one whole number, text or truth value for each of them."
        )
    where = str(path)
    if listed is not None and labels.dtype.kind in "iu":
        return listed_labels(where, listed, labels)
    if labels.dtype.kind == "U":
        distinct, places = np.unique(labels, return_inverse=True)
        named = text_labels(distinct.tolist(), places)
    else:
        named = number_labels(where, labels)
    if listed is None:
        return named
    if named.kind == NUMBERS:
        return listed_labels(where, listed, labels.astype(np.int64))
    return placed_labels(where, named, listed)


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
    if owners.shape != (num_samples,) or owners.dtype.kind not in "iufbUS":
        raise UserError(
            f"The file {path} holds {owners.dtype} of shape {owners.shape}, but there are {num_samples} training "
            "samples: save one number, text or truth value for each of them."
        )
    if owners.dtype.kind == "f" and np.isnan(owners).any():
        raise UserError(f"In {path} {np.isnan(owners).sum()} samples have no owner but NaN: give each one.")
    return owners


def _listed_names(path: Path) -> tuple[str, ...] | None:
    """Read the names of the classes; None if there are none."""
    if not path.exists():
        return None
    text = text_of_file(path)
    # Not by what Unicode calls line ends, which a name may hold.
    return names_in_json(text) or tuple(text.removesuffix("\n").split("\n"))
