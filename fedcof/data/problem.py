"""What a run classifies: its classes, and the features of its splits, looked up once for all processes."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from fedcof.data.kept_problem import KeptProblem, KeptSplit, leave_note, noted_problem, read_note
from fedcof.data.node_features import shared_node_features
from fedcof.data.precomputed import PrecomputedFeatures, shared_features
from fedcof.data.section import DataSection
from fedcof.data.unchanged import stamp_of
from fedcof.embedding.feature_table import FeatureTable, feature_cache_dir
from fedcof.embedding.flaws import UndecodableImageError
from fedcof.embedding.section import FULL, EmbeddingSection
from fedcof.errors import UserError

if TYPE_CHECKING:
    from fedcof.data.image_dataset import ImageDataset
    from fedcof.embedding.backbones import Backbone

Progress = Callable[[int], None]


class Sampled(Protocol):
    """What says which samples a run has, and what features: two sections of its run-config."""

    @property
    def data(self) -> DataSection:
        """Whose samples."""

    @property
    def embedding(self) -> EmbeddingSection:
        """Which features."""


@dataclass(frozen=True)
class Problem:
    """What there is to classify.

    Attributes
    ----------
    num_classes : int
        Number of classes C.
    feature_dim : int
        Dimension d of the features.
    class_names : tuple of str
        What each label stands for.
    left_out : tuple of (str, str, int)
        Bad images that were left out: split, class, and how many.
    """

    num_classes: int
    feature_dim: int
    class_names: tuple[str, ...]
    left_out: tuple[tuple[str, str, int], ...] = ()


def problem_of(config: Sampled) -> Problem:
    """Find out what a run classifies, be it images or features that were computed elsewhere.

    Parameters
    ----------
    config : Sampled
        The run's sections on data and embedding.

    Returns
    -------
    Problem
        Its classes and the dimension of its features.

    Raises
    ------
    UserError
        If the dataset or the backbone cannot be loaded.
    """
    if config.data.is_precomputed:
        features = _precomputed(config)
        return Problem(features.num_classes, features.feature_dim, features.class_names)
    if kept := kept_problem_of(config):
        return Problem(len(kept.class_names), kept.feature_dim, kept.class_names, kept.left_out)
    dataset = dataset_of(config)
    left_out = tuple(dataset.intake.bad_by_class())
    return Problem(dataset.num_classes, backbone_of(config).feature_dim, dataset.class_names, left_out)


def labels_of(config: Sampled, split: str) -> NDArray[np.int64]:
    """Read the labels of a split, without an image or a feature.

    Parameters
    ----------
    config : Sampled
        The run's sections on data and embedding.
    split : {"train", "test"}
        Which part of the dataset.

    Returns
    -------
    ndarray
        Class of each sample (n,), int64.

    Raises
    ------
    UserError
        If the dataset cannot be loaded, or the split is neither.
    """
    if config.data.is_precomputed:
        return _precomputed(config).table(split).labels
    if kept := kept_problem_of(config):
        return kept.table(split).labels
    return dataset_of(config).labels(split)


def images_to_embed(config: Sampled, split: str) -> int:
    """Count the images that a run needs embedded before its clients start.

    Parameters
    ----------
    config : Sampled
        The run's sections on data and embedding.
    split : {"train", "test"}
        Which part of the dataset.

    Returns
    -------
    int
        All of the split; 0 if the features were computed elsewhere, or clients embed their own images.
    """
    if config.data.is_precomputed or (split == "train" and not config.embedding.feature_cache):
        return 0
    dataset = dataset_of(config)
    return len(dataset.train if split == "train" else dataset.test)


def dataset_of(config: Sampled) -> ImageDataset:
    """Load a run's dataset, once per process.

    Parameters
    ----------
    config : Sampled
        The run's sections on data and embedding.

    Returns
    -------
    ImageDataset
        Its training and test split.

    Raises
    ------
    UserError
        If it cannot be loaded, or images of it cannot be used.
    """
    data = config.data
    if data.on_nodes:
        from fedcof.data.node_data import shared_node_dataset

        return shared_node_dataset(data.classes, data.test_data, data.bad_images)
    from fedcof.data.datasets import shared_dataset

    return shared_dataset(data.dataset, data.image_column, data.label_column, data.bad_images)


def decoded_dataset_of(config: Sampled) -> ImageDataset:
    """Load a run's dataset anew and decode every image, because one has shown to be damaged.

    What it finds is kept, so that whoever loads the dataset from now on knows of it.

    Parameters
    ----------
    config : Sampled
        The run's sections on data and embedding.

    Returns
    -------
    ImageDataset
        Without the images that cannot be decoded, if bad ones are to be left out.

    Raises
    ------
    UserError
        That names them, if not.
    """
    data = config.data
    if data.on_nodes:
        from fedcof.data.node_data import shared_node_dataset

        shared_node_dataset.cache_clear()
        return shared_node_dataset(data.classes, data.test_data, data.bad_images, thorough=True)
    from fedcof.data.datasets import load_image_dataset, shared_dataset

    shared_dataset.cache_clear()
    return load_image_dataset(data.dataset, data.image_column, data.label_column, data.bad_images, thorough=True)


def backbone_of(config: Sampled) -> Backbone:
    """Load a run's backbone, once per process.

    Parameters
    ----------
    config : Sampled
        The run's sections on data and embedding.

    Returns
    -------
    Backbone
        The frozen feature extractor.

    Raises
    ------
    UserError
        If the run has none, because its features were computed elsewhere.
    """
    if config.data.is_precomputed:
        raise UserError(
            f"The run's features come from {config.data.encoder or config.data.dataset!r} and not from a backbone, "
            "so it cannot be used on images: use a run on images."
        )
    from fedcof.embedding.backbones import shared_backbone

    embedding = config.embedding
    own = embedding.image_size, embedding.weights, embedding.preprocessing
    return shared_backbone(embedding.backbone, *own, projected=embedding.clip_projection == FULL)


def fingerprint_of(config: Sampled) -> str:
    """Give what tells whether features can be used together with a run's.

    Parameters
    ----------
    config : Sampled
        The run's sections on data and embedding.

    Returns
    -------
    str
        The encoder that its nodes declare, or else the fingerprint of its backbone; with what is done to features.
    """
    return config.embedding.fingerprint(config.data.encoder or backbone_of(config).fingerprint)


def split_features(config: Sampled, split: str, progress: Progress | None = None) -> FeatureTable:
    """Features of a whole split, embedded by whoever asks first and read from the cache by all others.

    Parameters
    ----------
    config : Sampled
        The run's sections on data and embedding.
    split : {"train", "test"}
        Which part of the dataset.
    progress : callable, optional
        Called with the number of images embedded since the last call.

    Returns
    -------
    FeatureTable
        Features (n, d) float32 and labels (n,) int64.
    """
    if config.data.is_precomputed:
        return _precomputed(config).table(split)
    if kept := kept_problem_of(config):
        return kept.table(split)
    try:
        return _cached_features(config, dataset_of(config), split, progress)
    except UndecodableImageError:
        return _cached_features(config, decoded_dataset_of(config), split, progress)


def _cached_features(config: Sampled, dataset: ImageDataset, split: str, progress: Progress | None) -> FeatureTable:
    from fedcof.embedding.feature_cache import cached_features

    images = dataset.train if split == "train" else dataset.test
    return cached_features(
        backbone_of(config), images, feature_cache_dir(), config.embedding.batch_size, progress=progress
    )


def _precomputed(config: Sampled) -> PrecomputedFeatures:
    data = config.data
    if data.on_nodes:
        return shared_node_features(data.classes, data.test_data, data.feature_dim)
    return shared_features(data.dataset)


def note_problem(config: Sampled, folder: Path) -> None:
    """Leave a note of a run's classes and features for the processes that are to answer for its clients.

    Parameters
    ----------
    config : Sampled
        A run whose features are in the cache; of one that has none nothing is noted.
    folder : Path
        Where to, see :data:`fedcof.data.kept_problem.FOLDER_VARIABLE`.
    """
    if not _has_kept_features(config):
        return
    problem = problem_of(config)
    splits = {}
    for split in ("train", "test"):
        features = split_features(config, split).features
        # The table is mapped from a file of the cache's entry.
        splits[split] = KeptSplit(str(Path(features.filename).parent), len(features))  # type: ignore[attr-defined]
    intake = dataset_of(config).intake
    summary = tuple(intake.summary())
    kept = KeptProblem(
        problem.class_names, problem.feature_dim, **splits, left_out=problem.left_out, summary=summary
    )
    leave_note(folder, source_of(config), kept)
    # What is left out is listed beside the results of every run, so it has to be looked up for each.
    stamp = "" if intake.left_out else stamp_of(config)
    # Without a note the next command looks it up anew.
    with suppress(OSError):
        leave_note(problem_notes_dir(), source_of(config), kept, stamp)


def take_earlier_note(config: Sampled, folder: Path) -> KeptProblem | None:
    """Spare a run the look-up that an earlier one made, where what that read has not changed since.

    Parameters
    ----------
    config : Sampled
        The run.
    folder : Path
        Where to leave the earlier note, as :func:`note_problem` does.

    Returns
    -------
    KeptProblem or None
        What that found; None if there is no such note, and the run has to be looked up.
    """
    stamp = stamp_of(config) if _has_kept_features(config) else ""
    kept = read_note(problem_notes_dir(), source_of(config), stamp) if stamp else None
    if kept is not None:
        leave_note(folder, source_of(config), kept)
    return kept


def features_seem_kept(config: Sampled) -> bool:
    """Guess, without a look at the dataset or the backbone, whether nothing is left to embed before a run.

    Parameters
    ----------
    config : Sampled
        The run.

    Returns
    -------
    bool
        True where an earlier run found features for this dataset and backbone; either may have changed since.
    """
    if config.data.is_precomputed:
        return True
    return _has_kept_features(config) and read_note(problem_notes_dir(), source_of(config)) is not None


def problem_notes_dir() -> Path:
    """Folder of the notes of earlier runs, beside the features; it need not exist."""
    return feature_cache_dir().with_name("problems")


def kept_problem_of(config: Sampled) -> KeptProblem | None:
    """Give what another process has looked up for this one; None where it has to be looked up here."""
    return noted_problem(source_of(config)) if _has_kept_features(config) else None


def _has_kept_features(config: Sampled) -> bool:
    return config.embedding.feature_cache and not config.data.on_nodes and not config.data.is_precomputed


def source_of(config: Sampled) -> tuple[str | int, ...]:
    """Name all that decides a run's features and labels."""
    dataset = config.data.dataset, config.data.image_column, config.data.label_column, config.data.bad_images
    return (
        *dataset,
        config.embedding.backbone,
        config.embedding.weights,
        config.embedding.image_size,
        config.embedding.preprocessing,
        config.embedding.batch_size,
        *([] if config.embedding.clip_projection == FULL else [config.embedding.clip_projection]),
    )
