"""What the commands for nodes and servers do: run a node, and see whether everything is ready."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from clients.asked import WEIGHTS, encoder_of
from clients.node_state import STATE
from clients.policy import POLICY_KEYS, NodePolicy
from fedcof.errors import UserError, unknown_name
from fedcof.run.protocol import DATA, ENCODER, NAME
from simulations.node_checks import Check
from simulations.node_checks import check_node as checks_of_node
from simulations.node_checks import check_server as checks_of_server
from simulations.node_supervision import NodeSettings, become_supervision
from simulations.terminal import say

# Keys whose value is a place on this machine.
PLACES = (DATA, STATE, WEIGHTS)


def run(superlink: str, authority: Path, key: Path, settings: Sequence[str], port: int) -> None:
    """Run a node until it is interrupted, in a process that takes this one's place.

    Parameters
    ----------
    superlink : str
        HOST:PORT of the server.
    authority, key : Path
        The authority's certificate and the node's private key.
    settings : sequence of str
        See :func:`node_config_of`.
    port : int
        Port on loopback, of the node's own.

    Raises
    ------
    UserError
        If something that the node needs on this machine is not right.
    """
    node_config = node_config_of(settings)
    policy = NodePolicy.of(node_config)
    encoder_of(node_config)
    for path, what in ((authority, "certificate of the authority"), (key, "private key")):
        if not path.is_file():
            raise UserError(f"There is no {what} at {path}: name it; docs/deploy.md says where it comes from.")
    home = policy.state.folder / "flower"
    # What the policy was read with, hundreds of megabytes, is of no use while the node runs.
    become_supervision(NodeSettings(superlink, authority.absolute(), key.absolute(), node_config, home, port))


def check_node(superlink: str, authority: Path, key: Path, settings: Sequence[str]) -> None:
    """Show whether all that a node needs is right; see :func:`run` for the parameters, and raises UserError."""
    _show(checks_of_node(superlink, authority, key, node_config_of(settings)))


def check_server(folder: Path, superlink: str) -> None:
    """Show whether all that a server needs is right.

    Parameters
    ----------
    folder : Path
        Of the certificates.
    superlink : str
        HOST:PORT by which the nodes call it.

    Raises
    ------
    UserError
        If something is not.
    """
    _show(checks_of_server(folder, superlink))


def node_config_of(settings: Sequence[str]) -> dict[str, str]:
    """Read a node-config.

    Parameters
    ----------
    settings : sequence of str
        Each ``key=value``: name, data, state, weights, encoder, and the keys of the policy.

    Returns
    -------
    dict of str to str
        With absolute paths.

    Raises
    ------
    UserError
        If a key is unknown, has no value, or name or data is missing.
    """
    known = [NAME, *PLACES, ENCODER, *POLICY_KEYS]
    node_config = {}
    for setting in settings:
        key, separator, value = setting.partition("=")
        if key not in known:
            raise unknown_name("key of a node", key, known)
        if not separator or not value:
            raise UserError(f"The setting {setting!r} has no value: write it as key=value.")
        node_config[key] = str(Path(value).expanduser().absolute()) if key in PLACES else value
    for key in (NAME, DATA):
        if key not in node_config:
            raise UserError(f"The node has no {key}: give it with -n {key}=VALUE.")
    return node_config


def _show(checks: Iterable[Check]) -> None:
    wrong = 0
    for check in checks:
        say(f"{'ok ' if check.is_right else 'NO '} {check.what}: {check.said}", "" if check.is_right else "red")
        wrong += not check.is_right
    if wrong:
        raise UserError(
            f"{wrong} {'thing is' if wrong == 1 else 'things are'} not right: see the lines that say NO."
        )
