"""Uploads of nodes with data of their own: checked, kept on disk as they come, and compared before they count."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from flwr.app import ConfigRecord, RecordDict

from fedcof import UserError
from fedcof.data.section import LONGEST_ENCODER
from fedcof.run.protocol import FINGERPRINT, NODE, SAMPLES, WITHHELD
from fedcof.run.results import NodeResult
from fedcof.statistics.base import Statistics
from fedcof.statistics.validation import MOST_SAMPLES
from fedcof.wire.codec import Sent
from server.screening import feature_scale, implausible
from server.upload_store import UploadStore

ACCEPTED, KEPT, EMPTY = "accepted", "accepted, from an earlier run", "has nothing to send"
NO_UPLOAD = "did not join"

# Flower has received an upload by then: this keeps it from being unpacked.
MOST_BYTES = 2**30
# No backbone's features are so long; squares of longer ones overflow float32.
LONGEST_FEATURE = 1e9


@dataclass(frozen=True)
class NodeRules:
    """What uploads of nodes must keep to.

    Attributes
    ----------
    store : UploadStore
        Where they are kept.
    names : mapping of int to str
        Name of each client's node.
    fingerprint : str
        That of the backbone that all must have used, or the encoder that all must declare.
    most_rows : int
        Most rows of an upload.
    expected : int
        Nodes of which the quorum is a share.
    left_out : mapping of str to str
        Why a node is no client, by its name.
    screened : bool
        Whether uploads are compared by scale, which privacy noise would make unlike.
    data_states : mapping of int to str
        What tells whether the data of a client's node has changed since its upload was kept.
    most_bytes : int
        Most bytes of a reply's arrays.
    is_declared : bool
        Whether nodes have features in place of images, and so declare an encoder.
    """

    store: UploadStore
    names: Mapping[int, str]
    fingerprint: str
    most_rows: int
    expected: int
    left_out: Mapping[str, str] = field(default_factory=dict)
    screened: bool = True
    data_states: Mapping[int, str] = field(default_factory=dict)
    most_bytes: int = MOST_BYTES
    is_declared: bool = False


class Intake:
    """Takes uploads in for a strategy.

    Parameters
    ----------
    rules : NodeRules
        What they must keep to.

    Attributes
    ----------
    nodes : dict of int to NodeResult
        What became of each client's node.
    """

    def __init__(self, rules: NodeRules) -> None:
        self.rules = rules
        self.nodes = {client: NodeResult(name, NO_UPLOAD) for client, name in rules.names.items()}
        self._waiting: dict[int, tuple[Statistics, Sent]] = {}

    def take_kept(self, read: Callable[[Sent], Statistics]) -> list[int]:
        """Take the uploads in that an earlier run has kept.

        Parameters
        ----------
        read : callable
            Reads an upload, or raises UserError.

        Returns
        -------
        list of int
            The clients that need not be asked.
        """
        taken = []
        kept = set(self.rules.store.names())
        for client, name in self.rules.names.items():
            data_state = self.rules.data_states.get(client, "")
            sent = self.rules.store.read(name, data_state) if name in kept else None
            if sent is not None:
                self._wait(client, read(sent), sent, KEPT)
                taken.append(client)
        return taken

    def check_size(self, content: RecordDict) -> None:
        """Refuse what is larger than any upload, before it is unpacked.

        Parameters
        ----------
        content : RecordDict
            A reply.

        Raises
        ------
        UserError
            If its arrays are too large, or it holds more records than were asked for.
        """
        weight = sum(len(array.data) for record in content.array_records.values() for array in record.values())
        if weight > self.rules.most_bytes:
            raise UserError(f"it sent {weight / 1e6:.0f} MB, where {self.rules.most_bytes / 1e6:.0f} were expected")
        if len(content.array_records) > 1 or content.metric_records:
            raise UserError("it sent records that it was not asked for")

    def take(self, client: int, upload: Statistics, sent: Sent, content: RecordDict) -> None:
        """Take one upload in and keep it.

        Parameters
        ----------
        client : int
            Its client.
        upload, sent
            What it sent, read, and as it was sent.
        content : RecordDict
            The whole reply.

        Raises
        ------
        UserError
            If it was made with another backbone, or its features are of no length that features have.
        """
        if _has_samples(upload) and not feature_scale(upload) <= LONGEST_FEATURE:
            raise UserError(f"its features are longer than {LONGEST_FEATURE:g}, which no backbone's are")
        said = content.config_records.get(NODE, ConfigRecord())
        found = str(said.get(FINGERPRINT, ""))
        if found != self.rules.fingerprint:
            raise UserError(self._of_another(found))
        self.rules.store.keep(self.rules.names[client], sent, self.rules.data_states.get(client, ""), upload)
        self._wait(client, upload, sent, ACCEPTED)
        samples, withheld = (_count(said.get(key, 0)) for key in (SAMPLES, WITHHELD))
        self.nodes[client] = replace(self.nodes[client], samples=samples, withheld=withheld)

    def _of_another(self, found: str) -> str:
        expected = self.rules.fingerprint
        if self.rules.is_declared:
            said = repr(found[:LONGEST_ENCODER]) if found else "unsaid"
            return f"the encoder of its features ({said}) is not the run's ({expected!r})"
        return (
            "its backbone's weights or preprocessing, or what it does to features "
            f"({_shortened(found) or 'unsaid'}), are not the server's ({_shortened(expected)})"
        )

    def release(self) -> Iterator[tuple[int, Statistics, Sent, str]]:
        """Compare what was taken in.

        Yields
        ------
        tuple of (int, Statistics, Sent, str)
            Each client, in order, with its upload, and why that must not count; empty if it may.
        """
        waiting, self._waiting = self._waiting, {}
        scales = {client: feature_scale(upload) for client, (upload, _) in waiting.items() if _has_samples(upload)}
        against = implausible(scales) if self.rules.screened else {}
        for client in sorted(waiting):
            if client in against:
                self.rules.store.remove(self.rules.names[client])
            yield client, *waiting[client], against.get(client, "")

    def reject(self, client: int, reason: str) -> None:
        """Note why a client's upload does not count.

        Parameters
        ----------
        client : int
            The client.
        reason : str
            A clause.
        """
        self.nodes[client] = replace(self.nodes[client], outcome=f"left out: {reason}")

    def take_back(self, client: int) -> None:
        """Note that a client's upload counts after all.

        Parameters
        ----------
        client : int
            The client.
        """
        self.nodes[client] = replace(self.nodes[client], outcome=ACCEPTED)

    def results(self) -> list[NodeResult]:
        """List what became of every node."""
        others = [NodeResult(name, f"left out: {reason}") for name, reason in self.rules.left_out.items()]
        known = [*self.nodes.values(), *others]
        missing = max(self.rules.expected - len(known), 0)
        return [*known, *(NodeResult("(unknown)", NO_UPLOAD) for _ in range(missing))]

    def _wait(self, client: int, upload: Statistics, sent: Sent, outcome: str) -> None:
        rows = upload.counts.numel()
        outcome = outcome if rows else EMPTY
        node = replace(self.nodes[client], outcome=outcome, rows=rows, samples=int(upload.counts.sum()))
        self.nodes[client] = node
        self._waiting[client] = upload, sent


def _shortened(fingerprint: str) -> str:
    """Shorten a fingerprint, but not so far that two that differ in the transform look alike."""
    backbone, dash, transform = fingerprint.partition("-")
    return f"{backbone[:12]}{dash}{transform[:12]}"


def _has_samples(upload: Statistics) -> bool:
    return upload.counts.numel() > 0


def _count(value: object) -> int:
    return value if isinstance(value, int) and 0 <= value <= MOST_SAMPLES else 0
