"""What becomes of a client's samples before they are sent: as many, as private, as short as was asked for."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from clients.policy import NodePolicy
from fedcof import ClassMeans, FeatureMoments, class_means, feature_moments
from fedcof.privacy.mechanism import Privacy
from fedcof.privacy.noise import NoiseSource, SecretNoise, SeededNoise
from fedcof.privacy.release import private_class_means, private_feature_moments
from fedcof.run.config import NODES, RunConfig
from fedcof.statistics.groups import automatic_groups
from fedcof.wire.arrays import CODED, Arrays
from fedcof.wire.budget import step_of, within_class_deviation, write_within_budget
from fedcof.wire.encoding import encode_class_means, encode_feature_moments


@dataclass(frozen=True, eq=False)
class Upload:
    """What a client sends.

    Attributes
    ----------
    arrays : dict of str to ndarray
        As :mod:`fedcof.encoding` makes them.
    samples : int
        How many samples it says it has: with privacy, as many as the noisy counts say.
    withheld : int
        Rows that the node's policy held back.
    """

    arrays: Arrays
    samples: int
    withheld: int = 0


@dataclass(frozen=True, eq=False)
class Client:
    """A client's samples, and what it is asked.

    Attributes
    ----------
    config : RunConfig
        The run.
    number, seed : int
        The client's number, and the seed of its random groups and of its dither.
    num_classes : int
        Number of classes C of the whole federation.
    features : Tensor of shape (n, d), floating point
        Feature vectors of its samples.
    labels : Tensor of shape (n,), int64
        Class of each.
    policy : NodePolicy or None
        What the node's owner allows, if it has one.
    """

    config: RunConfig
    number: int
    seed: int
    num_classes: int
    features: Tensor
    labels: Tensor
    policy: NodePolicy | None = None

    def upload(self) -> Upload:
        """Make the upload that the run's method asks for.

        Returns
        -------
        Upload
            Ready to be sent.

        Raises
        ------
        UserError
            If a budget is too small for the client's classes, or a mean does not fit the encoding.
        """
        if self.config.method == "fed3r":
            moments = self._moments()
            return Upload(encode_feature_moments(moments), self._samples(moments.counts))
        if self.config.has_budget:
            return self._within_budget()
        groups = self.config.groups or automatic_groups(
            self.config.num_clients, self.num_classes, self._classes_held
        )
        means, withheld = self._rows(groups)
        step = None
        if self.config.encoding == CODED:
            step = step_of(self.config.rounding_noise, within_class_deviation(self.features, self.labels))
        arrays = encode_class_means(means, self.config.encoding, self.seed, step)
        return Upload(arrays, self._samples(means.counts), withheld)

    def _within_budget(self) -> Upload:
        num_bytes = self.config.bytes_per_client or self.config.bytes_per_class * max(self._classes_held, 1)
        plan, stream = write_within_budget(
            lambda groups: self._rows(groups)[0], self.features, self.labels, num_bytes, self.seed
        )
        return Upload({CODED: stream}, len(self.labels), self._rows(plan.groups)[1])

    def _rows(self, groups: int) -> tuple[ClassMeans, int]:
        """Make the rows that may be sent, and count those that may not."""
        if privacy := Privacy.of(self.config):
            means = private_class_means(
                self.features, self.labels, self.num_classes, privacy, self._noise_source(), groups
            )
        else:
            means = class_means(self.features, self.labels, groups, torch.Generator().manual_seed(self.seed))
        return self.policy.withhold(means) if self.policy else (means, 0)

    def _moments(self) -> FeatureMoments:
        if privacy := Privacy.of(self.config):
            source = self._noise_source()
            return private_feature_moments(self.features, self.labels, self.num_classes, privacy, source)
        return feature_moments(self.features, self.labels)

    def _noise_source(self) -> NoiseSource:
        """Choose the noise: the server knows the seed, so it must not decide where the data is somebody's own."""
        return SecretNoise() if self.config.dataset == NODES else SeededNoise(self.config.seed, self.number)

    def _samples(self, counts: Tensor) -> int:
        return int(counts.sum()) if self.config.epsilon else len(self.labels)

    @property
    def _classes_held(self) -> int:
        return len(torch.unique(self.labels))
