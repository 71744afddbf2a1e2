"""A node's own folder, for its owner alone: its secret, the cells of its samples, what it has answered."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from filelock import FileLock

from clients.refusal import Refusal
from fedcof.files import private_folder, write_whole
from fedcof.run.protocol import NAME

STATE = "state"

SECRET_BYTES = 32

_SECRET, _LOCK = "secret", "state.lock"


def state_of(node_config: Mapping[str, object]) -> NodeState:
    """Find a node's folder: in ``state`` of its node-config, or else in the home of whoever runs it.

    Parameters
    ----------
    node_config : mapping
        With ``name``, and ``state`` if it is set.

    Returns
    -------
    NodeState
        Which need not exist.
    """
    folder = Path(str(node_config.get(STATE, Path.home() / ".fedcof" / "nodes"))).expanduser()
    return NodeState(folder / quote(str(node_config.get(NAME, "node")), safe=""))


@dataclass(frozen=True)
class NodeState:
    """What a node remembers between two answers, each of which is a process of its own.

    Attributes
    ----------
    folder : Path
        Made when something is first written, for its owner alone.
    """

    folder: Path

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep the node's other processes out."""
        private_folder(self.folder)
        with FileLock(self.folder / _LOCK):
            yield

    def secret(self) -> bytes:
        """Give the node's secret, which no server can know; made when first asked for."""
        path = self.folder / _SECRET
        if not path.exists():
            private_folder(self.folder)
            write_whole(path, secrets.token_bytes(SECRET_BYTES))
        return path.read_bytes()

    def read(self, name: str) -> Any:  # noqa: ANN401
        """Read what was written.

        Parameters
        ----------
        name : str
            Name of the file.

        Returns
        -------
        object
            As :meth:`write` was given it; None if there is no such file.

        Raises
        ------
        Refusal
            If it is damaged: to go on without it would be to forget what was answered.
        """
        try:
            return json.loads((self.folder / name).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise Refusal("its record of what it has answered is damaged, and its owner has to mend it") from error

    def write(self, name: str, content: object) -> None:
        """Write something down whole.

        Parameters
        ----------
        name : str
            Name of the file.
        content : object
            Lists, mappings, texts and numbers.

        Raises
        ------
        Refusal
            If it cannot be written: what is not noted is not answered.
        """
        try:
            private_folder(self.folder)
            write_whole(self.folder / name, json.dumps(content))
        except OSError as error:
            raise Refusal("it cannot write down what it answers, and so answers nothing") from error
