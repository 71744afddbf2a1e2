"""What becomes of a client's samples before they are sent: class means, as many and encoded as asked for."""

from __future__ import annotations

import torch
from torch import Tensor

from clients.policy import NodePolicy
from fedcof import ClassMeans, class_means
from fedcof.budget import step_of, within_class_deviation, write_within_budget
from fedcof.configuration import RunConfig
from fedcof.encoding import CODED, Arrays, encode_class_means
from fedcof.grouping import automatic_groups


def class_means_to_send(
    config: RunConfig, num_classes: int, features: Tensor, labels: Tensor, seed: int, policy: NodePolicy | None
) -> tuple[Arrays, int]:
    """Make a client's upload of class means.

    Parameters
    ----------
    config : RunConfig
        The run: groups and encoding, or the budget that chooses them.
    num_classes : int
        Number of classes C of the whole federation.
    features : Tensor of shape (n, d), floating point
        Feature vectors of the client's samples.
    labels : Tensor of shape (n,), int64
        Class of each sample.
    seed : int
        Seed of the random groups and of the dither.
    policy : NodePolicy or None
        What the node's owner allows, if it has one.

    Returns
    -------
    tuple of (dict of str to ndarray, int)
        The encoded upload, and the number of rows that the policy withheld.

    Raises
    ------
    UserError
        If a budget is too small for the client's classes, or a mean does not fit the encoding.
    """

    def rows(groups: int) -> tuple[ClassMeans, int]:
        means = class_means(features, labels, groups, torch.Generator().manual_seed(seed))
        return policy.withhold(means) if policy else (means, 0)

    classes_held = len(torch.unique(labels))
    if config.has_budget:
        num_bytes = config.bytes_per_client or config.bytes_per_class * max(classes_held, 1)
        plan, stream = write_within_budget(lambda groups: rows(groups)[0], features, labels, num_bytes, seed)
        return {CODED: stream}, rows(plan.groups)[1]
    groups = config.groups or automatic_groups(config.num_clients, num_classes, classes_held)
    upload, withheld = rows(groups)
    step = None
    if config.encoding == CODED:
        step = step_of(config.rounding_noise, within_class_deviation(features, labels))
    return encode_class_means(upload, config.encoding, seed, step), withheld
