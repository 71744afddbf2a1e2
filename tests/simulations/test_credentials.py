"""Certificates as RFC 5280 wants them, which Python checks from 3.13 on."""

import ssl
from contextlib import suppress

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from simulations.credentials import AUTHORITY, SERVER, SERVER_KEY, write_certificates


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("secrets")
    write_certificates(folder, ["localhost", "127.0.0.1"])
    return folder


def shake_hands(folder, name):
    """Connect to a server of these certificates in memory, by Python's strictest check."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(folder / SERVER, folder / SERVER_KEY)
    client = ssl.create_default_context(cafile=folder / AUTHORITY)
    client.verify_flags |= ssl.VERIFY_X509_STRICT | ssl.VERIFY_X509_PARTIAL_CHAIN
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = client.wrap_bio(back, there, server_hostname=name), server.wrap_bio(there, back, server_side=True)
    for _ in range(3):
        for end in ends:
            with suppress(ssl.SSLWantReadError):
                end.do_handshake()
    return ends[0].version()


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1"])
def test_the_strict_check_lets_the_server_pass(folder, name):
    assert shake_hands(folder, name)


def test_another_name_does_not_pass(folder):
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        shake_hands(folder, "example.org")


def test_who_signed_and_what_for_stands_in_them(folder):
    authority, server = (x509.load_pem_x509_certificate((folder / n).read_bytes()) for n in (AUTHORITY, SERVER))
    own = authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    signed_by = server.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    assert signed_by.key_identifier == own.digest
    assert authority.extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign
    usage = server.extensions.get_extension_for_class(x509.KeyUsage).value
    assert usage.digital_signature
    assert not usage.key_cert_sign
    assert list(server.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [
        ExtendedKeyUsageOID.SERVER_AUTH
    ]


def test_an_authority_signs_again(folder, tmp_path):
    for name in (AUTHORITY, "ca.key"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    write_certificates(tmp_path, ["localhost"])
    assert shake_hands(tmp_path, "localhost")
