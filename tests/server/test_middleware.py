"""What stands between the server and the application: proxy headers, ASGI 2, WSGI."""

import asyncio
import io
import signal

import pytest

from bolide.middleware.proxy_headers import ProxyHeadersMiddleware
from bolide.middleware.wsgi import make_environ


def seen_through_proxy(headers, trusted="127.0.0.1", client=("127.0.0.1", 5000), kind="http"):
    """(scheme, client) that the application sees."""
    scope = {"type": kind, "scheme": "ws" if kind == "websocket" else "http", "client": client}
    scope["headers"] = [(name.encode(), value.encode()) for name, value in headers]

    async def app(scope, receive, send):
        pass

    asyncio.run(call(ProxyHeadersMiddleware(app, trusted), scope))
    return scope["scheme"], scope["client"]


async def call(app, scope):
    await app(scope, None, None)


FOR = "x-forwarded-for"
PROTO = "x-forwarded-proto"


@pytest.mark.parametrize(
    ("trusted", "forwarded_for", "client"),
    [
        ("127.0.0.1", "1.2.3.4", ("1.2.3.4", 0)),
        ("127.0.0.1", "1.2.3.4:5678", ("1.2.3.4", 5678)),
        ("127.0.0.1", "[2001:db8::1]:5678", ("2001:db8::1", 5678)),
        ("127.0.0.1", "2001:db8::1", ("2001:db8::1", 0)),
        ("127.0.0.1", "1.2.3.4, 10.0.0.1", ("10.0.0.1", 0)),
        ("127.0.0.1, 10.0.0.0/8", "1.2.3.4, 10.0.0.1", ("1.2.3.4", 0)),
        (["127.0.0.1", "10.0.0.0/8"], "6.6.6.6, 1.2.3.4, 10.0.0.1", ("1.2.3.4", 0)),
        ("127.0.0.1,10.0.0.0/8", "10.0.0.2, 10.0.0.1", ("10.0.0.2", 0)),
        ("*", "1.2.3.4, 10.0.0.1", ("1.2.3.4", 0)),
        (["*"], "1.2.3.4", ("1.2.3.4", 0)),
        ("127.0.0.1,2001:db8::1", "1.2.3.4, 2001:DB8:0::1", ("1.2.3.4", 0)),
        ("10.0.0.1", "1.2.3.4", ("127.0.0.1", 5000)),
        ("", "1.2.3.4", ("127.0.0.1", 5000)),
        ("127.0.0.1", "", ("127.0.0.1", 5000)),
        ("127.0.0.1", "unknown", ("unknown", 0)),
        ("127.0.0.1", "127.0.0.1:x", ("127.0.0.1:x", 0)),
        ("127.0.0.1", "[127.0.0.1]x", ("[127.0.0.1]x", 0)),
        ("127.0.0.1", "x" * 5000, ("x" * 5000, 0)),
    ],
)
def test_forwarded_for(trusted, forwarded_for, client):
    assert seen_through_proxy([(FOR, forwarded_for)], trusted) == ("http", client)


def test_several_forwarded_for_headers_are_one_list():
    headers = [(FOR, "1.2.3.4"), ("accept", "*/*"), (FOR, "10.0.0.1")]
    assert seen_through_proxy(headers, "127.0.0.1,10.0.0.1") == ("http", ("1.2.3.4", 0))


@pytest.mark.parametrize(
    ("kind", "proto", "scheme"),
    [
        ("http", "https", "https"),
        ("http", " https ", "https"),
        ("http", "javascript", "http"),
        ("http", "", "http"),
        ("websocket", "https", "wss"),
        ("websocket", "http", "ws"),
        ("websocket", "wss", "wss"),
    ],
)
def test_forwarded_proto(kind, proto, scheme):
    assert seen_through_proxy([(PROTO, proto)], kind=kind)[0] == scheme


@pytest.mark.parametrize(("trusted", "scheme"), [("*", "https"), ("127.0.0.1", "http")])
def test_a_client_without_address_is_trusted_by_the_wildcard_only(trusted, scheme):
    assert seen_through_proxy([(PROTO, "https")], trusted, client=None) == (scheme, None)


def test_a_unix_socket_is_trusted_by_its_name():
    assert seen_through_proxy([(FOR, "1.2.3.4")], "unix:", client=("unix:", 0))[1] == ("1.2.3.4", 0)


def test_proxy_headers_of_the_command(serve, client):
    headers = {"X-Forwarded-For": "1.2.3.4", "X-Forwarded-Proto": "https"}
    command, url = serve("main:app")
    assert "'scheme': 'https', 'client': ('1.2.3.4', 0)" in client.get(url, headers=headers).text
    assert command.stop() == 0
    assert '1.2.3.4:0 - "GET / HTTP/1.1" 200 OK' in command.stdout


