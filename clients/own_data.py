"""A node's own data: images that are to be embedded, or features that were, by the class names agreed on."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from functools import lru_cache
from logging import getLogger
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from flwr.app import Context
from numpy.typing import NDArray
from torch import Tensor

from clients.asked import encoder_of
from clients.data_state import own_data_state
from clients.node_state import state_of
from clients.refusal import Refusal
from fedcof.data.class_list import listed_names
from fedcof.data.node_features import read_node_features
from fedcof.data.problem import backbone_of
from fedcof.embedding.feature_table import FeatureTable, feature_cache_dir
from fedcof.run.config import RunConfig
from fedcof.run.protocol import DATA

if TYPE_CHECKING:
    import datasets

    from fedcof.embedding.backbones import Backbone

IMAGES_AT_ONCE = 256
logger = getLogger("flwr")

Places = NDArray[np.int64]


class OwnData(Protocol):
    """What a node has: labelled samples that become features."""

    def labels(self) -> NDArray[np.int64]:
        """Class of each of the n samples."""

    def digests(self) -> list[str]:
        """Digest of the content of each sample."""

    def features(self, config: RunConfig, places: Places, trained: Backbone | None = None) -> Tensor:
        """Features (m, d) float32 of the m samples at these places, embedded if need be.

        With a trained backbone they are that one's; features that were computed before have none.
        """


class OwnImages:
    """A node's images.

    Parameters
    ----------
    images : datasets.Dataset
        Columns ``image`` and ``label``.
    """

    def __init__(self, images: datasets.Dataset) -> None:
        self.images = images

    def labels(self) -> NDArray[np.int64]:
        """Class of each of the n images."""
        from fedcof.embedding.images import column_values

        return column_values(self.images, "label").astype(np.int64)

    def digests(self) -> list[str]:
        """Digest the content of every image, a few at a time."""
        from fedcof.embedding.images import encoded_images

        encoded = encoded_images(self.images)
        digests = []
        for start in range(0, len(encoded), IMAGES_AT_ONCE):
            for image in encoded[start : start + IMAGES_AT_ONCE]["image"]:
                content = image["bytes"] if image["bytes"] is not None else Path(image["path"]).read_bytes()
                digests.append(hashlib.sha256(content).hexdigest())
        return digests

    def features(self, config: RunConfig, places: Places, trained: Backbone | None = None) -> Tensor:
        """Embed the images at these places, or read what was embedded; see :class:`OwnData`."""
        from fedcof.embedding.feature_cache import cached_features
        from fedcof.embedding.features import extract_features

        backbone, size = trained or backbone_of(config), config.embedding.batch_size
        if not len(self.images):
            return torch.empty(0, backbone.feature_dim)
        # What training ends with is asked for once, and what it gives is kept as the answer.
        if config.embedding.feature_cache and not trained:
            # A node starts a new process for every message: what it embedded is on disk.
            table = cached_features(backbone, self.images, feature_cache_dir(), size)
            return torch.from_numpy(table.features[places])
        return extract_features(backbone, self.images.select(places), size)


class OwnFeatures:
    """A node's features, which were computed before.

    Parameters
    ----------
    table : FeatureTable
        Features and labels.
    """

    def __init__(self, table: FeatureTable) -> None:
        self._table = table

    def labels(self) -> NDArray[np.int64]:
        """Class of each of the n samples."""
        return self._table.labels

    def digests(self) -> list[str]:
        """Digest the features of every sample."""
        return [hashlib.sha256(row.tobytes()).hexdigest() for row in self._table.features]

    def features(self, config: RunConfig, places: Places, trained: Backbone | None = None) -> Tensor:
        """Read the features at these places; see :class:`OwnData`."""
        return torch.from_numpy(self._table.features[places])


def own_data(config: RunConfig, context: Context, thorough: bool = False) -> OwnData:
    """Read what a node has.

    Parameters
    ----------
    config : RunConfig
        The run.
    context : Context
        The node's context.
    thorough : bool
        Whether every image is decoded to find those that cannot be used.

    Returns
    -------
    OwnData
        Features where the node declares their encoder, else images.

    Raises
    ------
    UserError
        If the node has no such data where it says, or some of it cannot be used.
    """
    if encoder_of(context.node_config):
        names = listed_names(config.data.classes)
        return OwnFeatures(read_node_features(str(context.node_config[DATA]), names, config.data.feature_dim))
    return OwnImages(own_images(config, context, thorough))


def own_images(config: RunConfig, context: Context, thorough: bool = False) -> datasets.Dataset:
    """Read a node's images.

    Parameters
    ----------
    config, context, thorough
        See :func:`own_data`.

    Returns
    -------
    Dataset
        Columns ``image`` and ``label``.

    Raises
    ------
    UserError
        As :func:`own_data`.
    """
    if thorough:
        _images_of.cache_clear()
    # In the folder where the node notes its answers, which no message carries away.
    folder = state_of(context.node_config).folder
    data = str(context.node_config[DATA])
    state = own_data_state(context.node_config)
    return _images_of(data, config.data.classes, config.data.bad_images, folder, thorough, state)


@lru_cache(maxsize=2)
def _images_of(
    data: str, classes: str, bad_images: str, folder: Path, thorough: bool, state: str
) -> datasets.Dataset:
    """Read a node's images in a state of theirs. What is left out of them goes to its own log, and no further."""
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
