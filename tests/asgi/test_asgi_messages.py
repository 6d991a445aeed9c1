"""The events of receive() and send(): their shape, their order, what wrong ones raise."""

import ast
from urllib.parse import quote

import pytest
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


@uvicorn_differs("has marked the response as started, so closes without any")
def test_header_that_is_refused_gives_500(connection, key):
    response = connection.get(f"/bad-start?key={key}&header={quote(BAD_HEADERS['LF in value'])}")
    assert (response.status, response.body) == (500, b"Internal Server Error")
