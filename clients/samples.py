"""The samples that a client answers with: its node's own, or in a simulation its part of a dataset."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from logging import getLogger
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from flwr.app import Context
from numpy.typing import NDArray
from torch import Tensor

from clients.asked import policy_of
from clients.cells import NOT_SENT, cells_of
from clients.node_state import state_of
from clients.policy import NodePolicy
from clients.refusal import Refusal
from fedcof.data.class_list import listed_names
from fedcof.data.problem import backbone_of
from fedcof.data.virtual_clients import client_images, client_samples
from fedcof.embedding.feature_table import feature_cache_dir
from fedcof.embedding.transform import transformed
from fedcof.run.config import RunConfig
from fedcof.run.protocol import DATA

if TYPE_CHECKING:
    import datasets

IMAGES_AT_ONCE = 256
logger = getLogger("flwr")


@dataclass(frozen=True, eq=False)
class Held:
    """What a client holds, and may send.

    Attributes
    ----------
    features : Tensor of shape (n, d), float32
        Feature vectors.
    labels : Tensor of shape (n,), int64
        Class of each sample.
    cells : Tensor of shape (n,), int64, or None
        Cell of each sample within its class; None in a simulation, and under privacy noise.
    ids : list of str
        Class and content of each sample; empty in a simulation.
    withheld : int
        Classes of which it holds samples, but none that may be sent.
    """

    features: Tensor
    labels: Tensor
    cells: Tensor | None = None
    ids: tuple[str, ...] = ()
    withheld: int = 0


def held_here(config: RunConfig, client: int, context: Context, held_out: bool = False) -> Held:
    """Features and labels of a client's samples.

    Parameters
    ----------
    config : RunConfig
        The run.
    client : int
        Client number.
    context : Context
        The node's context.
    held_out : bool
        Whether the samples that it keeps for evaluation are meant, and not all others.

    Returns
    -------
    Held
        Its samples; on a node with data of its own, those that are in a cell.

    Raises
    ------
    UserError
        If the node has no data where it says, or an image cannot be read.
    """
    policy = policy_of(context)
    if policy is None:
        return Held(*client_samples(config, client, held_out))
    from fedcof.embedding.images import UndecodableImageError

    try:
        return _held_on_node(config, policy, held_out, _node_images(config, context))
    except UndecodableImageError:
        _images_of.cache_clear()
        return _held_on_node(config, policy, held_out, _node_images(config, context, thorough=True))


def _held_on_node(config: RunConfig, policy: NodePolicy, held_out: bool, images: datasets.Dataset) -> Held:
    from fedcof.embedding.feature_cache import cached_features
    from fedcof.embedding.features import extract_features

    mine = _sendable(config, images, policy, held_out)
    backbone = backbone_of(config)
    if not len(images):
        features = torch.empty(0, backbone.feature_dim)
    elif config.embedding.feature_cache:
        # A node starts a new process for every message: what it embedded is on disk.
        size = config.embedding.batch_size
        table = cached_features(backbone, images, feature_cache_dir(), size)
        features = torch.from_numpy(table.features[mine.places])
    else:
        selected = images.select(mine.places)
        features = extract_features(backbone, selected, config.embedding.batch_size)
    cells = None if config.privacy.epsilon else torch.from_numpy(mine.cells)
    features = transformed(features, config.embedding.feature_transform)
    return Held(features, torch.from_numpy(mine.labels), cells, mine.ids, mine.withheld)


def images_here(
    config: RunConfig, client: int, context: Context, held_out: bool = False
) -> tuple[datasets.Dataset, Tensor]:
    """Images and labels of a client's samples.

    Parameters
    ----------
    config, client, context, held_out
        See :func:`held_here`.

    Returns
    -------
    tuple of (Dataset, Tensor)
        The images, not yet read, and labels (n,) int64.
    """
    policy = policy_of(context)
    if policy is None:
        return client_images(config, client, held_out)
    images = _node_images(config, context)
    mine = _sendable(config, images, policy, held_out)
    return images.select(mine.places), torch.from_numpy(mine.labels)


@dataclass(frozen=True, eq=False)
class _Sendable:
    """Places of the samples in the node's table, with class, cell and identity of each."""

    places: NDArray[np.int64]
    labels: NDArray[np.int64]
    cells: NDArray[np.int64]
    ids: tuple[str, ...]
    withheld: int