@pytest.mark.parametrize(
    ("arguments", "env"),
    [
        (["--no-proxy-headers"], {}),
        (["--forwarded-allow-ips", "10.0.0.1"], {}),
        ([], {"FORWARDED_ALLOW_IPS": "10.0.0.1"}),
    ],
    ids=["off", "option", "environment"],
)
def test_proxy_headers_that_are_not_trusted(serve, client, arguments, env):
    _, url = serve("main:app", *arguments, env=env)
    text = client.get(url, headers={"X-Forwarded-For": "1.2.3.4", "X-Forwarded-Proto": "https"}).text
    assert "'scheme': 'http', 'client': ('127.0.0.1', " in text


def test_asgi2(serve, client, write):
    write(
        "old.py",
        """
        def app(scope):
            async def instance(receive, send):
                assert scope["type"] == "http"
                await send({"type": "http.response.start", "status": 200, "headers": []})
                await send({"type": "http.response.body", "body": scope["path"].encode()})
            return instance
        """,
    )
    _, url = serve("old:app")
    assert client.get(f"{url}/old").text == "/old"


WSGI = """
    import sys

    def app(environ, start_response):
        path = environ["PATH_INFO"]
        if path == "/raise":
            raise RuntimeError("before the response")
        if path == "/replace":
            start_response("200 OK", [])
            try:
                raise RuntimeError("while it is made")
            except RuntimeError:
                start_response("503 Unavailable", [("Content-Type", "text/plain")], sys.exc_info())
            return [b"replaced"]
        if path == "/write":
            write = start_response("200 OK", [])
            write(b"written, ")
            return [b"returned"]
        if path == "/stream":
            def pieces():
                start_response("200 OK", [])
                for i in range(1000):
                    yield b"%d," % i
            return pieces()
        if path == "/echo":
            body = environ["wsgi.input"].read()
            start_response("200 OK", [("Content-Length", str(len(body)))])
            return [body]
        if path == "/unread":
            start_response("200 OK", [("Content-Length", "6")])
            return [b"unread"]
        names = "REQUEST_METHOD SCRIPT_NAME PATH_INFO QUERY_STRING CONTENT_TYPE HTTP_X_NAME SERVER_PROTOCOL"
        start_response("200 OK", [])
        return [repr({name: environ.get(name) for name in names.split()}).encode()]
"""


@pytest.fixture
def wsgi(serve, write):
    write("older.py", WSGI)
    return lambda *arguments: serve("older:app", "--interface", "wsgi", *arguments)


def test_wsgi_environment(wsgi, client):
    _, url = wsgi("--root-path", "/api")
    response = client.post(
        f"{url}/a%20b?c=d%20e", headers={"X-Name": "v", "X_Name": "spoofed", "Content-Type": "text/x"}
    )
    assert eval(response.text) == {
        "REQUEST_METHOD": "POST",
        "SCRIPT_NAME": "/api",
        "PATH_INFO": "/a b",
        "QUERY_STRING": "c=d%20e",
        "CONTENT_TYPE": "text/x",
        "HTTP_X_NAME": "v",
        "SERVER_PROTOCOL": "HTTP/1.1",
    }


def test_wsgi_bodies(wsgi, client):
    command, url = wsgi()
    body = bytes(range(256)) * 4000
    assert client.post(f"{url}/echo", content=body).content == body
    assert client.post(f"{url}/unread", content=b"x" * 1000).text == "unread"
    assert client.get(f"{url}/stream").text == "".join(f"{i}," for i in range(1000))
    assert client.get(f"{url}/write").text == "written, returned"
    assert command.stop(signal.SIGINT) == 0


def test_wsgi_errors(wsgi, client):
    command, url = wsgi()
    replaced = client.get(f"{url}/replace")
    assert (replaced.status_code, replaced.text) == (503, "replaced")
    assert client.get(f"{url}/raise").status_code == 500
    assert command.stop() == 0
    assert "RuntimeError: before the response" in command.stderr


def test_wsgi_environment_of_a_path_beyond_ascii():
    scope = {
        "type": "http",
        "method": "GET",
        "http_version": "1.1",
        "path": "/é/ü",
        "root_path": "/é",
        "query_string": b"",
        "headers": [(b"cookie", b"a=1"), (b"cookie", b"b=2"), (b"x", b"1"), (b"x", b"2")],
        "server": ("/sock", None),
    }
    environ = make_environ(scope, io.BytesIO())
    assert environ["SCRIPT_NAME"].encode("latin-1").decode() == "/é"
    assert environ["PATH_INFO"].encode("latin-1").decode() == "/ü"
    assert environ["HTTP_COOKIE"] == "a=1; b=2"
    assert environ["HTTP_X"] == "1,2"
    assert environ["SERVER_PORT"] == ""
