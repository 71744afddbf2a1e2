"""The clients of a simulation: which samples of a dataset each one holds, and their features."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedcof.data.kept_problem import KeptProblem, KeptSplit, has_note, leave_note, noted_problem
from fedcof.data.partition_cache import kept_partition
from fedcof.data.precomputed import OWNERS_FILE_NAME, is_precomputed, shared_features
from fedcof.data.section import NATURAL, DataSection
from fedcof.embedding.feature_table import FeatureTable, feature_cache_dir
from fedcof.embedding.section import EmbeddingSection
from fedcof.errors import UserError

if TYPE_CHECKING:
    import datasets

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
    """

    num_classes: int
    feature_dim: int
    class_names: tuple[str, ...]


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
        features = shared_features(config.data.dataset)
        return Problem(features.num_classes, features.feature_dim, features.class_names)
    if kept := _noted(config):
        return Problem(len(kept.class_names), kept.feature_dim, kept.class_names)
    dataset = dataset_of(config)
    return Problem(dataset.num_classes, backbone_of(config).feature_dim, dataset.class_names)


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
        return shared_features(config.data.dataset).table(split).labels
    if kept := _noted(config):
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
    """
    if config.data.on_nodes:
        from fedcof.data.node_data import shared_node_dataset

        return shared_node_dataset(config.data.classes, config.data.test_data)
    from fedcof.data.datasets import shared_dataset

    return shared_dataset(config.data.dataset, config.data.image_column, config.data.label_column)


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
            f"The run's features come from {config.data.dataset!r} and not from a backbone, so it cannot be used "
            "on images: use a run on images."
        )
    from fedcof.embedding.backbones import shared_backbone

    return shared_backbone(config.embedding.backbone, config.embedding.image_size, config.embedding.weights)


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
        return shared_features(config.data.dataset).table(split)
    if kept := _noted(config):
        return kept.table(split)
    from fedcof.embedding.feature_cache import cached_features

    dataset = dataset_of(config)
    images = dataset.train if split == "train" else dataset.test
    return cached_features(
        backbone_of(config), images, feature_cache_dir(), config.embedding.batch_size, progress=progress
    )


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
    splits = []
    for split in ("train", "test"):
        features = split_features(config, split).features
        # The table is mapped from a file of the cache's entry.
        splits.append(KeptSplit(str(Path(features.filename).parent), len(features)))  # type: ignore[attr-defined]
    kept = KeptProblem(problem.class_names, problem.feature_dim, *splits)
    leave_note(folder, _source(config), kept)
    leave_note(problem_notes_dir(), _source(config), kept)


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
    return _has_kept_features(config) and has_note(problem_notes_dir(), _source(config))


def problem_notes_dir() -> Path:
    """Folder of the notes of earlier runs, beside the features; it need not exist."""
    return feature_cache_dir().with_name("problems")


def _noted(config: Sampled) -> KeptProblem | None:
    return noted_problem(_source(config)) if _has_kept_features(config) else None


def _has_kept_features(config: Sampled) -> bool:
    return config.embedding.feature_cache and not config.data.on_nodes and not config.data.is_precomputed


def _source(config: Sampled) -> tuple[str | int, ...]:
    """Name all that decides a run's features and labels."""
    dataset = config.data.dataset, config.data.image_column, config.data.label_column
    return (
        *dataset,
        config.embedding.backbone,
        config.embedding.weights,
        config.embedding.image_size,
        config.embedding.batch_size,
    )


def client_samples(config: Sampled, client: int, held_out: bool = False) -> tuple[Tensor, Tensor]:
    """Features and labels of the training samples that one client holds.

    Parameters
    ----------
    config : Sampled
        The run; ``feature_cache`` says whether the client's images are embedded now or sliced from the cache.
        Features that were computed elsewhere are always sliced.
    client : int
        Client number, from 0.
    held_out : bool
        Whether those that it keeps for evaluation are meant, and not all others.

    Returns
    -------
    tuple of Tensor
        Features (n, d) float32 and labels (n,) int64.
    """
    indices = samples_of_client(config, client, held_out)
    if config.embedding.feature_cache or config.data.is_precomputed:
        table = split_features(config, "train")
        return torch.from_numpy(table.features[indices]), torch.from_numpy(table.labels[indices])
    from fedcof.embedding.features import extract_features

    images, labels = client_images(config, client, held_out)
    return extract_features(backbone_of(config), images, config.embedding.batch_size), labels


