"""The extensions of HTTP responses: early hints, trailers, and files by their path or their descriptor."""

import ast
import json
import os
import socket
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
from support import KIND, ServerProcess, Truncated
from support.certificates import authority

pytestmark = pytest.mark.skipif(KIND != "bolide", reason="extensions that bolide has")


def test_scope_names_them(connection):
    scope = ast.literal_eval(connection.get("/scope").text)
    assert scope["extensions"] == {
        "http.response.early_hint": {},
        "http.response.pathsend": {},
        "http.response.trailers": {},
        "http.response.zerocopysend": {},
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


def sparse(path: Path, size: int = 100_000_000) -> str:
    """Make a file of so many zero bytes, which takes no room; its path."""
    path.touch()
    os.truncate(path, size)
    return str(path)


def leave_early(server, target: str) -> None:
    """Ask for something large, read the head and no more, reset the connection."""
    with server.connect(receive_buffer=4096) as connection:
        connection.send_request("GET", target)
        connection.read_head()
        connection.reset()


def test_file_for_a_client_that_leaves(server, apps, key, tmp_path):
    path = sparse(tmp_path / "large")
    before = len(os.listdir(f"/proc/{server.pid}/fd"))
    leave_early(server, pathsend(path, f"&key={key}"))
    assert apps.wait(key) == "ClientDisconnected"
    assert len(os.listdir(f"/proc/{server.pid}/fd")) <= before + 1


@pytest.mark.parametrize("wrong", ["missing", "folder", "socket", "bytes", "nul"])
def test_wrong_path_raises(connection, apps, key, tmp_path, wrong):
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / "socket"))
        connection.send_request("GET", pathsend(str(tmp_path), f"&key={key}&wrong={wrong}"))
        assert apps.wait(key) in ("FileNotFoundError", "OSError", "ValueError", "TypeError")
    with pytest.raises(Truncated):
        connection.read_response()
    assert connection.closed_by_peer()


@pytest.mark.parametrize("relative", [False, True])
def test_starlette_sends_files_so(server, connection, file, relative):
    path, data = file
    if relative:
        path = os.path.relpath(path, os.readlink(f"/proc/{server.pid}/cwd"))
    response = connection.get(f"/starlette-file?path={path.encode().hex()}")
    assert response.body == data
    assert response.header("content-length") == str(len(data))


# --- parts of files ---------------------------------------------------------------------------------------------------


def zerocopysend(path: str, plan: list[dict], how: str = "number", more: str = "") -> str:
    """The target of an app that sends parts of this file."""
    return f"/zerocopysend?path={path.encode().hex()}&as={how}&plan={quote(json.dumps(plan))}{more}"


@pytest.mark.parametrize("framing", ["", "&length=3000001"])
@pytest.mark.parametrize("how", ["number", "unread"])
def test_descriptor(connection, apps, key, file, framing, how):
    path, data = file
    for _ in range(2):
        assert connection.get(zerocopysend(path, [{}], how, framing + f"&key={key}")).body == data
    assert apps.wait(key) == len(data)


def test_descriptor_of_an_object_that_has_read_ahead(connection, apps, key, file):
    path, data = file
    assert connection.get(zerocopysend(path, [{}], "object", f"&key={key}")).body == data[1:]
    assert apps.wait(key) == len(data)


@pytest.mark.parametrize(
    ("part", "begin", "end"),
    [
        ({"offset": 0}, 0, None),
        ({"offset": 70_000}, 70_000, None),
        ({"offset": 1, "count": 1_000_000}, 1, 1_000_001),
        ({"offset": 2_999_999, "count": 100}, 2_999_999, None),
        ({"count": 3}, 0, 3),
        ({"count": 0}, 0, 0),
        ({"offset": None, "count": None, "more_body": False}, 0, None),
        ({"offset": 3_000_001}, 0, 0),
        ({"offset": 1 << 62}, 0, 0),
    ],
)
@pytest.mark.parametrize("trailers", ["", "&trailers=1"])
def test_part_of_a_file(connection, file, part, begin, end, trailers):
    path, data = file
    response = connection.get(zerocopysend(path, [part], more=trailers))
    assert response.body == data[begin:end]
    assert response.trailers == ([("x-a", "b")] if trailers else [])
    assert connection.get("/text").status == 200


