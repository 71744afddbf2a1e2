"""What a node's owner lets a server ask: set in the node-config, checked on the node before anything is read."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from filelock import FileLock

from fedcof import ClassMeans
from fedcof.errors import UserError
from fedcof.files import write_whole
from fedcof.run.protocol import NAME
from fedcof.wire.registry import known_kinds

SECONDS_A_DAY = 24 * 60 * 60


@dataclass(frozen=True)
class NodePolicy:
    """What a node answers.

    Attributes
    ----------
    name : str
        The node's name.
    backbones : tuple of str
        timm names of the backbones that may be used; any if empty.
    statistics : tuple of str
        Kinds that may be sent: ``class-means``, ``gram`` for second-order statistics, or another method's.
    training : bool
        Whether it trains, and so sends networks.
    smallest_count : int
        Fewest samples that a mean is sent of.
    answers_per_day : int
        Most uploads within any 24 hours; 0 for any number.
    largest_epsilon, largest_delta : float
        Least privacy with which it answers; an epsilon of 0 for any, and for none.
    folder : Path
        Where the uploads are noted.
    """

    name: str
    backbones: tuple[str, ...] = ()
    statistics: tuple[str, ...] = (ClassMeans.KIND,)
    training: bool = False
    smallest_count: int = 1
    answers_per_day: int = 0
    largest_epsilon: float = 0.0
    largest_delta: float = 1e-5
    folder: Path = Path()

    @staticmethod
    def of(node_config: Mapping[str, object]) -> NodePolicy:
        """Read a policy.

        Parameters
        ----------
        node_config : mapping
            Keys ``name``, ``allow-backbones`` and ``allow-statistics`` (separated by commas), ``allow-training``,
            ``smallest-count``, ``answers-per-day``, ``largest-epsilon``, ``largest-delta`` and ``state`` (a
            folder), as far as they are set.

        Returns
        -------
        NodePolicy
            With defaults that give away least, apart from the backbones, which the node has to have anyway.

        Raises
        ------
        UserError
            If a value is none that the key takes.
        """
        statistics = _names(node_config.get("allow-statistics", ClassMeans.KIND))
        known = known_kinds()
        if not set(statistics) <= set(known):
            raise UserError(
                f"The node's allow-statistics is {','.join(statistics)}: set it to {' or '.join(known)}, or "
                "to several with a comma."
            )
        name = str(node_config.get(NAME, "node"))
        folder = Path(str(node_config.get("state", Path.home() / ".fedcof" / "nodes"))).expanduser()
        return NodePolicy(
            name=name,
            backbones=_names(node_config.get("allow-backbones", "")),
            statistics=statistics,
            training=_flag(node_config, "allow-training"),
            smallest_count=_count(node_config, "smallest-count", 1),
            answers_per_day=_count(node_config, "answers-per-day", 0),
            largest_epsilon=_number(node_config, "largest-epsilon", 0.0),
            largest_delta=_number(node_config, "largest-delta", 1e-5),
            folder=folder / quote(name, safe=""),
        )

    def check_backbone(self, backbone: str) -> None:
        """Refuse a backbone that is not allowed; raises UserError."""
        if self.backbones and backbone not in self.backbones:
            raise self._refusal(f"the backbone {backbone}", f"only {', '.join(self.backbones)}")

    def check_statistics(self, statistics: str) -> None:
        """Refuse statistics that are not allowed; raises UserError."""
        if statistics not in self.statistics:
            raise self._refusal(f"{statistics} statistics", f"only {', '.join(self.statistics)}")

    def check_training(self) -> None:
        """Refuse to train where that is not allowed; raises UserError."""
        if not self.training:
            raise self._refusal("training", "statistics and evaluation only")
        self.check_privacy(0.0, 0.0)

    def check_privacy(self, epsilon: float, delta: float) -> None:
        """Refuse less privacy than is asked for; raises UserError. An epsilon of 0 is none at all."""
        if not self.largest_epsilon:
            return
        allowed = (
            f"an epsilon of at most {self.largest_epsilon:g} and a delta of at most {self.largest_delta:g} only"
        )
        if not epsilon:
            raise self._refusal("an answer without privacy", allowed)
        if epsilon > self.largest_epsilon or delta > self.largest_delta:
            raise self._refusal(f"an epsilon of {epsilon:g} with a delta of {delta:g}", allowed)

    def note_answer(self) -> None:
        """Note an upload, which is about to be sent.

        Raises
        ------
        UserError
            If there have been as many within 24 hours as are allowed.
        """
        if not self.answers_per_day:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        file = self.folder / "answers.json"
        with FileLock(file.with_suffix(".lock")):
            now = time.time()
            noted = json.loads(file.read_text(encoding="utf-8")) if file.exists() else []
            recent = [moment for moment in noted if now - SECONDS_A_DAY < moment]
            if len(recent) >= self.answers_per_day:
                raise self._refusal("another upload", f"{self.answers_per_day} within 24 hours")
            write_whole(file, json.dumps([*recent, now]))

    def _refusal(self, asked: str, allowed: str) -> UserError:
        return UserError(f"the policy of {self.name} does not allow {asked}, {allowed}")


def _names(value: object) -> tuple[str, ...]:
    return tuple(name.strip() for name in str(value).split(",") if name.strip())


def _flag(node_config: Mapping[str, object], key: str) -> bool:
    value = node_config.get(key, False)
    if str(value).lower() not in ("true", "false"):
        raise UserError(f"The node's {key} is {value!r}: set it to true or false.")
    return str(value).lower() == "true"


def _number(node_config: Mapping[str, object], key: str, default: float) -> float:
    value = node_config.get(key, default)
    try:
        number = float(str(value))
    except ValueError:
        number = -1.0
    if not 0 <= number < math.inf:
        raise UserError(f"The node's {key} is {value!r}: set it to a number from 0.")
    return number


def _count(node_config: Mapping[str, object], key: str, default: int) -> int:
    value = node_config.get(key, default)
    if not str(value).isascii() or not str(value).isdigit():
        raise UserError(f"The node's {key} is {value!r}: set it to a whole number.")
    return int(str(value))
