"""Which node a name belongs to: the first key that comes with it, from then on."""

from __future__ import annotations

import json
from pathlib import Path

from fedcof.errors import UserError
from fedcof.files import write_whole

FILE_NAME = "names.json"


class NameBook:
    """Names and the nodes that they belong to.

    Flower gives a node its id when its public key is registered, and checks the key whenever the node calls; so a
    node's id stands for its key as long as the SuperLink keeps its database.

    Parameters
    ----------
    folder : Path
        The run's folder, where the book is kept for later runs.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE_NAME
        try:
            found = json.loads(self._path.read_text(encoding="utf-8"))
            self._nodes = {str(name): int(node) for name, node in found.items()}
        except FileNotFoundError:
            self._nodes = {}
        except (ValueError, AttributeError, TypeError) as error:
            raise UserError(
                f"The file {self._path} does not say which node has which name: remove it, and they are bound anew."
            ) from error

    def belongs(self, name: str, node: int) -> bool:
        """Say whether a node may go by a name, and bind the name to it if nobody has it.

        Parameters
        ----------
        name : str
            The name.
        node : int
            The node's id.

        Returns
        -------
        bool
            False if it is another node's.
        """
        if name not in self._nodes:
            self._nodes[name] = node
            write_whole(self._path, json.dumps(self._nodes, indent=1, sort_keys=True))
        return self._nodes[name] == node

    def forget(self, name: str) -> None:
        """Let go of a name, so that whoever comes with it next has it.

        Parameters
        ----------
        name : str
            The name.
        """
        if self._nodes.pop(name, None) is not None:
            write_whole(self._path, json.dumps(self._nodes, indent=1, sort_keys=True))
