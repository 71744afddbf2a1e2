"""The commands by which a SuperNode runs its own installation's ClientApp: light, because what starts nodes is."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from fedcof.files import write_whole

SUPEREXEC, CLIENTAPP, SUPERNODE = "flower-superexec", "flwr-clientapp", "flower-supernode"

# What each command runs.
_FUNCTIONS = {
    SUPEREXEC: ("clients.own_app", "superexec"),
    CLIENTAPP: ("clients.own_app", "clientapp"),
    SUPERNODE: ("clients.own_supernode", "supernode"),
}


def write_commands(folder: Path) -> Path:
    """Make the commands, to be found before Flower's own.

    Parameters
    ----------
    folder : Path
        Where to put them; to be the first on the ``PATH`` of a SuperNode.

    Returns
    -------
    Path
        The folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for command, (module, function) in _FUNCTIONS.items():
        path = folder / command
        # Apart from the folder that it is started in; -I would leave out PYTHONPATH, which may name a checkout.
        write_whole(path, f"#!{sys.executable} -P\nfrom {module} import {function}\n{function}()\n")
        path.chmod(0o700)
    return folder


def path_with_commands(folder: Path, path: str) -> str:
    """Make the commands, and give a ``PATH`` on which they come before Flower's own.

    Parameters
    ----------
    folder : Path
        Where to put them.
    path : str
        The ``PATH`` until now.

    Returns
    -------
    str
        The one for a SuperNode.
    """
    return f"{write_commands(folder)}{os.pathsep}{path}"
