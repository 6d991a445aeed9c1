"""HTTPS: certificates, what the application is told, and what peers can do to it."""

import http.client
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys

import httpx
import pytest
from support import KIND, ServerProcess
from support.certificates import authority

from bolide import Config

pytestmark = pytest.mark.skipif(KIND != "bolide", reason="uvicorn has no such extension")

QUIET = ("--lifespan", "off")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder with NAME.pem and NAME.key for some host names, and ca.pem."""
    folder = tmp_path_factory.mktemp("certificates")
    authority().ca.cert_pem.write_to_path(str(folder / "ca.pem"))
    for name in ("localhost", "example.org", "*.example.net", "client.example"):
        write_certificate(folder, name, authority().issue(name))
    return folder


def write_certificate(folder, name, certificate):
    stem = str(folder / name.replace("*", "wild"))
    certificate.private_key_pem.write_to_path(stem + ".key")
    for number, part in enumerate(certificate.cert_chain_pems):
        part.write_to_path(stem + ".pem", append=number > 0)


def options(files, name="localhost"):
    return ("--ssl-certfile", str(files / f"{name}.pem"), "--ssl-keyfile", str(files / f"{name}.key"), *QUIET)


@pytest.fixture
def https(servers, files):
    """A server with certificates for several names, that asks clients for one and takes it if they have none."""
    with servers.lend(
        "tls_app:app",
        *options(files),
        "--ssl-sni",
        f"example.org={files}/example.org.pem,{files}/example.org.key",
        "--ssl-sni",
        f"*.example.net={files}/wild.example.net.pem,{files}/wild.example.net.key",
        "--ssl-cert-reqs",
        str(int(ssl.CERT_OPTIONAL)),
        "--ssl-ca-certs",
        str(files / "ca.pem"),
    ) as running:
        yield running


class NamedConnection(http.client.HTTPSConnection):
    """Connects to one address and asks for another's name."""

    def __init__(self, address, name="localhost", context=None):
        super().__init__(name, context=context or authority().client(), timeout=20)
        self.address = address

    def connect(self):
        plain = socket.create_connection(self.address, timeout=20)
        self.sock = self._context.wrap_socket(plain, server_hostname=self.host)


def ask(address, name="localhost", context=None):
    """What the application says of a connection."""
    connection = NamedConnection(address, name, context)
    try:
        connection.request("GET", "/")
        return json.loads(connection.getresponse().read())
    finally:
        connection.close()


def names_of(pem):
    """The host names in the subjectAltName of a certificate."""
    from cryptography import x509

    certificate = x509.load_pem_x509_certificate(pem.encode())
    return certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value.get_values_for_type(
        x509.DNSName
    )


def test_the_log_names_the_scheme(https):
    https.log.wait_for(r"Bolide running on https://127\.0\.0\.1:\d+")


@pytest.mark.parametrize(("version", "number"), [("TLSv1_2", 0x0303), ("TLSv1_3", 0x0304)])
def test_what_the_application_is_told(https, version, number):
    context = authority().client()
    context.minimum_version = context.maximum_version = ssl.TLSVersion[version]
    told = ask(https.address, context=context)
    assert told["scheme"] == "https"
    tls = told["tls"]
    assert names_of(tls["server_cert"]) == ["localhost"]
    assert tls["client_cert_chain"] == [] and tls["client_cert_name"] is None and tls["client_cert_error"] is None
    assert tls["tls_version"] == number
    assert tls["cipher_suite"] in {suite["id"] & 0xFFFF for suite in context.get_ciphers()}


def test_a_client_certificate(https):
    tls = ask(https.address, context=authority().client("client.example"))["tls"]
    assert names_of(tls["client_cert_chain"][0]) == ["client.example"]
    assert "O=trustme" in tls["client_cert_name"]
    assert tls["client_cert_error"] is None


def test_an_untrusted_client_certificate_is_refused(https):
    context = authority().client()
    type(authority())().issue("stranger.example").configure_cert(context)
    with pytest.raises((ssl.SSLError, ConnectionError, http.client.BadStatusLine)):
        ask(https.address, context=context)
    assert ask(https.address)["scheme"] == "https"


@pytest.mark.parametrize(
    ("name", "shown"), [("localhost", "localhost"), ("example.org", "example.org"), ("a.example.net", "*.example.net")]
)
def test_the_certificate_fits_the_name_that_is_asked_for(https, name, shown):
    assert names_of(ask(https.address, name)["tls"]["server_cert"]) == [shown]


