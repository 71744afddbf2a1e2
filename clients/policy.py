"""What a node's owner lets a server ask: set in the node-config, and passed by all that a server asks for."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from clients.act import Act
from clients.node_state import NodeState, state_of
from clients.refusal import Refusal
from fedcof.errors import UserError
from fedcof.privacy.section import PrivacySection
from fedcof.run.config import RunConfig
from fedcof.run.protocol import NAME
from fedcof.statistics.kinds import CLASS_MEANS
from fedcof.wire.registry import known_kinds

NO_LIMIT = 0


@dataclass(frozen=True)
class NodePolicy:
    """What a node answers. The defaults give away class means over five samples or more, a few times, and no more.

    Attributes
    ----------
    name : str
        The node's name.
    backbones : tuple of str
        timm names of the backbones that may be used; any that timm knows by name if empty.
    statistics : tuple of str
        Kinds that may be sent: ``class-means``, ``gram`` for second-order statistics, or another method's.
    training, evaluation : bool
        Whether it trains, and so sends networks; and whether it tells how many of its samples a head gets right.
    smallest_count : int
        Fewest samples that a row is sent of, and that are ever told from others (:mod:`clients.cells`).
    largest_groups : int
        Most rows of a class.
    answers_per_day, answers_in_total : int
        Most different answers within any 24 hours, and ever; 0 for any number. To repeat an answer is none.
    largest_epsilon, largest_delta : float
        The privacy that all its answers together keep; an epsilon of 0 for any, and for none.
    largest_image_size, largest_batch_size : int
        In pixels, and in images: what a server may have it compute with.
    longest_answer, largest_memory : float
        Minutes, and gigabytes of the machine's memory, that an answer may take; 0 for any.
    state : NodeState
        What the node remembers.
    """

    name: str
    backbones: tuple[str, ...] = ()
    statistics: tuple[str, ...] = (CLASS_MEANS,)
    training: bool = False
    evaluation: bool = False
    smallest_count: int = 5
    largest_groups: int = 8
    answers_per_day: int = 20
    answers_in_total: int = 100
    largest_epsilon: float = 0.0
    largest_delta: float = 1e-5
    largest_image_size: int = 512
    largest_batch_size: int = 256
    longest_answer: float = 60.0
    largest_memory: float = 8.0
    state: NodeState = field(default_factory=lambda: NodeState(Path()))

    @staticmethod
    def of(node_config: Mapping[str, object]) -> NodePolicy:
        """Read a policy.

        Parameters
        ----------
        node_config : mapping
            Keys ``name``, ``state`` (a folder), ``allow-backbones`` and ``allow-statistics`` (separated by commas),
            ``allow-training``, ``allow-evaluation``, and the limits above, as far as they are set.

        Returns
        -------
        NodePolicy
            With the defaults for the others.

        Raises
        ------
        UserError
            If a value is none that the key takes.
        """
        set_here = {
            field_name: read(key, node_config[key])
            for key, (field_name, read) in _READERS.items()
            if key in node_config
        }
        return NodePolicy(name=str(node_config.get(NAME, "node")), state=state_of(node_config), **set_here)

    def admit(self, act: Act, config: RunConfig) -> None:
        """Let pass what the owner allows.

        Parameters
        ----------
        act : Act
            What is asked for.
        config : RunConfig
            With what keys.

        Raises
        ------
        Refusal
            For the first thing that is not allowed.
        """
        embedding, privacy = config.embedding, config.privacy
        if act is Act.STATISTICS:
            self._admit_statistics(config.method.kind)
        if act is Act.TRAINING and not self.training:
            raise self._refusal("training", "set allow-training there to change that")
        if act is Act.EVALUATION and not (self.evaluation or privacy.epsilon):
            raise self._refusal("evaluation", "set allow-evaluation there to change that")
        sizes = [(embedding.batch_size, self.largest_batch_size, "a batch-size")]
        if not config.data.is_precomputed:
            self._admit_backbone(embedding.backbone)
            sizes.insert(0, (embedding.image_size, self.largest_image_size, "an image-size"))
        for asked, largest, what in sizes:
            if asked > largest:
                raise self._refusal(f"{what} of {asked}", f"at most {largest}")
        self._admit_privacy(act, privacy)

    def _admit_backbone(self, backbone: str) -> None:
        if self.backbones and backbone not in self.backbones:
            raise self._refusal(f"the backbone {backbone}", f"only {', '.join(self.backbones)}")
        if not self.backbones and (":" in backbone or "/" in backbone):
            raise self._refusal("a backbone from a place of the server's choice", "only one that timm has by name")

    def _admit_statistics(self, kind: str) -> None:
        if kind not in self.statistics:
            raise self._refusal(f"{kind} statistics", f"only {', '.join(self.statistics)}")

    def _admit_privacy(self, act: Act, privacy: PrivacySection) -> None:
        if not self.largest_epsilon:
            return
        allowed = (
            f"an epsilon of at most {self.largest_epsilon:g} and a delta of at most {self.largest_delta:g} only"
        )
        if not privacy.epsilon or act is Act.TRAINING:
            raise self._refusal("an answer without privacy", allowed)
        if privacy.epsilon > self.largest_epsilon or privacy.delta > self.largest_delta:
            asked = f"an epsilon of {privacy.epsilon:g} with a delta of {privacy.delta:g}"
            raise self._refusal(asked, allowed)

    def _refusal(self, asked: str, allowed: str) -> Refusal:
        return refused(self.name, asked, allowed)


def refused(name: str, asked: str, allowed: str) -> Refusal:
    """Make the clause that a policy refuses with."""
    return Refusal(f"the policy of {name} does not allow {asked}, {allowed}")


def _names(key: str, value: object) -> tuple[str, ...]:
    return tuple(name.strip() for name in str(value).split(",") if name.strip())


def _kinds(key: str, value: object) -> tuple[str, ...]:
    kinds, known = _names(key, value), known_kinds()
    if not set(kinds) <= set(known):
        raise UserError(
            f"The node's {key} is {','.join(kinds)}: set it to {' or '.join(known)}, or to several with a comma."
        )
    return kinds


def _flag(key: str, value: object) -> bool:
    if str(value).lower() not in ("true", "false"):
        raise UserError(f"The node's {key} is {value!r}: set it to true or false.")
    return str(value).lower() == "true"


def _number(key: str, value: object) -> float:
    try:
        number = float(str(value))
    except ValueError:
        number = -1.0
    if not 0 <= number < math.inf:
        raise UserError(f"The node's {key} is {value!r}: set it to a number from 0.")
    return number


def _count(key: str, value: object, least: int = 0) -> int:
    text = str(value)
    if not (text.isascii() and text.isdigit() and int(text) >= least):
        raise UserError(f"The node's {key} is {value!r}: set it to a whole number from {least}.")
    return int(text)


_from_one = partial(_count, least=1)

# For each key of a node-config the field that it sets, and what reads it.
_READERS: dict[str, tuple[str, Callable[[str, object], Any]]] = {
    "allow-backbones": ("backbones", _names),
    "allow-statistics": ("statistics", _kinds),
    "allow-training": ("training", _flag),
    "allow-evaluation": ("evaluation", _flag),
    "smallest-count": ("smallest_count", _from_one),
    "largest-groups": ("largest_groups", _from_one),
    "answers-per-day": ("answers_per_day", _count),
    "answers-in-total": ("answers_in_total", _count),
    "largest-epsilon": ("largest_epsilon", _number),
    "largest-delta": ("largest_delta", _number),
    "largest-image-size": ("largest_image_size", _from_one),
    "largest-batch-size": ("largest_batch_size", _from_one),
    "longest-answer": ("longest_answer", _number),
    "largest-memory": ("largest_memory", _number),
}
POLICY_KEYS = tuple(_READERS)
