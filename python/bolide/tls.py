"""TLS of the server: contexts of certificate files, certificates by host name, and what applications are told.

Source of the extension: ASGI TLS Extension 0.2.
"""

import os
import re
import ssl
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

__all__ = ["TLSExtension", "choose_by_name", "create_ssl_context", "describe_connection", "parse_named_certificate"]

PathType = str | os.PathLike[str]

ALPN_PROTOCOLS = ("http/1.1",)

# Attribute types with a short name in RFC 4514, section 3, by the names that the ssl module gives them.
_SHORT_NAMES = {
    "commonName": "CN",
    "localityName": "L",
    "stateOrProvinceName": "ST",
    "organizationName": "O",
    "organizationalUnitName": "OU",
    "countryName": "C",
    "streetAddress": "STREET",
    "domainComponent": "DC",
    "userId": "UID",
}
_VERSIONS = {"SSLv3": 0x0300, "TLSv1": 0x0301, "TLSv1.1": 0x0302, "TLSv1.2": 0x0303, "TLSv1.3": 0x0304}
_FIRST_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----\n.*?-----END CERTIFICATE-----\n", re.DOTALL)


def _check_readable(path: PathType) -> None:
    """Raise the OSError that names the file: those of the ssl module do not."""
    with open(path, "rb"):
        pass


def _load_certificate(
    context: ssl.SSLContext, certfile: PathType, keyfile: PathType | None, password: str | Callable[[], str] | None
) -> None:
    _check_readable(certfile)
    if keyfile is not None:
        _check_readable(keyfile)
    try:
        context.load_cert_chain(certfile, keyfile, password)
    except ssl.SSLError as exc:
        of_key, of_certificate = os.fspath(keyfile or certfile), os.fspath(certfile)
        if exc.reason == "KEY_VALUES_MISMATCH":
            text = f"the private key in {of_key} does not belong to the certificate in {of_certificate}"
        elif not _has_block(certfile, b"CERTIFICATE"):
            text = f"{of_certificate} has no certificate in PEM"
        elif not _has_block(of_key, b"PRIVATE KEY"):
            text = f"{of_key} has no private key in PEM"
        elif _has_block(of_key, b"ENCRYPTED"):
            text = f"the password does not open the private key in {of_key}"
        else:
            raise
        raise ssl.SSLError(exc.errno, text) from exc


def _has_block(path: PathType, kind: bytes) -> bool:
    with open(path, "rb") as file:
        return any(kind in line for line in file.read().splitlines() if line.startswith((b"-----BEGIN", b"Proc-Type")))


def create_ssl_context(
    certfile: PathType,
    keyfile: PathType | None = None,
    password: str | Callable[[], str] | None = None,
    ssl_version: int = int(ssl.PROTOCOL_TLS_SERVER),
    cert_reqs: int = int(ssl.CERT_NONE),
    ca_certs: PathType | None = None,
    ciphers: str | None = None,
) -> ssl.SSLContext:
    """A context for a server of HTTP/1.1.

    Args:
        certfile: PEM file with the certificate and those that lead to the root's.
        keyfile: PEM file with the private key; None: it is in certfile.
        password: of the private key. None: OpenSSL asks for it on the terminal if it needs one.
        ssl_version, cert_reqs: numbers of the ssl module.
        ca_certs: PEM file with the certificates that clients' are checked against.
        ciphers: OpenSSL cipher list for TLS 1.2.

    Raises:
        OSError (also as ssl.SSLError): a file cannot be read or does not fit.
        ValueError: a number is not one of the ssl module.
    """
    context = ssl.SSLContext(ssl_version)
    _load_certificate(context, certfile, keyfile, password)
    context.verify_mode = ssl.VerifyMode(cert_reqs)
    if ca_certs:
        _check_readable(ca_certs)
        try:
            context.load_verify_locations(ca_certs)
        except ssl.SSLError as exc:
            raise ssl.SSLError(exc.errno, f"{os.fspath(ca_certs)} has no certificate in PEM") from exc
    if ciphers:
        try:
            context.set_ciphers(ciphers)
        except ssl.SSLError as exc:
            raise ssl.SSLError(exc.errno, f"OpenSSL knows no cipher of {ciphers!r}") from exc
    context.set_alpn_protocols(list(ALPN_PROTOCOLS))
    return context


