"""Clients that are gone when a classifier is solved anew: their kept uploads, moved as their classes have moved."""

from __future__ import annotations

from collections.abc import Mapping
from logging import getLogger

from fedcof.covariance.drift import class_moves
from fedcof.errors import UserError
from fedcof.statistics.class_means import ClassMeanRows, ClassMeans
from server.intake import NodeRules
from server.one_shot import OneShotStrategy
from server.upload_store import UploadStore

logger = getLogger("flwr")


def kept_rows(strategy: OneShotStrategy, store: UploadStore, rules: NodeRules | None) -> dict[int, ClassMeanRows]:
    """Read what clients have sent of the features before training, where a run keeps that.

    Parameters
    ----------
    strategy : OneShotStrategy
        Of the run; it reads what it would take.
    store : UploadStore
        Where the run's first uploads are.
    rules : NodeRules or None
        Tells which client each node is, for nodes with data of their own.

    Returns
    -------
    dict of int to ClassMeanRows
        By client. A node that is no client any more has a number of its own, below 0. Empty where the method sends
        no class means, or what is kept cannot be used, which is logged: training is not lost for that.
    """
    clients = {name: client for client, name in rules.names.items()} if rules else {}
    try:
        uploads = list(store.uploads().values())
        read = [strategy.read_kept(sent) for sent in store.load(uploads)]
    except UserError as error:
        logger.warning("Clients that are gone are left out: %s", error)
        return {}
    found: dict[int, ClassMeanRows] = {}
    for place, (upload, rows) in enumerate(zip(uploads, read, strict=True)):
        if isinstance(rows, ClassMeanRows):
            found[clients.get(upload.name, -1 - place) if rules else int(upload.name)] = rows
    return found


def moved_rows(
    before: Mapping[int, ClassMeanRows], after: Mapping[int, ClassMeanRows], num_classes: int
) -> dict[int, ClassMeans]:
    """Move the rows of clients that are gone by what the others' means of the same class have moved.

    Parameters
    ----------
    before, after : mapping of int to ClassMeanRows
        Uploads of the features before and after training, by client.
    num_classes : int
        Number of classes.

    Returns
    -------
    dict of int to ClassMeans
        Of the clients that have rows before and no upload afterwards; none where nobody sent both.
    """
    both = sorted(before.keys() & after.keys())
    gone = [client for client in before if client not in after and before[client].num_rows]
    if not gone or not any(before[client].num_rows for client in both):
        return {}
    moves = class_moves([before[client] for client in both], [after[client] for client in both], num_classes)
    moved = {}
    for client in gone:
        rows = before[client]
        means = (rows.means.double() + moves[rows.class_ids]).to(rows.dtype)
        moved[client] = ClassMeans(rows.class_ids, rows.counts, means, rows.noise)
    return moved
