"""The events of receive() and send(): their shape, their order, what wrong ones raise."""

import ast
from collections import Counter
from urllib.parse import quote

import pytest
from apps.responses import WRONG_MESSAGES
from support import Truncated, uvicorn_differs


def test_request_event_without_body(connection):
    events = ast.literal_eval(connection.get("/messages").text)
    assert events == [{"type": "http.request", "body": b"", "more_body": False}]


def test_request_events_with_body(connection):
    events = ast.literal_eval(connection.request("POST", "/messages", body=b"b" * 300_000).text)
    assert b"".join(event["body"] for event in events) == b"b" * 300_000
    assert [event["more_body"] for event in events] == [True] * (len(events) - 1) + [False]
    assert all(set(event) == {"type", "body", "more_body"} for event in events)
    assert all(type(event["body"]) is bytes for event in events)


def test_receive_after_the_response_says_disconnect(connection, apps, key):
    """Frameworks wait for it in a task of their own: it must not hang when the response is complete."""
    assert connection.get(f"/receive-after-response?key={key}").body == b"complete"
    assert [event["type"] for event in apps.wait(key)][-1] == "http.disconnect"


@pytest.mark.parametrize("path", ["/header-lists", "/header-iterator"])
def test_forms_of_header_pairs(connection, path):
    response = connection.get(path)
    assert [name for name, _ in response.headers if name.startswith("x-")] == ["x-first", "x-second"]
    assert response.body == b"ok"


def test_repeated_response_headers_are_kept(connection):
    response = connection.get("/response?length=0&header=set-cookie:a%3D1")
    assert response.values("set-cookie") == ["a=1"]


def test_response_header_bytes_beyond_ascii(connection):
    response = connection.get(
        "/response?length=0&header=x-value:" + quote("é", encoding="latin-1").replace("%E9", "%C3%A9")
    )
    assert response.header("x-value") == "é"


@pytest.mark.parametrize(
    ("order", "answered"),
    [
        ("body-first", "500"),
        ("unknown", "500"),
        ("start-twice", "cut"),
        ("unknown-after-start", "cut"),
        ("after-end", "complete"),
        ("start-after-end", "complete"),
    ],
)
def test_wrong_order_raises_runtime_error(connection, apps, key, order, answered):
    connection.send_request("GET", f"/out-of-order?key={key}&order={order}")
    name, text = apps.wait(key)
    assert name == "RuntimeError"
    assert "ASGI message 'http.response" in text
    if answered == "500":
        response = connection.read_response()
        assert (response.status, response.body) == (500, b"Internal Server Error")
        assert response.header("x-was") is None
    elif answered == "complete":
        assert connection.read_response().body == b"all"
    else:
        with pytest.raises(Truncated):
            connection.read_response()


BAD_HEADERS = {
    "LF in value": "x-a:b\nSet-Cookie: evil=1",
    "CRLF in value": "x-a:b\r\n\r\nHTTP/1.1 200 OK",
    "CR in value": "x-a:b\rc",
    "NUL in value": "x-a:b\0c",
    "LF in name": "x-a\nx-b:c",
    "space in name": "x a:b",
    "NUL in name": "x\0a:b",
}


@pytest.mark.parametrize("name", BAD_HEADERS)
def test_header_that_would_split_the_response(connection, apps, key, name):
    connection.send_request("GET", f"/bad-start?key={key}&header={quote(BAD_HEADERS[name])}")
    assert apps.wait(key) is not None, "send() took it"
    raw = connection.read_to_eof()
    assert b"evil" not in raw
    assert b"200 OK" not in raw


def test_header_that_is_refused_closes_the_connection(connection, key):
    """As in uvicorn: http.response.start has come, so that there is no 500 in its place; nothing of it is sent."""
    connection.send_request("GET", f"/bad-start?key={key}&header={quote(BAD_HEADERS['LF in value'])}")
    assert connection.read_to_eof() == b""


@pytest.mark.parametrize("name", WRONG_MESSAGES)
def test_message_of_a_wrong_shape_raises(server, connection, apps, key, name):
    """Whatever it is: send() raises, the client gets 500 or sees a cut, the server goes on."""
    connection.send_request("GET", f"/wrong-message?key={key}&message={quote(name)}")
    assert apps.wait(key) is not None, "send() took it"
    try:
        response = connection.read_response()
    except (Truncated, ConnectionError):
        pass
    else:
        assert (response.status, response.body) == (500, b"Internal Server Error")
    assert server.get("/text").status == 200


@uvicorn_differs("does not take a memoryview with gaps")
def test_bodies_of_any_kind_of_bytes(connection):
    """And bytes that the app changes after send() came back do not change what is sent."""
    response = connection.get("/bytes-like")
    assert response.header("x-own") == "1"
    assert response.body == b"array,a view,part,own,kept"


@uvicorn_differs("needs the scope until the response has started")
def test_scope_belongs_to_the_request(connection):
    before = connection.get("/scope").text
    assert connection.get("/vandal").body == b"done"
    assert connection.get("/scope").text == before


def test_other_tasks_may_receive_and_send(connection):
    for body in (b"", b"small", b"x" * 200_000):
        assert connection.request("POST", "/child-task", body=body).body == body


def test_cancelled_receive_loses_nothing(connection, apps, key):
    path = f"/impatient-receive?key={key}".encode()
    connection.send(b"POST %s HTTP/1.1\r\nHost: test\r\nContent-Length: 10\r\n\r\n" % path)
    apps.wait(f"{key}.gave-up")
    for number in range(10):
        connection.send(b"%d" % number)
    assert connection.read_response().body == b"0123456789"
    assert connection.get("/text").status == 200


def test_cancelled_send_keeps_the_response_whole(server, apps, key):
    """The client does not read, so send() is suspended and given up; then it reads: pieces are there whole or not."""
    with server.connect(receive_buffer=4096) as connection:
        connection.send_request("GET", f"/impatient-send?key={key}")
        apps.wait(f"{key}.gave-up")
        response = connection.read_response()
        assert response.body.endswith(b"      end\n")
        numbers = [int(line) for line in response.body.split(b"\n")[:-2]]
        assert numbers == sorted(numbers)
        assert set(Counter(numbers).values()) <= {6000}
        assert connection.get("/text").status == 200


def test_functions_of_an_ended_request(server, connection):
    """An app that kept receive and send disturbs nobody, whether its connection lives or not."""
    assert connection.get("/keep-functions").body == b"kept"
    assert server.get("/keep-functions").body == b"kept"
    told = connection.get("/use-kept-functions").body
    assert told.count(b"http.disconnect") == 2
    assert b"RuntimeError" in told or b"OSError" in told or b"ClientDisconnected" in told
    assert connection.is_quiet()
    assert connection.get("/text").body == b"some text"


def test_two_tasks_in_receive_at_once(server, connection, apps, key):
    """Which of them gets what is not told; but none of the body is lost, and nothing hangs."""
    path = f"/overlapping-receives?key={key}"
    connection.send(b"POST %s HTTP/1.1\r\nHost: test\r\nContent-Length: 10\r\n\r\n" % path.encode())
    apps.wait(f"{key}.waiting")
    connection.send(b"01234")
    connection.send(b"56789")
    assert connection.read_response().body == b"0123456789"
