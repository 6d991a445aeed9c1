"""Clients that go away: receive() says http.disconnect, streams end, uploads that broke off are told."""

import os

import pytest

DISCONNECT = {"type": "http.disconnect"}


def leave(connection, how):
    """Close in good order, or with a reset."""
    connection.reset() if how == "reset" else connection.close()


def streaming(server, target, **options):
    """A connection on which a response has begun."""
    connection = server.connect(**options)
    connection.send_request("GET", target)
    assert connection.read_head().status == 200
    return connection


@pytest.mark.parametrize("how", ["close", "reset"])
def test_receive_says_disconnect(server, apps, key, how):
    connection = server.connect()
    connection.send_request("POST", f"/wait-for-disconnect?key={key}", body=b"body")
    apps.wait(f"{key}.reading")
    leave(connection, how)
    assert apps.wait(f"{key}.received") == [DISCONNECT, DISCONNECT]


@pytest.mark.parametrize("how", ["close", "reset"])
def test_upload_that_breaks_off(server, apps, key, how):
    connection = server.connect()
    connection.send(b"POST /upload-cut?key=%s HTTP/1.1\r\nHost: test\r\nContent-Length: 100\r\n\r\n" % key.encode())
    connection.send(b"1234567")
    apps.wait(f"{key}.reading")
    leave(connection, how)
    assert apps.wait(f"{key}.ended") == [DISCONNECT, 7]


@pytest.mark.parametrize("how", ["close", "reset"])
def test_disconnect_between_pieces(server, apps, key, how):
    """ASGI 2.4: send() after a disconnect raises an OSError; before that it did nothing."""
    connection = streaming(server, f"/disconnect-while-streaming?key={key}")
    assert connection.read_chunk() == b"begin"
    leave(connection, how)
    told = apps.wait(f"{key}.received")
    assert told["message"] == DISCONNECT
    version = tuple(map(int, told["spec_version"].split(".")))
    assert told["send"] == ("OSError" if version >= (2, 4) else None)


@pytest.mark.parametrize("how", ["close", "reset"])
def test_endless_stream_that_asks_for_nothing(server, apps, key, how):
    """Its next send() raises an OSError."""
    connection = streaming(server, f"/deaf-stream?key={key}")
    leave(connection, how)
    assert apps.wait(key) == "OSError"


@pytest.mark.parametrize("how", ["close", "reset"])
def test_starlette_stream_that_waits_ends_in_the_middleware(server, apps, key, how):
    """A generator that waits for something is cancelled when the client leaves."""
    connection = streaming(server, f"/starlette-wait?key={key}")
    assert connection.read_chunk() == b"begin"
    leave(connection, how)
    assert apps.wait(f"{key}.generator-ended") == "CancelledError"
    apps.wait(f"{key}.background")


@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize("kind", ["text", "file", "range", "stream", "middleware"])
def test_starlette_background_task_runs_in_the_middleware(server, apps, key, tmp_path, kind, how):
    """What is to be done after the response is done for a client that has left, too."""
    path = tmp_path / "file"
    path.touch()
    os.truncate(path, 1 << 30)
    connection = server.connect(receive_buffer=4096)
    range_of_it = [("Range", "bytes=0-100000")] if kind == "range" else []
    target = f"/starlette-after?key={key}&kind={kind}&path={str(path).encode().hex()}"
    connection.send_request("GET", target, headers=range_of_it)
    apps.wait(f"{key}.begun")
    leave(connection, how)
    apps.set(f"{key}.left")
    apps.wait(f"{key}.background")


@pytest.mark.parametrize("how", ["close", "reset"])
def test_suspended_send_comes_back(server, apps, key, how):
    """The app waits in send() for a client that does not read; when that leaves, it must not wait for ever."""
    connection = streaming(server, f"/disconnect-while-suspended?key={key}", receive_buffer=4096)
    last, same = -1, 0
    while same < 20:
        sent = apps.get(f"{key}.sent")
        same = same + 1 if sent == last else 0
        last = sent
    leave(connection, how)
    assert apps.wait(f"{key}.ended")["sent"] >= last


@pytest.mark.parametrize("how", ["close", "reset"])
def test_starlette_stream_ends(server, apps, key, how):
    """The generator behind a StreamingResponse is ended when the client leaves."""
    connection = streaming(server, f"/starlette-stream?key={key}")
    assert connection.read_chunk().startswith(b"piece 1\n")
    leave(connection, how)
    apps.wait(f"{key}.ended")


def test_disconnect_is_seen_while_a_body_is_unread(server, apps, key):
    """The app waits for something else and never reads; it still gets to its end."""
    connection = server.connect()
    connection.send_request("POST", f"/gate?key={key}", body=b"x" * 1000)
    apps.wait(f"{key}.started")
    connection.reset()
    apps.set(f"{key}.release")
    apps.wait(f"{key}.done")


def test_request_is_not_cancelled_by_a_disconnect(server, apps, key):
    """As in uvicorn: the app is told, not cancelled; what it does may matter though nobody waits for the answer."""
    connection = server.connect()
    connection.send_request("GET", f"/gate?key={key}")
    apps.wait(f"{key}.started")
    connection.close()
    assert server.get("/text").status == 200
    apps.set(f"{key}.release")
    apps.wait(f"{key}.done")
    assert f"gate {key} cancelled" not in server.stdout.text


def test_many_leave_at_once(server, apps, key):
    connections = [server.connect() for _ in range(100)]
    for number, connection in enumerate(connections):
        connection.send_request("GET", f"/wait-for-disconnect?key={key}.{number}")
    for number in range(100):
        apps.wait(f"{key}.{number}.reading")
    for connection in connections:
        connection.reset()
    for number in range(100):
        assert apps.wait(f"{key}.{number}.received")[0] == DISCONNECT
