"""The chain of stages by which a server reads uploads."""

from __future__ import annotations

from fedcof.methods.chain import Chain, Encode, Measure, Withhold
from fedcof.methods.method import FederatedMethod
from fedcof.privacy.mechanism import Privacy
from fedcof.wire.section import WireSection


def receiving_chain(
    method: FederatedMethod,
    num_classes: int,
    feature_dim: int,
    privacy: Privacy | None,
    subtract_noise: bool,
    most_rows: int | None,
) -> Chain:
    """Make the chain whose halves on the server are run.

    Parameters
    ----------
    method : FederatedMethod
        What was asked for.
    num_classes, feature_dim : int
        Number of classes C and dimension d.
    privacy : Privacy or None
        What clients have promised.
    subtract_noise : bool
        Whether its noise is taken off.
    most_rows : int or None
        Most rows of an upload; None for any number.

    Returns
    -------
    Chain
        For :meth:`Chain.receive` alone.
    """
    return Chain(
        (
            Measure(method, num_classes, privacy, subtract_noise=subtract_noise),
            Withhold(method, num_classes, feature_dim),
            Encode(method, WireSection(), num_clients=1, num_classes=num_classes, most_rows=most_rows),
        )
    )
