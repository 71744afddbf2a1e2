"""What a codec is: one way to write one kind of statistics as named arrays, and to read it back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from numpy.typing import NDArray
from torch import Tensor

from fedcof.registry import check_filled_in
from fedcof.statistics.base import Statistics
from fedcof.wire.arrays import Arrays, num_bytes

if TYPE_CHECKING:
    from fedcof.wire.section import WireSection


MessageBytes = Callable[[Arrays, str], int]


def numbers_alone(arrays: Arrays, tag: str) -> int:
    """Count the bytes of an upload's numbers, for whoever sends them in no message."""
    return num_bytes(arrays)


@dataclass(frozen=True, eq=False)
class Measurement:
    """A client's samples, and what is measured of them for any number of groups.

    Attributes
    ----------
    features : Tensor of shape (n, d), floating point
        Feature vectors.
    labels : Tensor of shape (n,), int64
        Class of each.
    take : callable
        Takes a number of groups and gives the statistics that may be sent; with privacy every call is a release.
    message_bytes : callable
        Takes an upload's arrays and tag, and counts the bytes of the whole message that carries them.
    """

    features: Tensor
    labels: Tensor
    take: Callable[[int], Statistics]
    message_bytes: MessageBytes = numbers_alone


class Sent(NamedTuple):
    """What crossed the wire: named arrays, and the tag that says how they are written, or no tag."""

    arrays: Mapping[str, NDArray[Any]]
    tag: str = ""


@dataclass(frozen=True, eq=False)
class Written:
    """Statistics that were written.

    Attributes
    ----------
    statistics : Statistics
        What was measured.
    groups : int
        Rows per class that it was measured with.
    arrays : dict of str to ndarray
        What stands for it.
    tag : str
        How it is written, where that is not the codec's own way.
    """

    statistics: Statistics
    groups: int
    arrays: Arrays
    tag: str = ""


class Codec(ABC):
    """One way to write one kind of statistics.

    Attributes
    ----------
    kind : str
        Kind of the statistics, see :class:`fedcof.statistics.base.Statistics`.
    encoding : str
        Its own name, as the key ``encoding`` has it.
    """

    kind: ClassVar[str]
    encoding: ClassVar[str]

    @property
    def tag(self) -> str:
        """What says on the wire, and in files, how an upload is written."""
        return f"{self.kind}.{self.encoding}"

    def write(self, measurement: Measurement, groups: int, settings: WireSection, seed: int) -> Written:
        """Measure and write; a codec that chooses groups or steps by itself does that here.

        Parameters
        ----------
        measurement : Measurement
            What is to be sent.
        groups : int
            Rows per class that were asked for.
        settings : WireSection
            How fine it is to be written.
        seed : int
            Seed of the upload's dither, from 0.

        Returns
        -------
        Written
            What was measured, and the arrays that stand for it.
        """
        statistics = measurement.take(groups)
        return Written(statistics, groups, self.encode(statistics, seed))

    @abstractmethod
    def encode(self, statistics: Any, seed: int) -> Arrays:  # noqa: ANN401
        """Write statistics.

        Parameters
        ----------
        statistics : Statistics
            Of the codec's kind.
        seed : int
            Seed of the upload's dither, from 0, for those that round.

        Returns
        -------
        dict of str to ndarray
            In types that Flower carries.

        Raises
        ------
        UserError
            If a number is beyond what can be written.
        """

    @abstractmethod
    def decode(self, arrays: Mapping[str, NDArray[Any]]) -> Statistics:
        """Read statistics back.

        Parameters
        ----------
        arrays : mapping of str to ndarray
            What a client sent.

        Returns
        -------
        Statistics
            Checked, with the variance of the noise that writing put on them.

        Raises
        ------
        UserError
            If an array is missing or does not hold what it should.
        """

    @abstractmethod
    def rows_claimed(self, arrays: Mapping[str, NDArray[Any]]) -> int:
        """Count the rows that an upload claims to have, before memory is taken for them; 0 if it does not say."""

    def recognises(self, arrays: Mapping[str, NDArray[Any]]) -> bool:
        """Tell whether arrays without a tag, as earlier versions sent them, are written so."""
        return False


def check_codec(tag: str, codec: Codec) -> None:
    """Check that an object can be registered as a codec.

    Parameters
    ----------
    tag : str
        Under which it is to be known.
    codec : Codec
        The object.

    Raises
    ------
    UserError
        If it is no whole codec, or the tag is another's.
    """
    check_filled_in("codec", tag, codec, (Codec,), ["tag", "kind", "encoding"])
