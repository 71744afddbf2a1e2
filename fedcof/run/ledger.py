"""The ledger: how many bytes each client sent and received, in which round, for which message."""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, order=True)
class Occasion:
    """What bytes were sent for.

    Attributes
    ----------
    round : int
        Number of the round, from 1; 0 for messages outside of rounds.
    message : str
        Type of the message, as Flower has it.
    client : int
        Client number.
    """

    round: int
    message: str
    client: int


@dataclass
class Traffic:
    """Bytes of one occasion.

    Attributes
    ----------
    uplink : int
        From the client to the server.
    downlink : int
        From the server to the client.
    """

    uplink: int = 0
    downlink: int = 0


@dataclass
class Ledger:
    """Bytes up and down, per round, message and client."""

    _traffic: defaultdict[Occasion, Traffic] = field(default_factory=lambda: defaultdict(Traffic))

    def record(self, occasion: Occasion, uplink: int = 0, downlink: int = 0) -> None:
        """Count bytes.

        Parameters
        ----------
        occasion : Occasion
            What they were sent for.
        uplink, downlink : int
            Bytes from and to the client.
        """
        traffic = self._traffic[occasion]
        traffic.uplink += uplink
        traffic.downlink += downlink

    @property
    def uplink_bytes(self) -> int:
        """Bytes that all clients sent."""
        return sum(traffic.uplink for traffic in self._traffic.values())

    @property
    def downlink_bytes(self) -> int:
        """Bytes that all clients received."""
        return sum(traffic.downlink for traffic in self._traffic.values())

    def entries(self) -> list[tuple[Occasion, Traffic]]:
        """List everything counted, by round, message and client."""
        return sorted(self._traffic.items(), key=lambda entry: entry[0])

    def to_rows(self) -> list[list[int | str]]:
        """Write everything counted as plain values: round, message, client, uplink and downlink bytes."""
        return [[o.round, o.message, o.client, traffic.uplink, traffic.downlink] for o, traffic in self.entries()]

    def add_rows(self, rows: Iterable[Sequence[int | str]]) -> None:
        """Count what was written by :meth:`to_rows` too.

        Parameters
        ----------
        rows : iterable of sequence
            Its rows.
        """
        for number, message, client, uplink, downlink in rows:
            occasion = Occasion(int(number), str(message), int(client))
            self.record(occasion, int(uplink), int(downlink))

    def to_csv(self) -> str:
        """Write everything counted as a table with a line of headings.

        Returns
        -------
        str
            Columns ``round``, ``message``, ``client``, ``uplink_bytes``, ``downlink_bytes``.
        """
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["round", "message", "client", "uplink_bytes", "downlink_bytes"])
        writer.writerows(self.to_rows())
        return text.getvalue()
