"""The clients of a simulation: which samples of a dataset each one holds, and their features."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedcof.backbones import Backbone, shared_backbone
from fedcof.configuration import RunConfig
from fedcof.datasets import ImageDataset, shared_dataset
from fedcof.errors import UserError
from fedcof.feature_cache import FeatureTable, cached_features, feature_cache_dir
from fedcof.features import extract_features
from fedcof.partition_cache import kept_partition
from fedcof.partitioning import partition_indices

Progress = Callable[[int], None]


def dataset_of(config: RunConfig) -> ImageDataset:
    """Load a run's dataset, once per process.

    Parameters
    ----------
    config : RunConfig
        The run.

    Returns
    -------
    ImageDataset
        Its training and test split.
    """
    return shared_dataset(config.dataset, config.image_column, config.label_column)


def backbone_of(config: RunConfig) -> Backbone:
    """Load a run's backbone, once per process.

    Parameters
    ----------
    config : RunConfig
        The run.

    Returns
    -------
    Backbone
        The frozen feature extractor.
    """
    return shared_backbone(config.backbone, config.image_size, config.weights)


def split_features(config: RunConfig, split: str, progress: Progress | None = None) -> FeatureTable:
    """Features of a whole split, embedded by whoever asks first and read from the cache by all others.

    Parameters
    ----------
    config : RunConfig
        The run.
    split : {"train", "test"}
        Which part of the dataset.
    progress : callable, optional
        Called with the number of images embedded since the last call.

    Returns
    -------
    FeatureTable
        Features (n, d) float32 and labels (n,) int64.
    """
    dataset = dataset_of(config)
    images = dataset.train if split == "train" else dataset.test
    return cached_features(backbone_of(config), images, feature_cache_dir(), config.batch_size, progress=progress)


def client_samples(config: RunConfig, client: int) -> tuple[Tensor, Tensor]:
    """Features and labels of the training samples that one client holds.

    Parameters
    ----------
    config : RunConfig
        The run; ``feature_cache`` says whether the client's images are embedded now or sliced from the cache.
    client : int
        Client number, from 0.

    Returns
    -------
    tuple of Tensor
        Features (n, d) float32 and labels (n,) int64.
    """
    indices = client_indices(config)[client]
    if config.feature_cache:
        table = split_features(config, "train")
        return torch.from_numpy(table.features[indices]), torch.from_numpy(table.labels[indices])
    dataset = dataset_of(config)
    features = extract_features(backbone_of(config), dataset.train.select(indices), config.batch_size)
    return features, torch.from_numpy(dataset.labels("train")[indices])


def client_indices(config: RunConfig) -> list[NDArray[np.int64]]:
    """Which training samples each client holds.

    Parameters
    ----------
    config : RunConfig
        The run.

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
        (config.dataset, config.image_column, config.label_column),
        config.num_clients,
        config.partition,
        config.alpha,
        config.seed,
        config.partition_column,
        config.classes_per_client,
    )


@lru_cache(maxsize=8)
def _client_indices(
    dataset_key: tuple[str, str, str],
    num_clients: int,
    partition: str,
    alpha: float,
    seed: int,
    column: str,
    classes_per_client: int,
) -> list[NDArray[np.int64]]:
    dataset = shared_dataset(*dataset_key)
    natural_ids = None
    if partition == "natural":
        if column not in dataset.train.column_names:
            raise UserError(
                f"The natural partition needs a column that names each sample's owner, but {column!r} is none: "
                f"set partition-column to one of {', '.join(dataset.train.column_names)}."
            )
        natural_ids = dataset.train.with_format(None)[column][:]
    labels = dataset.labels("train")

    def deal() -> list[NDArray[np.int64]]:
        return partition_indices(labels, num_clients, partition, alpha, seed, natural_ids, classes_per_client)

    if partition == "natural":
        return deal()
    settings = f"{partition} {num_clients} {alpha} {seed} {classes_per_client}"
    return kept_partition(feature_cache_dir().with_name("partitions"), labels, settings, deal)