def client_images(config: Sampled, client: int, held_out: bool = False) -> tuple[datasets.Dataset, Tensor]:
    """Images and labels of the training samples that one client holds.

    Parameters
    ----------
    config, client, held_out
        See :func:`client_samples`.

    Returns
    -------
    tuple of (Dataset, Tensor)
        The images, not yet read, and labels (n,) int64.
    """
    indices = samples_of_client(config, client, held_out)
    dataset = dataset_of(config)
    return dataset.train.select(indices), torch.from_numpy(dataset.labels("train")[indices])


def samples_of_client(config: Sampled, client: int, held_out: bool) -> NDArray[np.int64]:
    """Which training samples a client learns from, or evaluates on.

    Parameters
    ----------
    config, client, held_out
        See :func:`client_samples`. With a ``client_test_share`` of 0 both are all that it holds.

    Returns
    -------
    ndarray
        Ascending sample numbers, int64.
    """
    return held_out_part(client_indices(config)[client], config, client, held_out)


def held_out_part(indices: NDArray[np.int64], config: Sampled, client: int, held_out: bool) -> NDArray[np.int64]:
    """Divide a client's samples into those it learns from and those it evaluates on.

    Parameters
    ----------
    indices : ndarray of shape (n,), int64
        All its samples.
    config, client, held_out
        See :func:`samples_of_client`.

    Returns
    -------
    ndarray
        Ascending sample numbers, int64.
    """
    if not config.data.client_test_share:
        return indices
    mixed = np.random.default_rng([config.data.seed, client]).permutation(indices)
    kept = round(config.data.client_test_share * len(indices))
    return np.sort(mixed[:kept] if held_out else mixed[kept:])


def partition_cache_dir() -> Path:
    """Folder of the kept partitions, beside that of the features.

    Returns
    -------
    Path
        It need not exist.
    """
    return feature_cache_dir().with_name("partitions")


def client_indices(config: Sampled) -> list[NDArray[np.int64]]:
    """Which training samples each client holds.

    Parameters
    ----------
    config : Sampled
        The run's sections on data and embedding.

    Returns
    -------
    list of ndarray
        For each client the ascending sample numbers, int64; every sample is on exactly one client.

    Raises
    ------
    UserError
        If the dataset cannot be dealt like that.
    """
    return _client_indices(
        (config.data.dataset, config.data.image_column, config.data.label_column),
        _noted(config),
        config.data.num_clients,
        config.data.partition,
        config.data.alpha,
        config.data.seed,
        config.data.partition_column,
        config.data.classes_per_client,
    )


@lru_cache(maxsize=8)
def _client_indices(
    dataset_key: tuple[str, str, str],
    kept: KeptProblem | None,
    num_clients: int,
    partition: str,
    alpha: float,
    seed: int,
    column: str,
    classes_per_client: int,
) -> list[NDArray[np.int64]]:
    if is_precomputed(dataset_key[0]):
        labels = shared_features(dataset_key[0]).train.labels
    elif kept:
        labels = kept.table("train").labels
    else:
        from fedcof.data.datasets import shared_dataset

        labels = shared_dataset(*dataset_key).labels("train")
    owners = _owners(dataset_key, column) if partition == NATURAL else None

    def deal() -> list[NDArray[np.int64]]:
        from fedcof.data.partitioning import partition_indices

        return partition_indices(labels, num_clients, partition, alpha, seed, owners, classes_per_client)

    if partition == NATURAL:
        return deal()
    settings = f"{partition} {num_clients} {alpha} {seed} {classes_per_client}"
    return kept_partition(partition_cache_dir(), labels, settings, deal)


def _owners(dataset_key: tuple[str, str, str], column: str) -> NDArray[Any]:
    """Who holds each training sample, for the natural partition."""
    if is_precomputed(dataset_key[0]):
        owners = shared_features(dataset_key[0]).owners
        if owners is None:
            raise UserError(
                f"The natural partition needs to know each sample's owner, but {dataset_key[0]} has no "
                f"{OWNERS_FILE_NAME}: save one number or text per training sample there."
            )
        return owners
    from fedcof.data.datasets import shared_dataset

    train = shared_dataset(*dataset_key).train
    if column not in train.column_names:
        raise UserError(
            f"The natural partition needs a column that names each sample's owner, but {column!r} is none: "
            f"set partition-column to one of {', '.join(train.column_names)}."
        )
    return np.asarray(train.with_format(None)[column][:])
