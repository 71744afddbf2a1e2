"""What single clients have done to a run's classifier, where that was asked for."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch

from fedcof import FedCOF
from fedcof.data.problem import labels_of
from fedcof.methods.base import Aggregator, own_aggregator
from fedcof.methods.influence import MOST_SAMPLES, influence
from fedcof.run.config import RunConfig
from fedcof.run.influence import ClientInfluence
from server.evaluation import features_of
from server.federation import Federation
from server.one_shot import OneShotStrategy

MOST_CLIENTS = 20


def influence_of_run(
    strategy: OneShotStrategy | None, federation: Federation, config: RunConfig
) -> list[ClientInfluence]:
    """Say what single clients have done to the classifier of a run's uploads, where that was asked for.

    Parameters
    ----------
    strategy : OneShotStrategy or None
        What took the uploads in; None where none were asked for, or in an earlier part of the run.
    federation : Federation
        Knows the names of nodes.
    config : RunConfig
        The run.

    Returns
    -------
    list of ClientInfluence
        See :func:`influence_of_clients`.
    """
    if strategy is None:
        return []
    return influence_of_clients(strategy.aggregator, config, federation.names if config.data.on_nodes else {})


def influence_of_clients(
    aggregator: Aggregator, config: RunConfig, names: Mapping[int, str]
) -> list[ClientInfluence]:
    """Find the clients without which the classifier of a run's uploads would be most unlike itself.

    Parameters
    ----------
    aggregator : Aggregator
        FedCOF, or one around it, with all uploads.
    config : RunConfig
        The run; 1,000 samples of its test split, drawn by its seed, are classified where the server has any.
    names : mapping of int to str
        Names of nodes, by client.

    Returns
    -------
    list of ClientInfluence
        At most 20 of those whose uploads count, the one with the largest distance first; empty where the key is off
        or fewer than two clients have sent anything.
    """
    own = own_aggregator(aggregator)
    if not config.method.influence or not isinstance(own, FedCOF) or len(own.uploads()) < 2:
        return []
    labels = torch.tensor(labels_of(config, "test"))
    if len(labels) and own.feature_dim == (features := features_of(config)).shape[1]:
        generator = torch.Generator().manual_seed(config.data.seed)
        drawn = torch.randperm(len(labels), generator=generator)[:MOST_SAMPLES]
        found = influence(own, features[drawn], labels[drawn])
    else:
        found = influence(own)
    gains = [None] * len(found.sources) if found.accuracy is None else found.accuracy.tolist()
    columns = zip(found.sources, found.distances.tolist(), found.accuracy_of_means.tolist(), gains, strict=True)
    listed = [
        ClientInfluence(names.get(source, str(source)), distance, None if math.isnan(means) else means, gain)
        for source, distance, means, gain in columns
    ]
    return listed[:MOST_CLIENTS]
