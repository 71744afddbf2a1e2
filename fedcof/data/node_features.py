"""A node's own features, computed by whatever its owner has: a folder of arrays, or a Parquet file."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedcof.data.agreed_names import agreed_names
from fedcof.data.class_list import class_names_of
from fedcof.data.labels import SplitLabels
from fedcof.data.precomputed import (
    CLASSES_FILE_NAME,
    FEATURES_FILE_NAME,
    LABELS_FILE_NAME,
    PrecomputedFeatures,
    load_arrays,
)
from fedcof.embedding.feature_table import FeatureTable
from fedcof.errors import UserError

PARQUET = ".parquet"
ROWS_AT_ONCE = 4096


def files_of_features(place: Path) -> list[Path]:
    """List the files that features are read from.

    Parameters
    ----------
    place : Path
        A Parquet file, or a folder with ``features.npy``, ``labels.npy`` and, if there is one, ``classes.txt``.

    Returns
    -------
    list of Path
        Those that are there; none for what can be neither.
    """
    if place.is_file():
        return [place] if place.suffix.lower() == PARQUET else []
    files = (place / name for name in (FEATURES_FILE_NAME, LABELS_FILE_NAME, CLASSES_FILE_NAME))
    return [file for file in files if file.is_file()]


def holds_features(place: Path) -> bool:
    """Whether data are features, by what lies there."""
    if place.is_dir():
        return (place / FEATURES_FILE_NAME).is_file()
    if not files_of_features(place):
        return False
    from fedcof.data.feature_columns import has_features

    return has_features(place)


def features_at(data: str) -> tuple[NDArray[np.float32], SplitLabels]:
    """Read features and their labels, by the names that they have there.

    Parameters
    ----------
    data : str
        A Parquet file with the columns ``features`` (lists of floats) and ``label``; or a folder with
        ``features.npy`` (n, d) float32 and ``labels.npy`` (n,), whole numbers, texts or truth values, and perhaps
        ``classes.txt`` with the names that the numbers stand for, one a line.

    Returns
    -------
    tuple of (ndarray, SplitLabels)
        Features (n, d) float32, all of them finite, and their labels. There may be none.

    Raises
    ------
    UserError
        If there are none to be read, or they are something else.
    """
    place = Path(data).expanduser()
    if not files_of_features(place):
        raise UserError(
            f"There are no features at {data}: give a folder with {FEATURES_FILE_NAME} and {LABELS_FILE_NAME}, or "
            "a .parquet file with the columns features and label."
        )
    if place.is_dir():
        features, labels = load_arrays(place)
    else:
        from fedcof.data.feature_columns import features_of_table

        features, labels = features_of_table(place)
    _check_finite(data, features)
    return features, labels


def read_node_features(data: str, class_names: tuple[str, ...], feature_dim: int) -> FeatureTable:
    """Read a node's features, by the class names agreed on.

    Parameters
    ----------
    data : str
        See :func:`features_at`.
    class_names : tuple of str
        Names of the C classes in the order of their ids.
    feature_dim : int
        Dimension d that the run's features have.

    Returns
    -------
    FeatureTable
        Features (n, d) float32 and the id of each one's class.

    Raises
    ------
    UserError
        As :func:`features_at`; or if a class is not one of those agreed on, or the dimension is another.
    """
    features, labels = features_at(data)
    if not len(features):
        return FeatureTable(np.empty((0, feature_dim), np.float32), np.empty(0, np.int64))
    if features.shape[1] != feature_dim:
        raise UserError(
            f"The features of {data} have {features.shape[1]} dimensions, but the run's have {feature_dim}: "
            "compute them with the run's encoder."
        )
    # A list may name more classes than there are samples of.
    occurring = np.unique(labels.ids)
    own = [labels.class_names[place] for place in occurring]
    agreed = agreed_names(data, own, class_names)
    ids = {name: number for number, name in enumerate(class_names)}
    of_place = np.zeros(len(labels.class_names), np.int64)
    of_place[occurring] = [ids[agreed[name]] for name in own]
    return FeatureTable(features, of_place[labels.ids])


@lru_cache(maxsize=2)
def shared_node_features(classes: str, test_data: str, feature_dim: int) -> PrecomputedFeatures:
    """Describe a federation whose features lie on its nodes, once per process.

    Parameters
    ----------
    classes : str
        See :func:`fedcof.data.class_list.class_names_of`.
    test_data : str
        The server's own test features, as for :func:`features_at`; empty for none.
    feature_dim : int
        Dimension d of all features.

    Returns
    -------
    PrecomputedFeatures
        With an empty training split.

    Raises
    ------
    UserError
        As the functions above.
    """
    names = class_names_of(classes)
    empty = FeatureTable(np.empty((0, feature_dim), np.float32), np.empty(0, np.int64))
    test = read_node_features(test_data, names, feature_dim) if test_data else empty
    return PrecomputedFeatures("nodes", empty, test, None, names)


def _check_finite(data: str, features: NDArray[np.float32]) -> None:
    for start in range(0, len(features), ROWS_AT_ONCE):
        finite = np.isfinite(features[start : start + ROWS_AT_ONCE]).all(axis=1)
        if not finite.all():
            row = start + int(np.argmin(finite)) + 1
            raise UserError(
                f"In {data} the features of row {row} are not finite as float32: compute them anew, or remove "
                "the row."
            )
