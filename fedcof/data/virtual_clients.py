"""The clients of a simulation: which samples of a dataset each one holds, and their features."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedcof.data.few_samples import draw_samples, is_narrowed
from fedcof.data.kept_problem import KeptProblem
from fedcof.data.partition_cache import kept_partition
from fedcof.data.precomputed import OWNERS_FILE_NAME, is_precomputed, shared_features
from fedcof.data.problem import Sampled, backbone_of, dataset_of, kept_problem_of, split_features
from fedcof.data.section import NATURAL, PATHOLOGICAL, DataSection
from fedcof.embedding.feature_table import feature_cache_dir
from fedcof.embedding.transform import transformed
from fedcof.errors import UserError

if TYPE_CHECKING:
    import datasets


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
    return features_of_samples(config, samples_of_client(config, client, held_out))


def features_of_samples(config: Sampled, indices: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
    """Features and labels of training samples.

    Parameters
    ----------
    config : Sampled
        See :func:`client_samples`.
    indices : ndarray of shape (n,), int64
        Which samples.

    Returns
    -------
    tuple of Tensor
        Features (n, d) float32 and labels (n,) int64.
    """
    if config.embedding.feature_cache or config.data.is_precomputed:
        table = split_features(config, "train")
        features = torch.from_numpy(table.features[indices])
        return transformed(features, config.embedding.feature_transform), torch.from_numpy(table.labels[indices])
    from fedcof.embedding.features import extract_features

    dataset = dataset_of(config)
    labels = torch.from_numpy(dataset.labels("train")[indices])
    features = extract_features(backbone_of(config), dataset.train.select(indices), config.embedding.batch_size)
    return transformed(features, config.embedding.feature_transform), labels


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
        For each client the ascending sample numbers, int64; every sample that anybody has is on exactly one client.

    Raises
    ------
    UserError
        If the dataset cannot be dealt like that.
    """
    return _client_indices(config.data, kept_problem_of(config))


@lru_cache(maxsize=8)
def _client_indices(data: DataSection, kept: KeptProblem | None) -> list[NDArray[np.int64]]:
    dataset_key = data.dataset, data.image_column, data.label_column, data.bad_images
    if is_precomputed(data.dataset):
        labels = shared_features(data.dataset).train.labels
    elif kept:
        labels = kept.table("train").labels
    else:
        from fedcof.data.datasets import shared_dataset

        labels = shared_dataset(*dataset_key).labels("train")
    owners = _owners(dataset_key, data.partition_column) if data.partition == NATURAL else None
    if not is_narrowed(data):
        return _dealt(labels, data, owners)
    held = draw_samples(labels, data)
    if data.partition == NATURAL:
        # Whoever has lost all samples is a client still.
        return [np.intersect1d(part, held, assume_unique=True) for part in _dealt(labels, data, owners)]
    return [held[part] for part in _dealt(labels[held], data, may_be_fewer=True)]


def _dealt(
    labels: NDArray[np.int64], data: DataSection, owners: NDArray[Any] | None = None, may_be_fewer: bool = False
) -> list[NDArray[np.int64]]:
    """Deal samples of these labels, where asked though there may be fewer of them than clients."""
    # A sample each for as many as there are, as equal sizes within one have it. Classes cannot be promised so.
    fewer = may_be_fewer and len(labels) < data.num_clients and data.partition != PATHOLOGICAL
    number = len(labels) if fewer else data.num_clients

    def deal() -> list[NDArray[np.int64]]:
        from fedcof.data.partitioning import partition_indices

        dealt = partition_indices(
            labels, number, data.partition, data.alpha, data.seed, owners, data.classes_per_client
        )
        return dealt + [np.empty(0, np.int64)] * (data.num_clients - number)

    if data.partition == NATURAL:
        return deal()
    settings = f"{data.partition} {data.num_clients} {data.alpha} {data.seed} {data.classes_per_client}"
    return kept_partition(partition_cache_dir(), labels, settings + " fewer" * fewer, deal)


def _owners(dataset_key: tuple[str, str, str, str], column: str) -> NDArray[Any]:
    """Who holds each training sample, for the natural partition."""
    if is_precomputed(dataset_key[0]):
        owners = shared_features(dataset_key[0]).owners
        if owners is None:
            raise UserError(
                f"The natural partition needs to know each sample's owner, but {dataset_key[0]} has no "
                f"{OWNERS_FILE_NAME}: save one number, text or truth value per training sample there."
            )
        return owners
    from fedcof.data.arrow_columns import owners_in
    from fedcof.data.datasets import shared_dataset

    train = shared_dataset(*dataset_key).train
    if column not in train.column_names:
        raise UserError(
            f"The natural partition needs a column that names each sample's owner, but {column!r} is none: "
            f"set partition-column to one of {', '.join(train.column_names)}."
        )
    return owners_in(f"the column {column} of {dataset_key[0]}", train, column)
