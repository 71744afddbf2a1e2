"""How a training split is dealt to clients: partition names and the samples that each client holds."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fedcof.data.partition_advice import alpha_advice, pathological_advice
from fedcof.data.section import DIRICHLET, INNER_DIRICHLET, PARTITIONS, PATHOLOGICAL
from fedcof.errors import UserError, unknown_name

if TYPE_CHECKING:
    from flwr_datasets.partitioner import Partitioner

SHARDS_PER_CLIENT = 2

REASONS = {
    INNER_DIRICHLET: "with an alpha of {alpha:g} class probabilities underflow",
    DIRICHLET: "an alpha of {alpha:g} is out of the range in which proportions can be drawn",
    PATHOLOGICAL: "a class is wanted by more clients than it has samples",
}

IntArray = NDArray[np.int64]


def partition_indices(
    labels: IntArray,
    num_clients: int,
    partition: str,
    alpha: float = 0.1,
    seed: int = 0,
    natural_ids: Sequence[object] | NDArray[Any] | None = None,
    classes_per_client: int = 2,
) -> list[IntArray]:
    """Deal the samples of a split to clients, each sample to exactly one.

    Apart from ``natural`` the dealing is that of ``flwr_datasets``, over the samples in a seeded random order, so
    that the order in which a dataset is stored (by owner, by time) does not reach the clients.

    Parameters
    ----------
    labels : ndarray
        Class of each sample (n,), int64.
    num_clients : int
        Clients to deal to; for ``natural`` the number of distinct ids, or 0 for as many as there are.
    partition : str
        ``inner-dirichlet``: every client draws its class distribution from a Dirichlet and holds equally many
        samples (within one), the split of the FedCOF paper after Acar et al. (arXiv 2111.04263);
        ``dirichlet``: every class is spread over the clients by a Dirichlet (Yurochkin et al., arXiv 1905.12022),
        so clients differ in size and may be empty;
        ``iid``: equal sizes (within one), classes at random;
        ``pathological``: ``classes_per_client`` classes on each client (Li et al., arXiv 2102.02079);
        ``shard``: at most two blocks of the samples sorted by class (McMahan et al., arXiv 1602.05629);
        ``natural``: one client for each distinct value of ``natural_ids``, in ascending order of the values.
    alpha : float
        Concentration of both Dirichlet partitions; the smaller, the fewer classes on a client.
    seed : int
        Seed; the same one gives the same clients in every process.
    natural_ids : sequence or ndarray, optional
        Owner of each sample (n,), numbers, texts or truth values; for ``natural`` only.
    classes_per_client : int
        Classes on each client; for ``pathological`` only.

    Returns
    -------
    list of ndarray
        For each client its ascending sample numbers, int64; an empty array is a client without data.

    Raises
    ------
    UserError
        If the partition is unknown, or the samples cannot be dealt like that.
    """
    if partition not in PARTITIONS:
        raise unknown_name("partition", partition, PARTITIONS)
    if partition == "natural":
        clients = _by_owner(natural_ids, len(labels), num_clients)
    else:
        _check_numbers(len(labels), num_clients, alpha, seed)
        order = np.random.default_rng([seed, 0]).permutation(len(labels))
        if partition == "iid":
            # What IidPartitioner does, which takes a millisecond a client for it.
            clients = [np.sort(part) for part in np.array_split(order, num_clients)]
        else:
            clients = _by_label(labels, order, num_clients, partition, alpha, seed, classes_per_client)
    _check_each_sample_once(clients, len(labels))
    return clients


def describe_partition(indices: Sequence[IntArray], labels: IntArray, num_classes: int) -> IntArray:
    """Count the samples of every class on every client.

    Parameters
    ----------
    indices : sequence of ndarray
        Sample numbers of each client, as :func:`partition_indices` gives them.
    labels : ndarray
        Class of each sample (n,), int64.
    num_classes : int
        Number of classes.

    Returns
    -------
    ndarray
        Counts (num_clients, num_classes), int64.
    """
    clients = np.repeat(np.arange(len(indices)), [len(client) for client in indices])
    cells = clients * num_classes + labels[np.concatenate(indices)]
    counts = np.bincount(cells, minlength=len(indices) * num_classes)
    return counts.reshape(len(indices), num_classes).astype(np.int64, copy=False)


def _check_numbers(num_samples: int, num_clients: int, alpha: float, seed: int) -> None:
    if num_clients < 1:
        raise UserError(f"The number of clients is {num_clients}, but it must be at least 1: raise num-clients.")
    if num_clients > num_samples:
        raise UserError(
            f"There are {num_clients} clients but only {num_samples} training samples: "
            f"set num-clients to at most {num_samples}, or choose a larger dataset."
        )
    if not (alpha > 0 and math.isfinite(alpha)):
        raise UserError(f"The key alpha is {alpha}, but it must be a number above 0: give such a value.")
    if seed < 0:
        raise UserError(f"The key seed is {seed}, but it must be at least 0: give such a value.")


def _by_label(
    labels: IntArray,
    order: IntArray,
    num_clients: int,
    partition: str,
    alpha: float,
    seed: int,
    classes_per_client: int,
) -> list[IntArray]:
    """Deal by a partitioner of flwr_datasets, which sees the labels and never an image."""
    from datasets import Dataset

    # The partitioners take classes for numbers without gaps, which a part of a dataset need not have.
    classes, dense = np.unique(labels, return_inverse=True)
    sizes = np.bincount(dense).astype(np.int64, copy=False)

    def dealt(alpha: float) -> list[IntArray]:
        partitioner = _partitioner(partition, len(labels), num_clients, float(alpha), seed, classes_per_client)
        partitioner.dataset = Dataset.from_dict({"index": order, "label": dense[order]})
        with warnings.catch_warnings(), np.errstate(invalid="ignore"):
            warnings.simplefilter("ignore")
            return _dealt_indices(partitioner)

    def can_be_dealt(alpha: float) -> bool:
        try:
            return bool(dealt(alpha))
        except ValueError:
            return False

    def advice() -> str:
        if partition == PATHOLOGICAL:
            return pathological_advice(sizes, num_clients, classes_per_client, seed)
        return alpha_advice(can_be_dealt, alpha, len(labels))

    if partition == PATHOLOGICAL:
        _check_classes_per_client(classes_per_client, num_clients, len(classes), advice)
    try:
        clients = dealt(alpha)
    except ValueError as error:
        reason = REASONS.get(partition, str(error)).format(alpha=alpha)
        raise UserError(
            f"The {partition} partition cannot deal {len(labels)} samples of {len(classes)} classes to "
            f"{num_clients} clients, because {reason}: {advice()}."
        ) from error
    if partition == PATHOLOGICAL:
        _check_all_classes_dealt(clients, dense, len(classes), advice)
    return clients


def _partitioner(
    partition: str, num_samples: int, num_clients: int, alpha: float, seed: int, classes_per_client: int
) -> Partitioner:
    from flwr_datasets.partitioner import (
        DirichletPartitioner,
        InnerDirichletPartitioner,
        PathologicalPartitioner,
        ShardPartitioner,
    )

    if partition == "inner-dirichlet":
        sizes = np.full(num_clients, num_samples // num_clients)
        sizes[: num_samples % num_clients] += 1
        return InnerDirichletPartitioner(sizes, "label", alpha, shuffle=False, seed=seed)
    if partition == "dirichlet":
        return DirichletPartitioner(
            num_clients, "label", alpha, min_partition_size=0, self_balancing=False, shuffle=False, seed=seed
        )
    if partition == "pathological":
        return PathologicalPartitioner(
            num_clients, "label", classes_per_client, "first-deterministic", shuffle=False, seed=seed
        )
    # A size without a number of shards per client is the one choice that leaves no sample out.
    shard_size = math.ceil(num_samples / (SHARDS_PER_CLIENT * num_clients))
    return ShardPartitioner(
        num_clients, "label", shard_size=shard_size, keep_incomplete_shard=True, shuffle=False, seed=seed
    )


def _dealt_indices(partitioner: Partitioner) -> list[IntArray]:
    """Ascending values of the column ``index`` for each client of a partitioner."""
    clients = range(partitioner.num_partitions)
    index = partitioner.dataset.with_format("numpy")["index"][:]
    # Not by load_partition: it takes about a millisecond a client, for thousands of them longer than dealing.
    rows = partitioner._partition_id_to_indices
    return [np.sort(index[np.asarray(rows[client], dtype=np.int64)]) for client in clients]


def _check_classes_per_client(
    classes_per_client: int, num_clients: int, num_classes: int, advice: Callable[[], str]
) -> None:
    if not 1 <= classes_per_client <= num_classes:
        raise UserError(
            f"The key classes-per-client is {classes_per_client}, but the training split has {num_classes} "
            f"classes: give a number from 1 to {num_classes}."
        )
    if num_clients * classes_per_client < num_classes:
        raise UserError(
            f"The pathological partition puts {classes_per_client} of {num_classes} classes on each of "
            f"{num_clients} clients, which leaves classes on none: {advice()}."
        )


def _check_all_classes_dealt(
    clients: Sequence[IntArray], dense: IntArray, num_classes: int, advice: Callable[[], str]
) -> None:
    dealt = len(np.unique(dense[np.concatenate(clients)]))
    if dealt < num_classes:
        raise UserError(
            f"The pathological partition drew {dealt} of {num_classes} classes for its {len(clients)} clients and "
            f"would leave the others out: {advice()}."
        )


def _by_owner(
    natural_ids: Sequence[object] | NDArray[Any] | None, num_samples: int, num_clients: int
) -> list[IntArray]:
    """Deal by owner, as flwr_datasets' NaturalIdPartitioner does, but without its progress bar."""
    if natural_ids is None:
        raise UserError(
            "The natural partition needs to know each sample's owner: "
            "set partition-column to the column that names it, for example user_id."
        )
    owners = np.asarray(natural_ids)
    known = owners.dtype.kind in "iufbUS" and not (owners.dtype.kind == "f" and np.isnan(owners).any())
    if owners.shape != (num_samples,) or not known:
        raise UserError(
            "The natural partition needs one number, text or truth value per sample, but its column holds "
            f"{owners.dtype} of shape {owners.shape} for {num_samples} samples: set partition-column to "
            "one without missing values."
        )
    _, client_of_sample, sizes = np.unique(owners, return_inverse=True, return_counts=True)
    if num_clients not in (0, len(sizes)):
        raise UserError(
            f"The natural partition has {len(sizes)} clients, one for each owner, but num-clients is "
            f"{num_clients}: set num-clients to {len(sizes)}."
        )
    by_client = np.argsort(client_of_sample, kind="stable").astype(np.int64, copy=False)
    return np.split(by_client, np.cumsum(sizes)[:-1])


def _check_each_sample_once(clients: Sequence[IntArray], num_samples: int) -> None:
    times_dealt = np.bincount(np.concatenate(clients), minlength=num_samples)
    if len(times_dealt) != num_samples or (times_dealt != 1).any():
        raise RuntimeError(
            f"The partitioner dealt {(times_dealt == 0).sum()} samples to no client and "
            f"{(times_dealt > 1).sum()} to several."
        )