def _sendable(config: RunConfig, images: datasets.Dataset, policy: NodePolicy, held_out: bool) -> _Sendable:
    from fedcof.embedding.images import column_values

    labels = column_values(images, "label").astype(np.int64)
    names = listed_names(config.data.classes)
    digests = _digests(images)
    classes = [names[label] for label in labels]
    if config.privacy.epsilon:
        # Cells would depend on true counts, which the promise does not cover; its noise hides every sample.
        cells, mine = np.zeros(len(labels), np.int64), np.ones(len(labels), bool)
    else:
        cells = cells_of(classes, digests, policy.smallest_count, policy.state)
        share = config.data.client_test_share
        mine = (cells != NOT_SENT) & (not share or _is_held_out(labels, cells, share) == held_out)
    places = np.flatnonzero(mine)
    ids = tuple(f"{classes[place]} {digests[place]}" for place in places)
    withheld = len(np.unique(labels)) - len(np.unique(labels[places]))
    return _Sendable(places, labels[places], cells[places], ids, withheld)


def _is_held_out(labels: NDArray[np.int64], cells: NDArray[np.int64], share: float) -> NDArray[np.bool_]:
    """Hold whole cells out, for a larger share those of a smaller one too: subtracting tells of cells alone."""
    number_of_cells = np.zeros(labels.max(initial=0) + 1, np.int64)
    np.maximum.at(number_of_cells, labels, cells + 1)
    first_held_out = number_of_cells - np.floor(share * number_of_cells).astype(np.int64)
    held_out: NDArray[np.bool_] = cells >= first_held_out[labels]
    return held_out


def _digests(images: datasets.Dataset) -> list[str]:
    """Digest the content of every image, a few at a time."""
    from fedcof.embedding.images import encoded_images

    encoded = encoded_images(images)
    digests = []
    for start in range(0, len(encoded), IMAGES_AT_ONCE):
        for image in encoded[start : start + IMAGES_AT_ONCE]["image"]:
            content = image["bytes"] if image["bytes"] is not None else Path(image["path"]).read_bytes()
            digests.append(hashlib.sha256(content).hexdigest())
    return digests


def _node_images(config: RunConfig, context: Context, thorough: bool = False) -> datasets.Dataset:
    # In the folder where the node notes its answers, which no message carries away.
    folder = state_of(context.node_config).folder
    data = str(context.node_config[DATA])
    return _images_of(data, config.data.classes, config.data.bad_images, folder, thorough)


@lru_cache(maxsize=2)
def _images_of(data: str, classes: str, bad_images: str, folder: Path, thorough: bool) -> datasets.Dataset:
    """Read a node's images. What is left out of them goes to its own log: the server learns no name of a file."""
    from fedcof.data.intake import LEFT_OUT_FILE_NAME, BadImagesError, write_left_out
    from fedcof.data.node_data import read_node_images

    try:
        # Names not from a file, even if they look like its path: a server would be told what stands in it.
        found = read_node_images(data, listed_names(classes), bad_images, thorough)
    except BadImagesError as error:
        logger.error("%s All are listed in %s.", error, folder / LEFT_OUT_FILE_NAME)
        with suppress(OSError):
            write_left_out(error.left_out, folder)
        bad = sum(each.is_bad for each in error.left_out)
        raise Refusal(
            f"{bad} of its images cannot be used: its log names them; mend or remove them there, or set bad-images "
            "to skip for the run"
        ) from error
    for line in found.intake.summary():
        logger.info("%s", line)
    with suppress(OSError):
        write_left_out(found.intake.left_out, folder)
    return found.images