@pytest.mark.parametrize("name", ["a.b.example.net", "example.net", "www.example.org", "elsewhere"])
def test_other_names_get_the_first_certificate(https, name):
    context = authority().client()
    context.check_hostname = False
    assert names_of(ask(https.address, name, context)["tls"]["server_cert"]) == ["localhost"]


def test_alpn(https):
    context = authority().client()
    context.set_alpn_protocols(["h2", "http/1.1"])
    with (
        socket.create_connection(https.address, timeout=20) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as secure,
    ):
        assert secure.selected_alpn_protocol() == "http/1.1"


@pytest.mark.parametrize("size", [0, 1000, 16_384, 3_000_000])
def test_bodies_over_one_kept_connection(https, size):
    port = https.address[1]
    payload = os.urandom(size)
    with httpx.Client(verify=authority().client(), base_url=f"https://localhost:{port}", timeout=20) as client:
        for _ in range(3):
            response = client.post("/echo", content=payload)
            assert response.status_code == 200 and response.content == payload


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl(https, files):
    command = ["curl", "-sS", "--cacert", files / "ca.pem", "--max-time", "20"]
    url = f"https://localhost:{https.address[1]}/"
    plain = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}  # of a sanitizer
    result = subprocess.run([*command, url, url], capture_output=True, text=True, timeout=30, check=True, env=plain)
    assert result.stdout.count('"scheme": "https"') == 2


