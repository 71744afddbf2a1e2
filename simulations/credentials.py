"""What a secured federation is opened with: a certificate authority, the server's certificate, and nodes' keys."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fedcof.errors import UserError

AUTHORITY, AUTHORITY_KEY = "ca.crt", "ca.key"
SERVER, SERVER_KEY = "server.crt", "server.key"
YEARS_OF_AUTHORITY, DAYS_OF_SERVER = 10, 365
OWNER_ONLY = 0o600
# The server's own programs call it by these.
LOOPBACK = ("localhost", "127.0.0.1")
_LABEL = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)")
_LONGEST_NAME = 253

_USES = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
    "encipher_only",
    "decipher_only",
)


def write_certificates(folder: Path, names: Sequence[str]) -> None:
    """Make a server's certificate, and an authority that signs it, if the folder has none yet.

    Parameters
    ----------
    folder : Path
        Where ``ca.crt``, ``ca.key``, ``server.crt`` and ``server.key`` go. Keys are readable by their owner only.
    names : sequence of str
        Host names and addresses by which the nodes call the server.

    Raises
    ------
    UserError
        If there is no name, or a certificate for the server lies there already.
    """
    if not names:
        raise UserError("A certificate needs the names by which nodes call the server: give at least one.")
    for name in names:
        _check_name(name)
    if (folder / SERVER).exists():
        raise UserError(f"There is a certificate at {folder / SERVER} already: remove it to make a new one.")
    folder.mkdir(parents=True, exist_ok=True)
    authority, authority_key = _authority(folder)
    key = ec.generate_private_key(ec.SECP384R1())
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key())
    certificate = (
        _builder(names[0], authority.subject, key, timedelta(days=DAYS_OF_SERVER))
        .add_extension(
            x509.SubjectAlternativeName([_general_name(name) for name in dict.fromkeys([*names, *LOOPBACK])]),
            critical=False,
        )
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(issuer, critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    _write_secret(folder / SERVER_KEY, _private_bytes(key))
    (folder / SERVER).write_bytes(certificate.public_bytes(Encoding.PEM))


def write_node_key(path: Path) -> Path:
    """Make the key by which a node is known.

    Parameters
    ----------
    path : Path
        Where the private key goes, readable by its owner only; the public one gets the suffix ``.pub``.

    Returns
    -------
    Path
        The public key, which is registered with the SuperLink.

    Raises
    ------
    UserError
        If there is a key already.
    """
    if path.exists():
        raise UserError(f"There is a key at {path} already: name another file, or remove it.")
    path.parent.mkdir(parents=True, exist_ok=True)
    key = ec.generate_private_key(ec.SECP384R1())
    _write_secret(path, key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
    public = path.with_name(f"{path.name}.pub")
    public.write_bytes(key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH))
    return public


def _authority(folder: Path) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    """Read the folder's authority, or make one."""
    if (folder / AUTHORITY).exists() and (folder / AUTHORITY_KEY).exists():
        return _read_authority(folder)
    key = ec.generate_private_key(ec.SECP384R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "fedcof federation")])
    certificate = (
        _builder("fedcof federation", name, key, timedelta(days=365 * YEARS_OF_AUTHORITY))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(digital_signature=True, key_cert_sign=True, crl_sign=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    _write_secret(folder / AUTHORITY_KEY, _private_bytes(key))
    (folder / AUTHORITY).write_bytes(certificate.public_bytes(Encoding.PEM))
    return certificate, key


def _read_authority(folder: Path) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    certificate = x509.load_pem_x509_certificate((folder / AUTHORITY).read_bytes())
    key = load_pem_private_key((folder / AUTHORITY_KEY).read_bytes(), None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise UserError(f"The key {folder / AUTHORITY_KEY} is not one of fedcof's: name another folder.")
    return certificate, key


def _builder(
    name: str, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, lifetime: timedelta
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        # Clocks differ.
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + lifetime)
        # RFC 5280 asks for it, and Python checks that from 3.13 on.
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _usage(**allowed: bool) -> x509.KeyUsage:
    """Say what a key is for; nothing else is allowed."""
    none = dict.fromkeys(_USES, False)
    return x509.KeyUsage(**{**none, **allowed})


def _check_name(name: str) -> None:
    """Refuse what a certificate cannot hold, or no program calls a server by."""
    if _is_address(name):
        return
    labels = name.removeprefix("*.").rstrip(".").split(".")
    if len(name) > _LONGEST_NAME or not all(_LABEL.fullmatch(label) for label in labels):
        raise UserError(
            f"A certificate cannot be made for {name!r}: give a host's name or address alone, without https, port "
            "or "
            "path, and names of other letters as IDNA writes them (xn--...)."
        )


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _private_bytes(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _write_secret(path: Path, content: bytes) -> None:
    """Write a file that nobody else could have opened at any time."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, OWNER_ONLY)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
