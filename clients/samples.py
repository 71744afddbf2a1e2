"""The samples that a client answers with: its node's own, or in a simulation its part of a dataset."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
from flwr.app import Context
from numpy.typing import NDArray
from torch import Tensor

from clients.asked import policy_of
from clients.cells import NOT_SENT, cells_of
from clients.own_data import OwnData, OwnImages, own_data, own_images
from clients.policy import NodePolicy
from fedcof.data.class_list import listed_names
from fedcof.data.problem import fingerprint_of
from fedcof.data.schedule import new_samples
from fedcof.data.virtual_clients import client_images, client_samples, features_of_samples
from fedcof.embedding.transform import transformed
from fedcof.run.config import RunConfig

if TYPE_CHECKING:
    import datasets

    from fedcof.embedding.backbones import Backbone

T = TypeVar("T")


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
    withheld : int
        Classes of which it holds samples, but none that may be sent.
    """

    features: Tensor
    labels: Tensor
    cells: Tensor | None = None
    withheld: int = 0


class OwnSamples:
    """A node's own samples that may be sent: which they are, before any is embedded.

    Parameters
    ----------
    config : RunConfig
        The run.
    policy : NodePolicy
        What the node's owner allows.
    data : OwnData
        What the node has.
    held_out : bool
        See :func:`held_here`.
    trained : Backbone, optional
        What embeds them in place of the run's own.
    """

    def __init__(
        self,
        config: RunConfig,
        policy: NodePolicy,
        data: OwnData,
        held_out: bool = False,
        trained: Backbone | None = None,
    ) -> None:
        self._config, self._policy, self._data, self._trained = config, policy, data, trained
        self._sendable = _sendable(config, data, policy, held_out)

    @property
    def ids(self) -> list[str]:
        """Class and content of each."""
        return list(self._sendable.ids)

    @cached_property
    def fingerprint(self) -> str:
        """That of what makes, or made, their features."""
        if self._trained:
            return self._config.embedding.fingerprint(self._trained.fingerprint)
        return fingerprint_of(self._config)

    def held(self) -> Held:
        """Give them with their features, which are embedded now if need be.

        Returns
        -------
        Held
            All that may be sent.

        Raises
        ------
        UserError
            If an image cannot be read, or it takes longer than the owner allows.
        """
        mine = self._sendable
        features = self._data.features(self._config, mine.places, self._trained)
        features = transformed(features, self._config.embedding.feature_transform)
        cells = None if self._config.privacy.epsilon else torch.from_numpy(mine.cells)
        return Held(features, torch.from_numpy(mine.labels), cells, mine.withheld)


def with_own_samples(
    config: RunConfig,
    context: Context,
    policy: NodePolicy,
    use: Callable[[OwnSamples], T],
    held_out: bool = False,
    trained: Backbone | None = None,
) -> T:
    """Do something with a node's own samples, anew if an image shows to be damaged only as it is decoded.

    Parameters
    ----------
    config, context, held_out
        See :func:`held_here`.
    policy : NodePolicy
        What the node's owner allows.
    use : callable
        What to do.
    trained : Backbone, optional
        See :class:`OwnSamples`.

    Returns
    -------
    object
        What that gives.

    Raises
    ------
    UserError
        If the node has no data where it says, or some of it cannot be used.
    """
    from fedcof.embedding.flaws import UndecodableImageError

    try:
        return use(OwnSamples(config, policy, own_data(config, context), held_out, trained))
    except UndecodableImageError:
        return use(OwnSamples(config, policy, own_data(config, context, thorough=True), held_out, trained))


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
    return with_own_samples(config, context, policy, OwnSamples.held, held_out)


def new_here(config: RunConfig, client: int, step: int) -> Held:
    """Features and labels of the samples that a simulated client has not had before a step.

    Parameters
    ----------
    config : RunConfig
        A run that goes over several steps.
    client : int
        Client number.
    step : int
        Number of the step, from 1.

    Returns
    -------
    Held
        Its new samples, perhaps none.
    """
    return Held(*features_of_samples(config, new_samples(config, client, step)))


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
    images = own_images(config, context)
    mine = _sendable(config, OwnImages(images), policy, held_out)
    return images.select(mine.places), torch.from_numpy(mine.labels)


@dataclass(frozen=True, eq=False)
class _Sendable:
    """Places of the samples in the node's table, with class, cell and identity of each."""

    places: NDArray[np.int64]
    labels: NDArray[np.int64]
    cells: NDArray[np.int64]
    ids: tuple[str, ...]
    withheld: int


def _sendable(config: RunConfig, data: OwnData, policy: NodePolicy, held_out: bool) -> _Sendable:
    labels, digests = data.labels(), data.digests()
    names = listed_names(config.data.classes)
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
