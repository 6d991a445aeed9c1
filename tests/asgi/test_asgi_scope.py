"""The HTTP connection scope (ASGI 3.0, HTTP & WebSocket specification)."""

import ast
import socket

import pytest
from support import ServerProcess, uvicorn_differs


def scope_of(response) -> dict:
    """The scope that the app saw."""
    assert response.status == 200, response
    return ast.literal_eval(response.text)


def test_every_key(server, connection):
    local = connection.socket.getsockname()
    scope = scope_of(connection.get("/scope/path?a=b"))
    assert set(scope) - {"extensions"} == {
        "type",
        "asgi",
        "http_version",
        "method",
        "scheme",
        "path",
        "raw_path",
        "query_string",
        "root_path",
        "headers",
        "client",
        "server",
        "state",
    }
    assert scope["type"] == "http"
    assert scope["asgi"]["version"] == "3.0"
    assert scope["asgi"]["spec_version"] in ("2.3", "2.4", "2.5")
    assert set(scope["asgi"]) == {"version", "spec_version"}
    assert scope["http_version"] == "1.1"
    assert scope["method"] == "GET"
    assert scope["scheme"] == "http"
    assert scope["path"] == "/scope/path"
    assert scope["raw_path"] == b"/scope/path"
    assert scope["query_string"] == b"a=b"
    assert scope["root_path"] == ""
    assert scope["headers"] == [(b"host", b"test")]
    assert scope["client"] == local
    assert scope["server"] == server.address
    assert scope["state"] == {"opened": "at startup"}
    assert isinstance(scope.get("extensions", {}), dict)


def test_types(connection):
    scope = scope_of(connection.get("/scope?a=b"))
    expected = {
        "type": str,
        "asgi": dict,
        "http_version": str,
        "method": str,
        "scheme": str,
        "path": str,
        "raw_path": bytes,
        "query_string": bytes,
        "root_path": str,
        "headers": list,
        "client": tuple,
        "server": tuple,
        "state": dict,
    }
    assert {key: type(scope[key]) for key in expected} == expected
    for host, port in (scope["client"], scope["server"]):
        assert type(host) is str
        assert type(port) is int
    assert all(type(pair) is tuple and len(pair) == 2 for pair in scope["headers"])


def test_http_version(connection):
    assert scope_of(connection.request("GET", "/scope", version="1.0"))["http_version"] == "1.0"


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "PURGE"])
def test_method(connection, method):
    assert scope_of(connection.request(method, "/scope"))["method"] == method


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("/scope/", "/scope/"),
        ("/scope/a%20b", "/scope/a b"),
        ("/scope/%41%4a%4A", "/scope/AJJ"),
        ("/scope/%C3%BCber", "/scope/über"),
        ("/scope/%E2%82%AC", "/scope/€"),
        ("/scope/%F0%9F%93%A6", "/scope/📦"),
        ("/scope/a%2Fb", "/scope/a/b"),
        ("/scope/a%3Fb", "/scope/a?b"),
        ("/scope/%25", "/scope/%"),
        ("/scope/%2541", "/scope/%41"),
        ("/scope/%zz", "/scope/%zz"),
        ("/scope/%", "/scope/%"),
        ("/scope/%4", "/scope/%4"),
        ("/scope/a+b", "/scope/a+b"),
        ("/scope//double", "/scope//double"),
        ("/scope/../up", "/scope/../up"),
        ("/scope/;p=1,2", "/scope/;p=1,2"),
        ("/scope/%FF", "/scope/\ufffd"),
    ],
)
def test_path_is_decoded_once(connection, target, path):
    scope = scope_of(connection.get(target))
    assert scope["path"] == path
    assert scope["raw_path"] == target.encode()


@pytest.mark.parametrize(
    ("target", "query"),
    [
        ("/scope", b""),
        ("/scope?", b""),
        ("/scope?a=1&b=2", b"a=1&b=2"),
        ("/scope?a=%20%C3%BC+", b"a=%20%C3%BC+"),
        ("/scope?a?b/c", b"a?b/c"),
        ("/scope?&&==", b"&&=="),
    ],
)
def test_query_is_kept_as_it_is(connection, target, query):
    scope = scope_of(connection.get(target))
    assert scope["query_string"] == query
    assert scope["raw_path"] == b"/scope"


def test_fragment_is_no_part_of_path_or_query(connection):
    scope = scope_of(connection.get("/scope?a=b#fragment"))
    assert (scope["path"], scope["query_string"]) == ("/scope", b"a=b")


def test_absolute_form(connection):
    scope = scope_of(connection.get("http://elsewhere:8080/scope/x?q"))
    assert (scope["path"], scope["raw_path"], scope["query_string"]) == ("/scope/x", b"/scope/x", b"q")
    assert scope["scheme"] == "http"


