"""Date and Server, and what --header and the app make of them."""

import time
from email.utils import parsedate_to_datetime

import pytest
from support import KIND, ServerProcess, uvicorn_differs


def test_date_and_server(connection):
    response = connection.get("/text")
    assert response.header("server") == KIND
    date = response.header("date")
    assert abs(parsedate_to_datetime(date).timestamp() - time.time()) < 30
    assert date.endswith(" GMT")
    assert len(date) == len("Sun, 06 Nov 1994 08:49:37 GMT")


def test_date_goes_on(server):
    """The date is cached, but not for long."""
    first = server.get("/text").header("date")
    end = time.monotonic() + 20
    while server.get("/text").header("date") == first:
        assert time.monotonic() < end, "the date stands still"
        time.sleep(0.05)


@pytest.mark.parametrize("path", ["/text", "/response?body=a&pieces=2", "/response?status=204", "/raise-before"])
def test_on_every_kind_of_response(connection, path):
    response = connection.get(path)
    assert response.header("server") is not None
    assert response.header("date") is not None


@uvicorn_differs("sends both its own and the app's")
def test_app_replaces_them(connection):
    response = connection.get("/own-date-and-server")
    assert response.values("date") == ["Thu, 01 Jan 1970 00:00:00 GMT"]
    assert response.values("server") == ["own/1.0"]
    assert connection.get("/text").header("server") == KIND


def test_options_leave_them_out():
    with ServerProcess("apps:app", "--no-server-header", "--no-date-header") as server:
        response = server.get("/text")
        assert response.values("server") == []
        assert response.values("date") == []
        assert response.body == b"some text"


def test_header_option():
    options = ("--header", "X-First:one", "--header", "X-Second: with space", "--header", "Server:mine")
    with ServerProcess("apps:app", *options) as server:
        response = server.get("/text")
        assert response.header("x-first") == "one"
        assert response.header("x-second") == "with space"
        assert response.values("server") == ["mine"]
        assert response.header("date") is not None
