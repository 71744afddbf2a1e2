"""The ledger: how many bytes each client sent and received."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Ledger:
    """Bytes up and down, per client.

    Attributes
    ----------
    uplink : Counter of int
        Bytes from each client to the server.
    downlink : Counter of int
        Bytes from the server to each client.
    """

    uplink: Counter[int] = field(default_factory=Counter)
    downlink: Counter[int] = field(default_factory=Counter)

    @property
    def uplink_bytes(self) -> int:
        """Bytes that all clients sent."""
        return self.uplink.total()

    @property
    def downlink_bytes(self) -> int:
        """Bytes that all clients received."""
        return self.downlink.total()
