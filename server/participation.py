"""The keyword arguments that all one-shot strategies share: who is asked when, and what follows."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypedDict

from flwr.serverapp.strategy import Strategy
from torch import Tensor, nn

from fedcof.heads.adapter_options import AdapterOptions
from fedcof.heads.text_prior import TextPrior
from fedcof.privacy.mechanism import Privacy
from server.intake import NodeRules


class Participation(TypedDict, total=False):
    """Who is asked when, and what is done about those who do not answer.

    Attributes
    ----------
    quorum : float
        Share of the asked clients, from 0 to 1, whose upload must be accepted; 0.8 unless given.
    fraction : float
        Share of all clients asked in each round, none of them twice; 1 unless given.
    seed : int
        Seed of the order in which clients are asked where ``fraction`` is below 1; 0 unless given.
    broadcast : bool
        Whether the last round sends the classifier to all clients, which evaluate it; False unless given.
    on_reply : callable
        Called with the client after every reply, for those who watch.
    then : Strategy
        Flower's strategy, or one's own, that goes on for the rounds after the first ``init_rounds`` (1 unless
        given) and trains a :class:`fedcof.heads.trainable.Network`, starting from the classifier as a softmax.
    backbone : Module
        Trains with the head.
    adapters : AdapterOptions
        What of the backbone trains, if not all.
    privacy : Privacy
        The promise that clients were asked to send with: uploads that it cannot have made are refused.
    subtract_noise : bool
        Whether its noise is taken off again; True unless given.
    projection : Tensor
        What class means (R, d) are multiplied by before anything is made of them, of shape (d, k).
    prior : TextPrior
        What class names know.
    rules : NodeRules
        How nodes with data of their own are dealt with, which one trusts less than one's own simulation.
    """

    quorum: float
    fraction: float
    seed: int
    broadcast: bool
    on_reply: Callable[[int], object]
    then: Strategy | None
    init_rounds: int
    backbone: nn.Module | None
    adapters: AdapterOptions | None
    privacy: Privacy | None
    subtract_noise: bool
    projection: Tensor | None
    prior: TextPrior | None
    rules: NodeRules | None
