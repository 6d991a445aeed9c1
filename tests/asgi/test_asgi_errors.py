"""Apps that fail: what the client sees, what the log says, and that the server goes on."""

import pytest
from support import Truncated


def expect_500(response):
    """Uvicorn's answer to an app that failed before its response."""
    assert (response.status, response.reason) == (500, "Internal Server Error")
    assert response.body == b"Internal Server Error"
    assert response.header("content-type") == "text/plain; charset=utf-8"
    assert response.header("connection") == "close"


def test_exception_before_the_response(server, connection):
    expect_500(connection.get("/raise-before"))
    assert connection.closed_by_peer()
    server.log.wait_for(r"(?s)ERROR:\s+Exception in ASGI application.*Traceback.*Deliberate: raised before the start")


@pytest.mark.parametrize("length", ["", "?length=1"])
def test_exception_midway_cuts_the_connection(server, connection, length):
    """The client must see that the response is not complete: no last chunk, fewer bytes than announced."""
    connection.send_request("GET", f"/raise-midway{length}")
    with pytest.raises(Truncated) as cut:
        connection.read_response()
    assert cut.value.args[0] == b"part"
    server.log.wait_for(r"(?s)Exception in ASGI application.*Deliberate: raised midway")


def test_exception_after_the_start(server, connection):
    """Whether the head has left or not is the server's choice; a complete answer of 200 it must not be."""
    connection.send_request("GET", "/raise-after-start")
    try:
        response = connection.read_response()
    except (Truncated, ConnectionError):
        pass
    else:
        assert response.status == 500
    server.log.wait_for(r"(?s)Exception in ASGI application.*Deliberate: raised after the start")


def test_exception_after_the_response(server, connection):
    """It is logged, and the connection kept: Starlette raises on after each answer of 500."""
    assert connection.get("/raise-after-end").body == b"complete"
    server.log.wait_for(r"(?s)Exception in ASGI application.*Deliberate: raised after the end")
    assert connection.get("/raise-after-end").body == b"complete"
    assert connection.get("/text").status == 200


@pytest.mark.parametrize("path", ["/raise-base", "/raise-cancelled"])
def test_base_exception(server, connection, path):
    expect_500(connection.get(path))
    assert server.get("/text").status == 200


def test_no_response(server, connection):
    expect_500(connection.get("/no-response"))
    server.log.wait_for("ERROR.*ASGI callable returned without starting response")


def test_no_end(server, connection):
    connection.send_request("GET", "/no-end")
    with pytest.raises(Truncated) as cut:
        connection.read_response()
    assert cut.value.args[0] == b"part"
    server.log.wait_for("ERROR.*ASGI callable returned without completing response")


def test_returned_value(server, connection):
    assert connection.get("/returns-value").body == b"complete"
    server.log.wait_for("ERROR.*ASGI callable should return None, but returned 'a value'")


def test_unknown_path_is_the_apps_own_error(server, connection):
    """The traceback leads to the line of the app that failed."""
    expect_500(connection.get("/no/such/app"))
    server.log.wait_for(r"(?s)apps/routes\.py.*KeyError: 'no'")


def test_head_of_a_failing_app(connection):
    response = connection.request("HEAD", "/raise-before")
    assert response.status == 500
    assert connection.closed_by_peer()


def test_failures_side_by_side(server):
    connections = [server.connect() for _ in range(20)]
    for number, connection in enumerate(connections):
        connection.send_request("GET", "/raise-before" if number % 2 else "/text")
    statuses = [connection.read_response().status for connection in connections]
    assert statuses == [200, 500] * 10
    for connection in connections:
        connection.close()