def test_pipelined_requests(https):
    request = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"
    with (
        socket.create_connection(https.address, timeout=20) as plain,
        authority().client().wrap_socket(plain, server_hostname="localhost") as secure,
    ):
        secure.sendall(request * 9 + request.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n"))
        data = b""
        while piece := secure.recv(100_000):
            data += piece
        assert data.count(b"HTTP/1.1 200 OK\r\n") == 10


def test_the_end_is_marked(https):
    """A close_notify follows the last response, so that a truncated one cannot be taken for complete."""
    with (
        socket.create_connection(https.address, timeout=20) as plain,
        authority().client().wrap_socket(plain, server_hostname="localhost", suppress_ragged_eofs=False) as secure,
    ):
        secure.sendall(b"GET / HTTP/1.0\r\n\r\n")
        while secure.recv(100_000):
            pass


@pytest.mark.parametrize(
    "garbage", [b"GET / HTTP/1.1\r\nhost: x\r\n\r\n", b"\x16\x03\x01\x02\x00" + bytes(600), os.urandom(5000)]
)
def test_garbage_instead_of_a_hello(https, garbage):
    with socket.create_connection(https.address, timeout=20) as plain:
        plain.sendall(garbage)
        plain.shutdown(socket.SHUT_WR)
        try:
            while piece := plain.recv(10_000):
                assert b"HTTP/1.1" not in piece
        except ConnectionError:
            pass
    assert ask(https.address)["scheme"] == "https"


def test_a_malformed_request_is_answered(https):
    with (
        socket.create_connection(https.address, timeout=20) as plain,
        authority().client().wrap_socket(plain, server_hostname="localhost") as secure,
    ):
        secure.sendall(b"NONSENSE\r\n\r\n")
        assert secure.recv(1000).startswith(b"HTTP/1.1 400 ")


def test_a_connection_without_tls_has_no_extension():
    with ServerProcess("tls_app:app", *QUIET) as server:
        assert json.loads(server.get("/").body) == {"scheme": "http", "tls": None}


def test_certificates_are_reloaded_on_sighup(files, tmp_path):
    """Open connections go on, new ones get the new certificate; broken files change nothing."""
    write_certificate(tmp_path, "localhost", authority().ca.issue_cert("localhost", "old.example"))
    with ServerProcess("tls_app:app", *options(tmp_path)) as server:
        kept = NamedConnection(server.address)
        kept.request("GET", "/")
        assert "old.example" in names_of(json.loads(kept.getresponse().read())["tls"]["server_cert"])
        write_certificate(tmp_path, "localhost", authority().ca.issue_cert("localhost", "new.example"))
        server.send_signal(signal.SIGHUP)
        server.log.wait_for("Reloaded the certificates")
        assert "new.example" in names_of(ask(server.address)["tls"]["server_cert"])
        kept.request("GET", "/")
        assert "old.example" in names_of(json.loads(kept.getresponse().read())["tls"]["server_cert"])
        kept.close()
        (tmp_path / "localhost.pem").write_text("not a certificate\n")
        server.send_signal(signal.SIGHUP)
        server.log.wait_for("The certificates could not be reloaded")
        assert "new.example" in names_of(ask(server.address)["tls"]["server_cert"])
        assert server.stop() == 0


def test_workers_serve_https(files):
    with ServerProcess("tls_app:app", *options(files), "--workers", "2") as server:
        for _ in range(5):
            assert ask(server.address)["scheme"] == "https"


@pytest.mark.parametrize(
    ("certificate", "more", "text"),
    [
        ("localhost.pem", {"ssl_keyfile": "example.org.key"}, "the private key in .* does not belong to the certific"),
        ("localhost.pem", {}, "localhost.pem has no private key in PEM"),
        ("localhost.key", {}, "localhost.key has no certificate in PEM"),
        ("nothing.pem", {}, "No such file or directory: .*nothing.pem"),
        ("localhost.pem", {"ssl_keyfile": "nothing.key"}, "No such file or directory: .*nothing.key"),
        ("localhost.pem", {"ssl_keyfile": "localhost.key", "ssl_ca_certs": "nothing.pem"}, "directory: .*nothing.pem"),
        ("localhost.pem", {"ssl_keyfile": "localhost.key", "ssl_ca_certs": "localhost.key"}, "has no certificate in"),
        ("localhost.pem", {"ssl_keyfile": "localhost.key", "ssl_ciphers": "ROT13"}, "knows no cipher of 'ROT13'"),
    ],
)
def test_what_is_wrong_with_files_is_said(files, certificate, more, text):
    paths = {name: value if name == "ssl_ciphers" else files / value for name, value in more.items()}
    with pytest.raises(OSError, match=text):
        Config("tls_app:app", ssl_certfile=files / certificate, **paths).load_ssl()


@pytest.mark.parametrize("missing", ["certificate", "key"])
def test_files_that_cannot_be_loaded(files, missing):
    certificate, key = files / "localhost.pem", files / "localhost.key"
    if missing == "certificate":
        certificate = files / "nothing.pem"
    else:
        key = files / "example.org.key"
    command = [sys.executable, "-m", KIND, "tls_app:app", "--app-dir", os.path.dirname(__file__), "--port", "0"]
    command += ["--ssl-certfile", str(certificate), "--ssl-keyfile", str(key)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert result.returncode == 1
    assert "Error loading the certificates: " in result.stderr and "Traceback" not in result.stderr


FACTORY = """
import ssl
from bolide import Config, Server

async def app(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": scope["scheme"].encode()})

def make(config, default):
    context = default()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    return context

Server(Config(app, port=0, ssl_certfile=CERT, ssl_keyfile=KEY, ssl_context_factory=make, lifespan="off")).run()
"""


def test_a_context_of_ones_own(files):
    program = f"CERT, KEY = {str(files / 'localhost.pem')!r}, {str(files / 'localhost.key')!r}\n{FACTORY}"
    with ServerProcess(None, command=[sys.executable, "-c", program]) as server:
        connection = NamedConnection(server.address)
        connection.request("GET", "/")
        assert connection.getresponse().read() == b"https"
        assert connection.sock.version() == "TLSv1.2"
        connection.close()


def negotiated(address):
    """The version of TLS and the cipher that a client of TLS 1.2 or newer agrees on with a server."""
    with (
        socket.create_connection(address, timeout=20) as plain,
        authority().client().wrap_socket(plain, server_hostname="localhost") as sock,
    ):
        return sock.version(), sock.cipher()[0]


@pytest.fixture(scope="module")
def locked(files):
    """The options of a certificate whose key needs the password "open sesame"."""
    from cryptography.hazmat.primitives import serialization

    key = serialization.load_pem_private_key((files / "localhost.key").read_bytes(), None)
    encryption = serialization.BestAvailableEncryption(b"open sesame")
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8)
    (files / "locked.key").write_bytes(key.private_bytes(*form, encryption))
    return ("--ssl-certfile", str(files / "localhost.pem"), "--ssl-keyfile", str(files / "locked.key"), *QUIET)


def test_a_key_with_a_password(locked):
    with ServerProcess("tls_app:app", *locked, "--ssl-keyfile-password", "open sesame") as server:
        assert negotiated(server.address)[0] == "TLSv1.3"


def test_a_key_with_another_password(locked):
    command = [sys.executable, "-m", "bolide", "tls_app:app", "--port", "0", *locked, "--ssl-keyfile-password", "no"]
    ended = subprocess.run(command, cwd=os.path.dirname(__file__), capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1
    assert f"the password does not open the private key in {locked[3]}" in ended.stderr


def test_a_version_and_a_cipher(files):
    cipher = "ECDHE-ECDSA-AES256-GCM-SHA384"
    arguments = ("--ssl-version", str(int(ssl.PROTOCOL_TLSv1_2)), "--ssl-ciphers", cipher)
    with ServerProcess("tls_app:app", *options(files), *arguments) as server:
        assert negotiated(server.address) == ("TLSv1.2", cipher)
