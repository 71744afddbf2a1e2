"""The door of a federation: nginx before the SuperLink, which passes what nodes may ask and nothing else."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from pathlib import Path

from fedcof.errors import UserError
from simulations.runtime import Connection

CONFIGURATION = "nginx.conf"
PLACES = "/usr/sbin:/usr/local/sbin:/opt/homebrew/bin"
LOG = "nginx.log"
POLL_SECONDS = 0.05

# Nginx writes its title over its environment, by which a group of processes is found; the shell beside it keeps its
# own. It outlives the first signal, so that the group can be found, and ends with nginx.
_KEPT_FINDABLE = "trap '' TERM INT HUP; \"$@\" & wait $!"


def nginx_command() -> str | None:
    """Find nginx, which Debian puts where only root looks; None where there is none."""
    return shutil.which("nginx") or shutil.which("nginx", path=PLACES)


def configuration(port: int, inner_port: int) -> str:
    """Write nginx's configuration, the same as for a server of its own.

    Parameters
    ----------
    port : int
        What nodes call.
    inner_port : int
        Where the SuperLink listens on loopback.

    Returns
    -------
    str
        To be put beside ``secrets/``.

    Raises
    ------
    UserError
        If the package was installed without it.
    """
    here = Path(__file__).parent
    # In a checkout it is where administrators look for it.
    found = [path for path in (here / CONFIGURATION, here.parent / "deploy" / CONFIGURATION) if path.is_file()]
    if not found:
        raise UserError(f"The door's configuration {CONFIGURATION} is missing from {here}: reinstall fedcof.")
    text = found[0].read_text(encoding="utf-8")
    return text.replace("INNER_PORT", str(inner_port)).replace("PORT", str(port))


def open_door(connection: Connection, port: int, command: str) -> None:
    """Start nginx before a SuperLink, to be stopped with the connection's other processes.

    Parameters
    ----------
    connection : Connection
        The SuperLink, whose certificates lie in ``secrets`` of its working directory.
    port : int
        What nodes are to call, on the same host.
    command : str
        Nginx.

    Raises
    ------
    UserError
        If nginx ends.
    """
    folder = connection.working_directory
    inner_port = int(connection.address.rpartition(":")[2])
    (folder / CONFIGURATION).write_text(configuration(port, inner_port), encoding="utf-8")
    nginx = [command, "-p", str(folder), "-c", str(folder / CONFIGURATION), "-g", "daemon off;"]
    with (folder / LOG).open("a", encoding="utf-8") as log:
        process = connection.popen(
            "sh", "-c", _KEPT_FINDABLE, "door", *nginx, stdout=log.fileno(), stderr=subprocess.STDOUT
        )
    while not _listens(port):
        if process.poll() is not None:
            said = (folder / LOG).read_text(encoding="utf-8", errors="replace").strip().splitlines()
            raise UserError(
                f"The nginx at {command} ended as soon as it was started, and its last words were "
                f"{said[-1] if said else 'nothing'!r}: mend it, or remove it to go without a door."
            )
        time.sleep(POLL_SECONDS)


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
