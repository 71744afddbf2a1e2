"""Whether a node, or a server, is ready: a line for each thing that has to be right, and what to do if not."""

from __future__ import annotations

import http.client
import shutil
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_ssh_private_key

from clients.asked import encoder_of
from clients.policy import NodePolicy
from fedcof.data.node_features import features_at, holds_features
from fedcof.errors import UserError, first_line
from fedcof.run.protocol import DATA, ENCODER

# Flower turns a call away that is signed this much later, or earlier, than the server's clock.
SECONDS_AHEAD, SECONDS_BEHIND = 5, 305
LEAST_FREE = 2 * 10**9
SOON = 30
TIMEOUT = 10.0


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes
    ----------
    what : str
        A word or two.
    is_right : bool
        Whether it is.
    said : str
        What was found; where it is not right, what to do.
    """

    what: str
    is_right: bool
    said: str


def check_node(superlink: str, authority: Path, key: Path, node_config: Mapping[str, str]) -> Iterator[Check]:
    """Look at all that a node needs, one thing after another.

    Parameters
    ----------
    superlink : str
        HOST:PORT of the server.
    authority, key : Path
        The authority's certificate and the node's private key.
    node_config : mapping of str to str
        Name, data, encoder, state and policy.

    Yields
    ------
    Check
        Each as soon as it is known.
    """
    yield _checked("policy", lambda: _policy(node_config))
    yield _checked("data", lambda: _data(node_config.get(DATA, ""), encoder_of(node_config)))
    yield _checked("key", lambda: _key(key))
    yield _checked("disk", lambda: _disk(Path(node_config.get("state", "") or Path.home()).expanduser()))
    address = _checked("address", lambda: _address(superlink))
    yield address
    if not address.is_right:
        return
    port = _checked("port", lambda: _port(superlink))
    yield port
    if port.is_right:
        yield _checked("certificate", lambda: _handshake(superlink, authority))
        yield _checked("clock", lambda: _clock(superlink, authority))


def check_server(folder: Path, superlink: str) -> Iterator[Check]:
    """Look at all that a server needs, one thing after another.

    Parameters
    ----------
    folder : Path
        Of ``ca.crt``, ``server.crt`` and ``server.key``.
    superlink : str
        HOST:PORT by which the nodes call it.

    Yields
    ------
    Check
        Each as soon as it is known.
    """
    yield _checked("certificate file", lambda: _certificate_file(folder / "server.crt", superlink))
    yield _checked("authority's key", lambda: _kept_away(folder / "ca.key"))
    yield _checked("server's key", lambda: _secret_file(folder / "server.key"))
    yield _checked("disk", lambda: _disk(folder))
    address = _checked("address", lambda: _address(superlink))
    yield address
    if address.is_right:
        yield _checked("port", lambda: _port(superlink))
        yield _checked("certificate", lambda: _handshake(superlink, folder / "ca.crt"))


def _checked(what: str, look: Callable[[], str]) -> Check:
    try:
        return Check(what, True, look())
    except UserError as error:
        return Check(what, False, str(error))


def _split(superlink: str) -> tuple[str, int]:
    host, _, port = superlink.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 2**16 or "/" in host:
        raise UserError(
            f"The address {superlink!r} is not HOST:PORT: give the server's name and port, without https."
        )
    return host.strip("[]"), int(port)


def _address(superlink: str) -> str:
    host, port = _split(superlink)
    try:
        found = sorted({entry[4][0] for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)})
    except OSError as error:
        raise UserError(
            f"The name {host} has no address here ({first_line(error)}): check it, and this machine's DNS or "
            "hosts file."
        ) from error
    return f"{host} is {', '.join(map(str, found))}"


def _port(superlink: str) -> str:
    host, port = _split(superlink)
    try:
        socket.create_connection((host, port), timeout=TIMEOUT).close()
    except OSError as error:
        raise UserError(
            f"Nothing answers at {superlink} ({first_line(error)}): start the server, and open that port on the "
            "way."
        ) from error
    return f"{superlink} answers"


def _context(authority: Path) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=authority)
    except OSError as error:
        raise UserError(f"There is no certificate at {authority}: get ca.crt from the server's owner.") from error
    except ssl.SSLError as error:
        raise UserError(f"The file {authority} is no certificate: get ca.crt from the server's owner.") from error


def _handshake(superlink: str, authority: Path) -> str:
    host, port = _split(superlink)
    context = _context(authority)
    try:
        with (
            socket.create_connection((host, port), timeout=TIMEOUT) as plain,
            context.wrap_socket(plain, server_hostname=host) as secured,
        ):
            certificate = secured.getpeercert() or {}
    except ssl.SSLCertVerificationError as error:
        raise UserError(
            f"The server's certificate does not hold for {host} ({error.verify_message}): have it made anew with "
            "that "
            "name by the authority of this ca.crt, and check both clocks."
        ) from error
    except OSError as error:
        raise UserError(
            f"The server does not speak TLS at {superlink} ({first_line(error)}): check the port."
        ) from error
    until = datetime.fromtimestamp(ssl.cert_time_to_seconds(str(certificate["notAfter"])), UTC)
    return _until(until)


def _until(until: datetime) -> str:
    days = (until - datetime.now(UTC)).days
    said = f"valid until {until:%Y-%m-%d}, {days} days"
    if days < SOON:
        raise UserError(f"The server's certificate is {said}: renew it, and its key, before.")
    return said


def _clock(superlink: str, authority: Path) -> str:
    host, port = _split(superlink)
    connection = http.client.HTTPSConnection(host, port, timeout=TIMEOUT, context=_context(authority))
    try:
        connection.request("GET", "/health")
        said, now = connection.getresponse().getheader("Date"), time.time()
    except (OSError, http.client.HTTPException) as error:
        raise UserError(
            f"The server does not tell its time ({first_line(error)}): compare the clocks by hand."
        ) from error
    finally:
        connection.close()
    if not said:
        return "the server does not tell its time"
    ahead = now - parsedate_to_datetime(said).timestamp()
    # The server tells whole seconds.
    if not -SECONDS_BEHIND < ahead < SECONDS_AHEAD + 1:
        raise UserError(
            f"This clock is {abs(ahead):.0f} seconds {'ahead of' if ahead > 0 else 'behind'} the server's, but at "
            "most "
            f"{SECONDS_AHEAD} ahead and {SECONDS_BEHIND} behind are let in: run NTP on both."
        )
    return f"{abs(ahead):.0f} seconds {'ahead of' if ahead > 0 else 'behind'} the server's"


def _key(path: Path) -> str:
    said = _secret_file(path)
    try:
        load_ssh_private_key(path.read_bytes(), None)
    except (ValueError, TypeError) as error:
        raise UserError(f"The file {path} is no private key: make one with fedcof node-key.") from error
    return said


def _secret_file(path: Path) -> str:
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise UserError(f"There is no key at {path}: make it, or name the right file.") from error
    if mode & 0o077:
        raise UserError(f"The key {path} can be read by others: chmod 600 it.")
    return f"{path.name} is its owner's alone"


def _kept_away(path: Path) -> str:
    if path.exists():
        raise UserError(
            f"The authority's key lies on the server at {path}: keep it on a machine that is offline, because "
            "whoever "
            "has it can make a server that all nodes believe."
        )
    return "it is not here"


def _certificate_file(path: Path, superlink: str) -> str:
    host, _ = _split(superlink)
    try:
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (OSError, ValueError, x509.ExtensionNotFound) as error:
        raise UserError(f"There is no server's certificate at {path}: make it with fedcof certificates.") from error
    known = [*names.get_values_for_type(x509.DNSName), *map(str, names.get_values_for_type(x509.IPAddress))]
    if host not in known:
        raise UserError(f"The certificate is for {', '.join(known)} and not for {host}: make it with that name.")
    return f"for {', '.join(known)}, {_until(certificate.not_valid_after_utc)}"


def _disk(folder: Path) -> str:
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if free < LEAST_FREE:
        raise UserError(f"The disk of {folder} has {free / 1e9:.1f} GB free: make room for {LEAST_FREE / 1e9:g}.")
    return f"{free / 1e9:.0f} GB free"


def _policy(node_config: Mapping[str, str]) -> str:
    policy = NodePolicy.of(node_config)
    acts = [name for name, allowed in (("trains", policy.training), ("evaluates", policy.evaluation)) if allowed]
    return (
        f"sends {', '.join(policy.statistics)} over {policy.smallest_count} samples or more"
        f"{''.join(f', {act}' for act in acts)}; {policy.answers_per_day} answers a day, "
        f"{policy.answers_in_total} in all"
    )


def _data(data: str, encoder: str) -> str:
    place = Path(data).expanduser()
    if not data or not place.exists():
        raise UserError(f"There is no data at {data!r}: name a folder with a folder for each class, or a table.")
    if encoder:
        features, labels = features_at(data)
        classes = len(set(labels.ids.tolist()))
        return f"{len(features)} features of {encoder} in {features.shape[1]} dimensions, {classes} classes"
    if holds_features(place):
        raise UserError(
            f"There are features at {data}: declare what computed them with -n {ENCODER}=VALUE, as all nodes of "
            "the federation do."
        )
    if place.is_dir():
        classes = sum(1 for entry in place.iterdir() if entry.is_dir())
        if not classes:
            raise UserError(f"The folder {data} has no folder for a class: put images there, one for each class.")
        return f"{classes} classes"
    return f"the table {place.name}"
