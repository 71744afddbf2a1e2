"""The samples that a client answers with: its node's own, or in a simulation its part of a dataset."""

from __future__ import annotations

from contextlib import suppress
from functools import lru_cache
from logging import getLogger
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from flwr.app import Context
from torch import Tensor

from clients.policy import NodePolicy
from fedcof import UserError
from fedcof.data.class_list import listed_names
from fedcof.data.problem import backbone_of
from fedcof.data.virtual_clients import client_images, client_samples, held_out_part
from fedcof.embedding.feature_table import feature_cache_dir
from fedcof.run.config import RunConfig
from fedcof.run.protocol import DATA

if TYPE_CHECKING:
    import datasets

logger = getLogger("flwr")


def features_here(
    config: RunConfig, client: int, context: Context, held_out: bool = False
) -> tuple[Tensor, Tensor]:
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
    tuple of Tensor
        Features (n, d) float32 and labels (n,) int64.

    Raises
    ------
    UserError
        If the node has no data where it says, or an image cannot be read.
    """
    if not config.data.on_nodes:
        return client_samples(config, client, held_out)
    from fedcof.embedding.images import UndecodableImageError

    try:
        return _node_features(config, client, held_out, _node_images(config, context))
    except UndecodableImageError:
        _images_of.cache_clear()
        return _node_features(config, client, held_out, _node_images(config, context, thorough=True))


def _node_features(
    config: RunConfig, client: int, held_out: bool, images: datasets.Dataset
) -> tuple[Tensor, Tensor]:
    from fedcof.embedding.feature_cache import cached_features
    from fedcof.embedding.features import extract_features
    from fedcof.embedding.images import column_values

    labels = torch.from_numpy(column_values(images, "label").astype(np.int64))
    mine = held_out_part(np.arange(len(images)), config, client, held_out)
    backbone = backbone_of(config)
    if not len(images):
        return torch.empty(0, backbone.feature_dim), labels
    if config.embedding.feature_cache:
        # A node starts a new process for every message: what it embedded is on disk.
        table = cached_features(backbone, images, feature_cache_dir(), config.embedding.batch_size)
        return torch.from_numpy(table.features[mine]), labels[mine]
    return extract_features(backbone, images.select(mine), config.embedding.batch_size), labels[mine]


def images_here(
    config: RunConfig, client: int, context: Context, held_out: bool = False
) -> tuple[datasets.Dataset, Tensor]:
    """Images and labels of a client's samples.

    Parameters
    ----------
    config, client, context, held_out
        See :func:`features_here`.

    Returns
    -------
    tuple of (Dataset, Tensor)
        The images, not yet read, and labels (n,) int64.
    """
    if not config.data.on_nodes:
        return client_images(config, client, held_out)
    from fedcof.embedding.images import column_values

    images = _node_images(config, context)
    mine = images.select(held_out_part(np.arange(len(images)), config, client, held_out))
    return mine, torch.from_numpy(column_values(mine, "label").astype(np.int64))


def _data_of(context: Context) -> str:
    if DATA not in context.node_config:
        raise UserError("its node-config names no data: start it with data and name in --node-config")
    return str(context.node_config[DATA])


def _node_images(config: RunConfig, context: Context, thorough: bool = False) -> datasets.Dataset:
    # In the folder where the node notes its answers, which no message carries away.
    folder = NodePolicy.of(context.node_config).folder
    return _images_of(_data_of(context), config.data.classes, config.data.bad_images, folder, thorough)


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
        raise UserError(
            f"{bad} of its images cannot be used: its log names them; mend or remove them there, or set bad-images "
            "to skip for the run"
        ) from error
    for line in found.intake.summary():
        logger.info("%s", line)
    with suppress(OSError):
        write_left_out(found.intake.left_out, folder)
    return found.images