def parse_named_certificate(text: str) -> tuple[str, str, str | None]:
    """The parts of NAME=CERTFILE[,KEYFILE]: host name in lower case, certificate file, key file or None.

    Raises:
        ValueError: it has another form, or the name is none that a certificate could be for.
    """
    name, equals, files = text.partition("=")
    certfile, _, keyfile = files.partition(",")
    name = name.strip().lower().rstrip(".")
    try:
        name = name.encode("ascii").decode() if name.isascii() else name.encode("idna").decode()
    except UnicodeError:
        name = ""
    if not equals or not certfile or not re.fullmatch(r"(\*\.)?[a-z0-9_-]+(\.[a-z0-9_-]+)*", name):
        raise ValueError(f"ssl_sni: a certificate by name has the form NAME=CERTFILE[,KEYFILE], not {text!r}")
    return name, certfile, keyfile or None


def choose_by_name(default: ssl.SSLContext, others: Mapping[str, ssl.SSLContext]) -> None:
    """Have `default` hand over to the context in `others` that fits the name a client asks for (RFC 6066, section 3).

    A name in `others` may start with `*.`, for any one label. A client that names none, or none of these, stays with
    `default`.
    """

    def choose(connection: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
        if name:
            name = name.lower().rstrip(".")
            chosen = others.get(name) or others.get("*." + name.partition(".")[2])
            if chosen is not None:
                connection.context = chosen

    default.sni_callback = choose


class TLSExtension:
    """Makes scope["extensions"]["tls"] of a connection."""

    def __init__(self) -> None:
        self._certificates: weakref.WeakKeyDictionary[ssl.SSLContext, str | None] = weakref.WeakKeyDictionary()
        self._suites: dict[str, int] = {}

    def add(self, files: Mapping[ssl.SSLContext, PathType]) -> None:
        """Take note of the certificates that the server shows: the file of each by its context.

        Raises:
            OSError: a file cannot be read.
        """
        found = {context: _first_certificate(path) for context, path in files.items()}
        self._certificates.update(found)

    def __call__(self, connection: ssl.SSLObject) -> dict[str, Any]:
        """The extension's dict, made once a connection, after its handshake."""
        extension = describe_connection(connection, self._suites)
        extension["server_cert"] = self._certificates.get(connection.context)
        return extension


def describe_connection(connection: ssl.SSLObject, suites: dict[str, int] | None = None) -> dict[str, Any]:
    """What the ASGI TLS extension says of a connection, without the server's certificate.

    Args:
        connection: its handshake is complete.
        suites: numbers of cipher suites by name, kept from call to call.
    """
    suites = {} if suites is None else suites
    chain = _client_chain(connection)
    cipher = connection.cipher()
    if cipher is not None and cipher[0] not in suites:
        suites.update((suite["name"], suite["id"] & 0xFFFF) for suite in connection.context.get_ciphers())
    subject: Any = (connection.getpeercert() or {}).get("subject") if chain else None
    return {
        "server_cert": None,
        "client_cert_chain": chain,
        "client_cert_name": format_distinguished_name(subject) if subject else None,
        # A certificate that does not pass ends the handshake.
        "client_cert_error": None,
        "tls_version": _VERSIONS.get(connection.version() or ""),
        "cipher_suite": suites.get(cipher[0]) if cipher is not None else None,
    }


def _client_chain(connection: ssl.SSLObject) -> list[str]:
    """The client's certificate and those it sent with it, as PEM."""
    leaf = connection.getpeercert(binary_form=True)
    if leaf is None:
        return []
    if hasattr(connection, "get_unverified_chain"):  # since Python 3.13
        ders: Sequence[bytes] = connection.get_unverified_chain()
    else:
        internal: Any = getattr(connection, "_sslobj", None)
        certificates = internal.get_unverified_chain() if hasattr(internal, "get_unverified_chain") else None
        ders = [ssl.PEM_cert_to_DER_cert(one.public_bytes()) for one in certificates] if certificates else [leaf]
    return [ssl.DER_cert_to_PEM_cert(der) for der in ders]


def format_distinguished_name(subject: Sequence[Sequence[tuple[str, str]]]) -> str:
    """A subject, as getpeercert() has it, as the string of RFC 4514: the most specific part first."""
    return ",".join("+".join(_format_attribute(*attribute) for attribute in rdn) for rdn in reversed(subject))


def _format_attribute(name: str, value: str) -> str:
    escaped = re.sub(r'([,+"\\<>;])', r"\\\1", value).replace("\0", r"\00")
    if escaped.startswith((" ", "#")):
        escaped = "\\" + escaped
    if escaped.endswith(" ") and len(value) > 1:
        escaped = escaped[:-1] + r"\ "
    return f"{_SHORT_NAMES.get(name, name)}={escaped}"


def _first_certificate(path: PathType) -> str | None:
    with open(path, encoding="ascii", errors="replace", newline=None) as file:
        found = _FIRST_CERTIFICATE.search(file.read())
    return found.group() if found else None
