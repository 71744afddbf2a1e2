"""What happens to statistics on their way: a chain of stages, each with a client's and a server's half.

    client   measure (privately) -> withhold -> encode
    server   decode -> check -> correct

The client's halves run in this order and the server's in the reverse one; nothing is sent or added that has not
gone through all of them. Privacy comes before withholding, because a row that is left out by its true count would
tell of that count, while one that is left out by its noisy count tells nothing that is not released anyway.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

import torch
from numpy.typing import NDArray

from fedcof.errors import UserError
from fedcof.methods.method import FederatedMethod, Samples
from fedcof.privacy.mechanism import Privacy
from fedcof.privacy.noise import NoiseSource
from fedcof.statistics.base import Statistics
from fedcof.statistics.groups import ROWS_PER_CLASS, automatic_groups
from fedcof.wire.arrays import Arrays
from fedcof.wire.codec import Codec, Measurement, MessageBytes, numbers_alone
from fedcof.wire.coded_header import BYTES_PER_ROW
from fedcof.wire.encoding import codec_of
from fedcof.wire.registry import CODECS, CODED, encodings_of

if TYPE_CHECKING:
    from fedcof.wire.section import WireSection

FLOAT32_BYTES = 4
# More than a class id and a count take.
BYTES_OF_CLASS = 16


@dataclass(frozen=True, eq=False)
class Outgoing:
    """An upload on its way out.

    Attributes
    ----------
    samples : Samples
        Of the client.
    take : callable
        Takes a number of groups, and gives the statistics so far and how many rows they lack. With privacy every
        call is a release of its own, so it is called once.
    statistics, arrays, tag, withheld
        What is sent, once it is known; how the arrays are written; and how many rows are not sent.
    """

    samples: Samples
    take: Callable[[int], tuple[Statistics, int]]
    statistics: Statistics | None = None
    arrays: Arrays = field(default_factory=dict)
    tag: str = ""
    withheld: int = 0


@dataclass(frozen=True, eq=False)
class Incoming:
    """An upload on its way in: its arrays and tag, and its statistics once they are read."""

    arrays: Mapping[str, NDArray[Any]]
    tag: str
    statistics: Statistics | None = None

    def read(self) -> Statistics:
        """Give the statistics of an upload that has been read."""
        assert self.statistics is not None
        return self.statistics


class Stage(Protocol):
    """One step of the way, with both of its halves."""

    def send(self, upload: Outgoing) -> Outgoing:
        """Do the client's half."""

    def receive(self, upload: Incoming) -> Incoming:
        """Do the server's half; raises UserError if the upload cannot be used."""


@dataclass(frozen=True, eq=False)
class Measure:
    """Measure, with privacy where it is promised; and check and note on the server what privacy has done.

    Attributes
    ----------
    method : FederatedMethod
        What is measured.
    num_classes : int
        Number of classes C of the whole federation.
    privacy : Privacy or None
        The promise.
    source : callable or None
        Makes the source of its noise, on a client.
    subtract_noise : bool
        Whether the server is to take the noise off.
    """

    method: FederatedMethod
    num_classes: int
    privacy: Privacy | None = None
    source: Callable[[], NoiseSource] | None = None
    subtract_noise: bool = True

    def send(self, upload: Outgoing) -> Outgoing:
        """Measure the samples."""

        def take(groups: int) -> tuple[Statistics, int]:
            if self.privacy and self.source:
                noisy = self.method.measure_privately(upload.samples, groups, self.privacy, self.source())
                return noisy, 0
            return self.method.measure(upload.samples, groups), 0

        return replace(upload, take=take)

    def receive(self, upload: Incoming) -> Incoming:
        """Refuse what the promise cannot have made, and note its noise."""
        if not self.privacy:
            return upload
        noted = self.method.received(upload.read(), self.privacy, self.num_classes, self.subtract_noise)
        return replace(upload, statistics=noted)


@dataclass(frozen=True, eq=False)
class Withhold:
    """Leave out what a node's owner does not give away; and check on the server what has come.

    Attributes
    ----------
    method : FederatedMethod
        What was measured.
    num_classes, feature_dim : int
        Number of classes C and dimension d; the latter is looked at by the server alone.
    smallest_count : int
        Fewest samples that a row is sent of.
    private : bool
        Whether counts are noisy, so that nothing may be decided by the true ones.
    """

    method: FederatedMethod
    num_classes: int
    feature_dim: int = 0
    smallest_count: int = 1
    private: bool = False

    def send(self, upload: Outgoing) -> Outgoing:
        """Leave rows out; where numbers mix all classes, the samples of small classes before these are taken."""
        if self.smallest_count <= 1:
            return upload

        def take(groups: int) -> tuple[Statistics, int]:
            if self.method.statistics.MIXES_CLASSES and not self.private:
                samples, small = upload.samples.of_large_classes(self.smallest_count)
                return self.method.measure(samples, groups), small
            statistics, lacking = upload.take(groups)
            kept, left_out = statistics.withhold(self.smallest_count)
            return kept, lacking + left_out

        return replace(upload, take=take)

    def receive(self, upload: Incoming) -> Incoming:
        """Refuse what is not of this federation."""
        upload.read().check_fits(self.num_classes, self.feature_dim)
        return upload