@uvicorn_differs("leaves the Host field as it came")
def test_absolute_form_stands_for_the_host(connection):
    scope = scope_of(connection.get("http://elsewhere:8080/scope/x?q"))
    assert [value for name, value in scope["headers"] if name == b"host"] == [b"elsewhere:8080"]


def test_headers_in_order_and_lower_case(connection):
    sent = [("X-One", "1"), ("ACCEPT", "text/*"), ("x-one", "2"), ("X-Empty", ""), ("X-Spaces", "  inner  space")]
    scope = scope_of(connection.request("GET", "/scope", sent))
    assert scope["headers"] == [
        (b"host", b"test"),
        (b"x-one", b"1"),
        (b"accept", b"text/*"),
        (b"x-one", b"2"),
        (b"x-empty", b""),
        (b"x-spaces", b"inner  space"),
    ]


@uvicorn_differs("keeps it at the end")
def test_white_space_around_a_value_is_not_part_of_it(connection):
    """RFC 9110, 5.5: a parser excludes optional white space, which is spaces and tabs."""
    scope = scope_of(connection.request("GET", "/scope", [("X-A", "\t a\tb \t")]))
    assert scope["headers"][1] == (b"x-a", b"a\tb")


def test_header_values_are_bytes_of_any_kind(connection):
    connection.send(b"GET /scope HTTP/1.1\r\nHost: test\r\nX-Latin: caf\xe9\r\nX-UTF: caf\xc3\xa9\r\n\r\n")
    headers = dict(scope_of(connection.read_response())["headers"])
    assert (headers[b"x-latin"], headers[b"x-utf"]) == (b"caf\xe9", b"caf\xc3\xa9")


def test_headers_are_fresh_for_each_request(connection):
    """A connection's later requests have their own headers, equal or not to those of the one before."""
    for extra in ([("X-A", "1")], [("X-A", "1")], [("X-A", "2")], [], [("X-B", "1"), ("X-A", "1")]):
        scope = scope_of(connection.request("GET", "/scope", extra))
        expected = [(b"host", b"test"), *((name.lower().encode(), value.encode()) for name, value in extra)]
        assert scope["headers"] == expected


def test_many_headers(connection):
    sent = [(f"X-Header-{number}", f"value {number}") for number in range(90)]
    headers = scope_of(connection.request("GET", "/scope", sent))["headers"]
    assert headers[1:] == [(name.lower().encode(), value.encode()) for name, value in sent]


def test_long_header_and_target(connection):
    scope = scope_of(connection.request("GET", "/scope/" + "p" * 4000 + "?" + "q" * 4000, [("X-Long", "v" * 6000)]))
    assert len(scope["path"]) == 4007
    assert scope["query_string"] == b"q" * 4000
    assert dict(scope["headers"])[b"x-long"] == b"v" * 6000


def test_body_headers_are_in_the_scope(connection):
    headers = dict(scope_of(connection.request("POST", "/scope", body=b"abc"))["headers"])
    assert headers[b"content-length"] == b"3"


def test_nothing_of_the_last_request_remains(connection):
    connection.request("POST", "/echo?old=1", [("X-Old", "1")], body=b"old body", version="1.1")
    scope = scope_of(connection.get("/scope"))
    assert (scope["method"], scope["query_string"], scope["headers"]) == ("GET", b"", [(b"host", b"test")])


def test_root_path():
    """As in uvicorn: root_path stands before path and raw_path."""
    with ServerProcess("apps.requests:scope", "--root-path", "/api/v1") as server, server.connect() as connection:
        scope = scope_of(connection.get("/users%20x?q"))
    assert scope["root_path"] == "/api/v1"
    assert scope["path"] == "/api/v1/users x"
    assert scope["raw_path"] == b"/api/v1/users%20x"


def test_unix_socket(tmp_path):
    path = str(tmp_path / "server.sock")
    with ServerProcess("apps:app", "--uds", path) as server, server.connect() as connection:
        scope = scope_of(connection.get("/scope"))
    assert scope["client"] is None
    assert scope["server"] == (path, None)


@pytest.mark.skipif(not socket.has_ipv6, reason="this Python has no IPv6")
def test_ipv6():
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        pytest.skip("this machine has no IPv6 loopback")
    with ServerProcess("apps:app", "--host", "::1") as server, server.connect() as connection:
        scope = scope_of(connection.get("/scope"))
        assert server.address[0] == "::1"
        assert scope["client"] == connection.socket.getsockname()[:2]
        assert scope["server"] == server.address