@pytest.mark.parametrize("framing", ["", "&length=1000023"])
def test_parts_and_pieces_in_turn(connection, apps, key, file, framing):
    path, data = file
    more = {"more_body": True}
    plan = [
        {"body": "begin", **more},
        {"count": 500_000, **more},
        {"count": 500_000, **more},
        {"body": "middle", **more},
        {"offset": 5, "count": 10, **more},
        {"body": "", **more},
        {"offset": 0, "count": 2},
    ]
    expected = b"begin" + data[:1_000_000] + b"middle" + data[5:15] + data[:2]
    assert connection.get(zerocopysend(path, plan, more=f"{framing}&key={key}")).body == expected
    assert apps.wait(key) == 1_000_000  # an offset leaves the position alone


def test_descriptor_for_http_1_0(connection, file):
    path, data = file
    assert connection.request("GET", zerocopysend(path, [{}]), version="1.0").body == data


def test_descriptor_for_head(connection, file):
    path, data = file
    response = connection.request("HEAD", zerocopysend(path, [{}], more=f"&length={len(data)}"))
    assert (response.body, response.header("content-length")) == (b"", str(len(data)))
    assert connection.get("/text").status == 200


def test_descriptor_over_tls(file, tmp_path):
    path, data = file
    certificate = authority().issue("localhost")
    certificate.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "both.pem"))
    with (
        ServerProcess("apps:app", "--ssl-certfile", str(tmp_path / "both.pem")) as server,
        httpx.Client(verify=authority().client(), timeout=30) as client,
    ):
        url = f"https://localhost:{server.address[1]}"
        assert client.get(url + zerocopysend(path, [{"count": 1_000_000, "more_body": True}, {}])).content == data
        assert client.get(url + pathsend(path)).content == data


@pytest.mark.parametrize(
    ("how", "part", "raised"),
    [
        ("text", {}, "TypeError"),
        ("none", {}, "TypeError"),
        ("closed", {}, "OSError"),
        ("device", {}, "ValueError"),
        ("number", {"offset": -1}, "ValueError"),
        ("number", {"count": -1}, "ValueError"),
        ("number", {"offset": "0"}, "TypeError"),
        ("number", {"count": 1.5}, "TypeError"),
        ("number", {"count": 1 << 64}, "OverflowError"),
    ],
)
def test_wrong_part_raises(connection, apps, key, file, how, part, raised):
    connection.send_request("GET", zerocopysend(file[0], [part], how, f"&key={key}"))
    assert apps.wait(key) == raised
    with pytest.raises(Truncated):
        connection.read_response()


@pytest.mark.parametrize(
    ("plan", "more"),
    [
        ([{}], "&length=3000000"),
        ([{}], "&length=3000002"),
        ([{}], "&status=204"),
        ([{}, {}], ""),
        ([{}, {"body": "after the end"}], ""),
    ],
)
def test_part_that_does_not_fit_raises(connection, apps, key, file, plan, more):
    connection.send_request("GET", zerocopysend(file[0], plan, more=f"{more}&key={key}"))
    if not more:
        assert connection.read_response().body == file[1]
        assert apps.wait(key) == "RuntimeError"
        return
    assert apps.wait(key) == "RuntimeError"
    head = connection.read_head()
    assert head.status in (200, 204)
    assert connection.read_to_eof() == b""  # nothing was sent in part


def test_file_that_becomes_shorter(server, apps, key, tmp_path):
    path = sparse(tmp_path / "shrinking")
    with server.connect(receive_buffer=4096) as connection:
        connection.send_request("GET", zerocopysend(path, [{}], more=f"&length=100000000&key={key}"))
        connection.read_head()
        os.truncate(path, 10)
        assert len(connection.read_to_eof()) < 100_000_000
    assert apps.wait(key) == "RuntimeError"


def test_descriptor_for_a_client_that_leaves(server, apps, key, tmp_path):
    path = sparse(tmp_path / "large")
    before = len(os.listdir(f"/proc/{server.pid}/fd"))
    leave_early(server, zerocopysend(path, [{}], more=f"&key={key}"))
    assert apps.wait(key) == "ClientDisconnected"
    assert len(os.listdir(f"/proc/{server.pid}/fd")) <= before + 1


@pytest.mark.rss
def test_others_are_served_while_a_large_file_is_sent(server, apps, tmp_path):
    path = sparse(tmp_path / "large", 400_000_000)
    server.get("/text")
    server.reset_peak_memory()
    before = server.memory()
    with server.connect() as connection, server.connect() as other:
        connection.send_request("GET", zerocopysend(path, [{}], more="&length=400000000"))
        connection.read_head()
        for _ in range(20):
            assert len(connection.read_exactly(20_000_000)) == 20_000_000
            assert other.get("/text").status == 200
    assert server.memory("VmHWM") - before < 20_000_000