@dataclass(frozen=True, eq=False)
class Encode:
    """Write as short as was asked for; and read.

    Attributes
    ----------
    method : FederatedMethod
        What is sent.
    wire : WireSection
        How.
    num_clients, num_classes : int
        Sizes of the federation, from which groups are chosen where that is asked for.
    most_rows : int or None
        Most rows that an upload may have; None for any number.
    most_groups : int or None
        Most rows of a class that a client sends, whatever it was asked for; None for any number.
    message_bytes : callable
        Counts the bytes of the message that carries an upload, for a budget.
    """

    method: FederatedMethod
    wire: WireSection
    num_clients: int
    num_classes: int
    most_rows: int | None = None
    most_groups: int | None = None
    message_bytes: MessageBytes = numbers_alone

    def send(self, upload: Outgoing) -> Outgoing:
        """Choose the number of groups, take the statistics, and write them."""
        codec = codec_for(self.method, self.wire)
        labels = upload.samples.labels
        groups = self.wire.groups or automatic_groups(self.num_clients, self.num_classes, len(torch.unique(labels)))
        lacking: dict[int, int] = {}

        def take(tried: int) -> Statistics:
            statistics, lacking[tried] = upload.take(min(tried, self.most_groups or tried))
            return statistics

        measurement = Measurement(upload.samples.features, labels, take, self.message_bytes)
        written = codec.write(measurement, groups, self.wire, upload.samples.seed)
        return replace(
            upload,
            statistics=written.statistics,
            arrays=written.arrays,
            tag=written.tag or codec.tag,
            withheld=lacking[written.groups],
        )

    def receive(self, upload: Incoming) -> Incoming:
        """Read the arrays, if they claim no more rows than a client can have."""
        codec = CODECS.get(upload.tag) if upload.tag else codec_of(upload.arrays)
        if codec.kind != self.method.kind:
            raise UserError(f"it sent {codec.kind} statistics, but was asked for {self.method.kind}")
        rows = codec.rows_claimed(upload.arrays)
        if self.most_rows is not None and rows > self.most_rows:
            raise UserError(f"its upload has {rows} rows, but may have {self.most_rows}")
        return replace(upload, statistics=codec.decode(upload.arrays))


@dataclass(frozen=True, eq=False)
class Chain:
    """Stages in the client's order."""

    stages: tuple[Stage, ...]

    def send(self, samples: Samples) -> Outgoing:
        """Make a client's upload.

        Parameters
        ----------
        samples : Samples
            What the client has.

        Returns
        -------
        Outgoing
            With statistics, arrays and tag.

        Raises
        ------
        UserError
            If a stage cannot do its part.
        """

        def nothing_measured(groups: int) -> tuple[Statistics, int]:
            raise AssertionError("the first stage measures")

        upload = Outgoing(samples, nothing_measured)
        for stage in self.stages:
            upload = stage.send(upload)
        return upload

    def receive(self, arrays: Mapping[str, NDArray[Any]], tag: str = "") -> Statistics:
        """Read a client's upload.

        Parameters
        ----------
        arrays : mapping of str to ndarray
            What it sent.
        tag : str
            How that is written; found out where it is empty.

        Returns
        -------
        Statistics
            To be added.

        Raises
        ------
        UserError
            If it cannot be used, whatever it is.
        """
        return self._received(Incoming(arrays, tag), self.stages)

    def receive_decoded(self, statistics: Statistics) -> Statistics:
        """Read statistics that were decoded before.

        Parameters
        ----------
        statistics : Statistics
            As the codec gives them.

        Returns
        -------
        Statistics
            To be added.

        Raises
        ------
        UserError
            If they cannot be used.
        """
        decoded = [stage for stage in self.stages if not isinstance(stage, Encode)]
        return self._received(Incoming({}, "", statistics), decoded)

    def _received(self, upload: Incoming, stages: Sequence[Stage]) -> Statistics:
        try:
            for stage in reversed(stages):
                upload = stage.receive(upload)
        except (TypeError, ValueError, RuntimeError, OverflowError, KeyError) as error:
            raise UserError(f"its upload cannot be read ({error})") from error
        return upload.read()


def codec_for(method: FederatedMethod, wire: WireSection) -> Codec:
    """Give the codec that a run's clients write with.

    Parameters
    ----------
    method : FederatedMethod
        What they send.
    wire : WireSection
        How it is to be written.

    Returns
    -------
    Codec
        The one that was asked for; the first there is for statistics that have no choice.
    """
    known = encodings_of(method.kind)
    wanted = CODED if wire.has_budget else wire.encoding
    return CODECS.get(f"{method.kind}.{wanted if wanted in known else known[0]}")


def most_rows(wire: WireSection, num_classes: int, feature_dim: int) -> int:
    """Give the most rows that one client's upload can have.

    Parameters
    ----------
    wire : WireSection
        What was asked for.
    num_classes, feature_dim : int
        Number of classes C and dimension d.

    Returns
    -------
    int
        Rows; a budget bounds them by the few bytes that each takes beside its numbers.
    """
    if wire.has_budget:
        given = max(wire.bytes_per_client, wire.bytes_per_class * num_classes)
        return (given or num_classes * (FLOAT32_BYTES * feature_dim + BYTES_OF_CLASS)) // BYTES_PER_ROW
    return num_classes * (wire.groups or ROWS_PER_CLASS)
