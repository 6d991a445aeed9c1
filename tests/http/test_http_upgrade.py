"""Requests to switch to another protocol that this server does not speak: they are answered as what they also are."""

from support import uvicorn_differs

H2C = [("Connection", "Upgrade, HTTP2-Settings"), ("Upgrade", "h2c"), ("HTTP2-Settings", "AAMAAABkAAQAAP__")]


def test_h2c_is_answered_by_http_11(connection):
    """What `curl --http2` sends (RFC 9110, 7.8: a server may ignore Upgrade)."""
    response = connection.request("GET", "/text", H2C)
    assert (response.status, response.body) == (200, b"some text")


def test_connection_goes_on_after_it(connection):
    for _ in range(3):
        assert connection.request("GET", "/text", H2C).body == b"some text"
    assert connection.get("/length/next").text == "/length/next? 0"


@uvicorn_differs("loses the body")
def test_body_of_such_a_request(connection):
    assert connection.request("POST", "/echo", H2C, body=b"a body").body == b"a body"
    assert connection.get("/text").body == b"some text"


@uvicorn_differs("loses what is behind it")
def test_pipelined_behind_it(connection):
    upgrade = b"".join(b"%s: %s\r\n" % (name.encode(), value.encode()) for name, value in H2C)
    request = b"GET /length/%d HTTP/1.1\r\nHost: test\r\n"
    connection.send(request % 1 + upgrade + b"\r\n" + request % 2 + b"\r\n")
    assert connection.read_response().text == "/length/1? 0"
    assert connection.read_response().text == "/length/2? 0"


def test_upgrade_without_connection_is_an_ordinary_header(connection):
    for _ in range(2):
        assert connection.request("GET", "/text", [("Upgrade", "websocket")]).body == b"some text"


def test_connect_opens_no_tunnel(server, connection):
    """RFC 9110, 9.3.6: an origin server need not support CONNECT."""
    connection.send(b"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n")
    assert connection.read_response().status in (400, 404, 405, 500, 501)
    assert server.get("/text").status == 200
