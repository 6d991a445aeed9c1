"""Scopes and events against the types of asgiref, and the middleware under its ApplicationCommunicator."""

import json
import sys
from pathlib import Path

import pytest
from support import KIND, ServerProcess
from support.certificates import authority

import bolide

asgiref_testing = pytest.importorskip("asgiref.testing")
pytestmark = pytest.mark.skipif(KIND != "bolide", reason="about what bolide says in its scopes")

KEYS = [
    "asgi",
    "client",
    "extensions",
    "headers",
    "http_version",
    "method",
    "path",
    "query_string",
    "raw_path",
    "root_path",
    "scheme",
    "server",
    "state",
    "type",
]


@pytest.fixture(scope="module")
def typed():
    """A server with the application that checks types."""
    with ServerProcess("typed_app:app") as running:
        yield running
        assert running.stop() == 0
        assert "found at the end: []" in running.stdout.text


def test_the_checker_finds_faults():
    sys.path.insert(0, str(Path(__file__).parent))
    try:
        import typed_app
    finally:
        del sys.path[0]
    scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": 2}, "more": 1}
    wanted = typed_app.SCOPES["lifespan"]
    assert len(typed_app.faults(scope, wanted, "scope")) == 2
    assert typed_app.faults({"type": "lifespan"}, wanted, "scope") == ["scope lacks asgi"]
    event = {"type": "http.request", "body": "", "more_body": 0}
    assert len(typed_app.faults(event, typed_app.EVENTS["http.request"], "event")) == 2


@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize("body", [None, b"x" * 200_000, [b"a", b"b" * 70_000]])
def test_request(typed, version, body):
    if version == "1.0" and isinstance(body, list):
        pytest.skip("no chunks in HTTP/1.0")
    with typed.connect() as connection:
        fields = [("X-Field", "value"), ("Cookie", "a=b")]
        if isinstance(body, list):
            connection.send_request("POST", "/p%20a?q=1", [*fields, ("Transfer-Encoding", "chunked")])
            for piece in body:
                connection.send(b"%x\r\n%s\r\n" % (len(piece), piece))
            connection.send(b"0\r\n\r\n")
            response = connection.read_response()
        else:
            response = connection.request("POST", "/p%20a?q=1", fields, body=body, version=version)
    assert json.loads(response.body) == {"request": [], "lifespan": [], "keys": KEYS}


def test_client_that_leaves(typed):
    with typed.connect() as connection:
        connection.send_request("GET", "/leave")
    assert json.loads(typed.get("/").body)["lifespan"] == []


def test_unix_socket(tmp_path):
    with ServerProcess("typed_app:app", "--uds", str(tmp_path / "socket")) as server:
        assert json.loads(server.get("/").body)["request"] == []


def test_tls(tmp_path):
    import httpx

    path = tmp_path / "both.pem"
    authority().issue("localhost").private_key_and_cert_chain_pem.write_to_path(str(path))
    with ServerProcess("typed_app:app", "--ssl-certfile", str(path)) as server:
        with httpx.Client(verify=authority().client(), timeout=30) as client:
            told = client.get(f"https://localhost:{server.address[1]}/").json()
        assert told["request"] == []


def test_websocket(typed):
    import websockets.sync.client

    host, port = typed.address
    with websockets.sync.client.connect(f"ws://{host}:{port}/ws?q=1", subprotocols=["chat"]) as client:
        for message in ("text", b"bytes"):
            client.send(message)
            assert json.loads(client.recv(20)) == []
    assert json.loads(typed.get("/").body)["lifespan"] == []


# --- the middleware ---------------------------------------------------------------------------------------------------

SCOPE = {
    "type": "http",
    "asgi": {"version": "3.0", "spec_version": "2.5"},
    "http_version": "1.1",
    "method": "POST",
    "scheme": "http",
    "path": "/a",
    "raw_path": b"/a",
    "query_string": b"q=1",
    "root_path": "",
    "headers": [(b"host", b"test"), (b"x-forwarded-for", b"192.0.2.1"), (b"x-forwarded-proto", b"https")],
    "client": ("127.0.0.1", 1),
    "server": ("127.0.0.1", 2),
    "extensions": {},
}


def wsgi(environ, start_response):
    """Answer with the body and what the environment says."""
    body = environ["wsgi.input"].read()
    start_response("200 OK", [("X-Method", environ["REQUEST_METHOD"])])
    return [body, environ["PATH_INFO"].encode()]


def asgi2(scope):
    """The older style, in two calls."""

    async def instance(receive, send):
        body = (await receive())["body"]
        await send({"type": "http.response.start", "status": 200, "headers": [(b"x-method", scope["method"].encode())]})
        await send({"type": "http.response.body", "body": body + scope["path"].encode()})

    return instance


async def asgi3(scope, receive, send):
    """The usual style; answers with the client too."""
    await asgi2(scope)(receive, send)
    assert (scope["client"], scope["scheme"]) in ((("127.0.0.1", 1), "http"), (("192.0.2.1", 0), "https"))


def middleware():
    """Every one, around an application of its kind."""
    from bolide.middleware.asgi2 import ASGI2Middleware
    from bolide.middleware.message_logger import MessageLoggerMiddleware
    from bolide.middleware.proxy_headers import ProxyHeadersMiddleware
    from bolide.middleware.wsgi import WSGIMiddleware

    return {
        "wsgi": WSGIMiddleware(wsgi),
        "asgi2": ASGI2Middleware(asgi2),
        "logger": MessageLoggerMiddleware(asgi3),
        "proxies": ProxyHeadersMiddleware(asgi3),
    }


@pytest.mark.parametrize("name", ["wsgi", "asgi2", "logger", "proxies"])
def test_middleware_under_the_communicator(name):
    async def drive():
        communicator = asgiref_testing.ApplicationCommunicator(middleware()[name], {**SCOPE})
        await communicator.send_input({"type": "http.request", "body": b"body", "more_body": False})
        start = await communicator.receive_output(20)
        assert start["type"] == "http.response.start"
        assert (start["status"], list(start["headers"])) == (200, [(b"x-method", b"POST")])
        body, more = b"", True
        while more:
            event = await communicator.receive_output(20)
            assert event["type"] == "http.response.body"
            body += event.get("body", b"")
            more = event.get("more_body", False)
        assert body == b"body/a"
        await communicator.wait(20)
        assert communicator.output_queue.empty()

    bolide.run(drive())
