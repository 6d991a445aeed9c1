"""The extensions of HTTP responses: early hints, trailers, and files by their path."""

import ast
import os
import socket

import pytest
from support import KIND, Truncated

pytestmark = pytest.mark.skipif(KIND != "bolide", reason="extensions that bolide has")


def test_scope_names_them(connection):
    scope = ast.literal_eval(connection.get("/scope").text)
    assert scope["extensions"] == {
        "http.response.early_hint": {},
        "http.response.pathsend": {},
        "http.response.trailers": {},
    }


# --- early hints ------------------------------------------------------------------------------------------------------


def test_early_hint(connection):
    response = connection.get("/early-hint?links=2")
    assert (response.status, response.body) == (200, b"final")
    (hint,) = response.interim
    assert (hint.status, hint.reason) == (103, "Early Hints")
    assert hint.headers == [("link", "</0.css>; rel=preload"), ("link", "</1.css>; rel=preload")]
    assert connection.get("/text").status == 200


def test_early_hint_twice(connection):
    assert [hint.status for hint in connection.get("/early-hint?links=1&times=2").interim] == [103, 103]


def test_early_hint_for_http_1_0(connection):
    response = connection.request("GET", "/early-hint?links=1", version="1.0")
    assert (response.status, response.interim) == (200, [])


@pytest.mark.parametrize("wrong", ["none", "text", "split", "late", "number"])
def test_wrong_early_hint_raises(connection, apps, key, wrong):
    connection.send_request("GET", f"/wrong-early-hint?key={key}&wrong={wrong}")
    assert apps.wait(key) in ("KeyError", "TypeError", "RuntimeError")
    response = connection.read_response()
    assert (response.status, response.body, response.interim) == (200, b"final", [])


# --- trailers ---------------------------------------------------------------------------------------------------------


def test_trailers(connection):
    response = connection.get("/trailers?events=1")
    assert response.header("transfer-encoding") == "chunked"
    assert (response.body, response.trailers) == (b"a body", [("x-0", "0")])
    assert connection.get("/text").status == 200


def test_trailers_in_several_events(connection):
    assert connection.get("/trailers?events=3").trailers == [("x-0", "0"), ("x-1", "1"), ("x-2", "2")]


def test_no_trailers_after_all(connection):
    response = connection.get("/trailers?events=1&empty=1")
    assert (response.body, response.trailers) == (b"a body", [])


@pytest.mark.parametrize(
    ("method", "version", "more", "body"),
    [("GET", "1.1", "&length=6", b"a body"), ("HEAD", "1.1", "", b""), ("GET", "1.0", "", b"a body")],
)
def test_trailers_where_they_have_no_place(connection, method, version, more, body):
    response = connection.request(method, f"/trailers?events=1{more}", version=version)
    assert (response.status, response.body, response.trailers) == (200, body, [])


@pytest.mark.parametrize(
    "wrong", ["content-length", "transfer-encoding", "host", "split", "text", "body", "unannounced", "never", "triple"]
)
def test_wrong_trailers_raise(connection, apps, key, wrong):
    connection.send_request("GET", f"/wrong-trailers?key={key}&wrong={wrong}")
    raised = apps.wait(key)
    assert raised == ("nothing" if wrong == "never" else raised)
    assert raised in ("TypeError", "ValueError", "RuntimeError", "nothing")
    if wrong == "unannounced":
        assert connection.read_response().body == b"a body"
    else:
        with pytest.raises(Truncated):
            connection.read_response()


# --- files ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def file(tmp_path):
    """A file of some megabytes, and what is in it."""
    data = os.urandom(3_000_001)
    path = tmp_path / "a file"
    path.write_bytes(data)
    return str(path), data


def pathsend(path: str, more: str = "") -> str:
    """The target of an app that sends this file."""
    return f"/pathsend?path={path.encode().hex()}{more}"


@pytest.mark.parametrize("framing", ["", "&length=1"])
def test_file(connection, file, framing):
    path, data = file
    for _ in range(2):
        assert connection.get(pathsend(path, framing)).body == data


def test_empty_file(connection, tmp_path):
    path = tmp_path / "empty"
    path.write_bytes(b"")
    assert connection.get(pathsend(str(path), "&length=1")).body == b""
    assert connection.get(pathsend(str(path))).body == b""


def test_file_with_trailers(connection, file):
    path, data = file
    response = connection.get(pathsend(path, "&trailers=1"))
    assert (response.body, response.trailers) == (data, [("x-a", "b")])


def test_file_for_head(connection, file):
    path, data = file
    response = connection.request("HEAD", pathsend(path, "&length=1"))
    assert (response.body, response.header("content-length")) == (b"", str(len(data)))
    assert connection.get("/text").status == 200


def test_file_for_a_client_that_leaves(server, apps, key, tmp_path):
    path = tmp_path / "large"
    path.touch()
    os.truncate(path, 100_000_000)
    before = len(os.listdir(f"/proc/{server.pid}/fd"))
    with server.connect(receive_buffer=4096) as connection:
        connection.send_request("GET", pathsend(str(path), f"&key={key}"))
        connection.read_head()
        connection.reset()
    assert apps.wait(key) == "ClientDisconnected"
    assert len(os.listdir(f"/proc/{server.pid}/fd")) <= before + 1


@pytest.mark.parametrize("wrong", ["missing", "relative", "folder", "socket", "bytes", "nul"])
def test_wrong_path_raises(connection, apps, key, tmp_path, wrong):
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / "socket"))
        connection.send_request("GET", pathsend(str(tmp_path), f"&key={key}&wrong={wrong}"))
        assert apps.wait(key) in ("FileNotFoundError", "OSError", "ValueError", "TypeError")
    with pytest.raises(Truncated):
        connection.read_response()
    assert connection.closed_by_peer()


def test_starlette_sends_files_so(connection, file):
    path, data = file
    response = connection.get(f"/starlette-file?path={path.encode().hex()}")
    assert response.body == data
    assert response.header("content-length") == str(len(data))
