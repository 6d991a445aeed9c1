"""Stopping by SIGINT and SIGTERM: no new connections, what runs is finished, the lifespan is shut down, status 0."""

import signal

import pytest
from support import ServerProcess, Truncated, control, uvicorn_differs
from support.server import exit_status_of

SIGNALS = [signal.SIGINT, signal.SIGTERM]


@pytest.fixture
def server():
    """A server that the test stops."""
    with ServerProcess("apps:app") as running:
        yield running


@pytest.mark.parametrize("number", SIGNALS)
def test_idle_server_stops(server, number):
    assert server.get("/text").status == 200
    assert server.stop(number) in exit_status_of(number)
    assert "the app shuts down" in server.stdout.text
    assert "Finished server process" in server.log.text
    assert "Traceback" not in server.log.text


@uvicorn_differs("ends by the signal itself after a graceful stop")
def test_status_is_0_after_sigterm(server):
    assert server.stop(signal.SIGTERM) == 0


@pytest.mark.parametrize("number", SIGNALS)
def test_upload_in_progress_is_finished(server, number):
    with server.connect() as connection:
        connection.send(b"POST /sink?key=k HTTP/1.1\r\nHost: test\r\nContent-Length: 10\r\n\r\n12345")
        control(server).wait("k.started")
        control(server).set("k.release")
        server.send_signal(number)
        server.log.wait_for("Shutting down")
        connection.send(b"67890")
        response = connection.read_response()
        assert response.text == '{"bytes": 10, "largest": 5}'
        assert connection.closed_by_peer()
        assert server.wait() in exit_status_of(number)


@pytest.mark.parametrize("number", SIGNALS)
def test_stream_in_progress_is_finished(server, number):
    """Whole, with its last chunk; released by the end of an upload that is in progress as well."""
    with server.connect() as stream, server.connect() as upload:
        upload.send(b"POST /release?key=k HTTP/1.1\r\nHost: test\r\nContent-Length: 10\r\n\r\n12345")
        stream.send_request("GET", "/drip?key=k&pieces=2")
        stream.read_head()
        assert stream.read_chunk() == b"piece 0"
        control(server).wait("k.reading")
        server.send_signal(number)
        server.log.wait_for("Shutting down")
        upload.send(b"67890")
        assert upload.read_response().status == 200
        assert stream.read_chunk() == b"piece 1"
        assert stream.read_chunk() == b""
        assert stream.read_line() == b""
        assert stream.closed_by_peer()
        assert server.wait() in exit_status_of(number)


def test_response_in_progress_says_close(server):
    """A client that keeps its connection learns that it must not use it again."""
    with server.connect() as busy:
        busy.send(b"POST /release?key=k HTTP/1.1\r\nHost: test\r\nContent-Length: 10\r\n\r\n12345")
        control(server).wait("k.reading")
        server.send_signal(signal.SIGINT)
        server.log.wait_for("Shutting down")
        busy.send(b"67890")
        assert busy.read_response().header("connection") == "close"
        assert busy.closed_by_peer()


def test_idle_connections_are_closed(server):
    with server.connect() as fresh, server.connect() as kept:
        kept.get("/text")
        server.send_signal(signal.SIGINT)
        assert kept.closed_by_peer()
        assert fresh.closed_by_peer()
        assert server.wait() in exit_status_of(signal.SIGINT)


def test_new_connections_are_refused(server):
    with server.connect() as busy:
        busy.send(b"POST /release?key=k HTTP/1.1\r\nHost: test\r\nContent-Length: 10\r\n\r\n12345")
        control(server).wait("k.reading")
        with server.connect() as idle:
            server.get("/text")
            server.send_signal(signal.SIGINT)
            assert idle.closed_by_peer()
        with pytest.raises((ConnectionError, Truncated)):
            server.get("/text")
        busy.send(b"67890")
        assert busy.read_response().status == 200
        assert server.wait() in exit_status_of(signal.SIGINT)


def test_background_work_is_finished(server):
    """Its response has left long ago; the stop waits for the coroutine of the request all the same."""
    with server.connect() as upload:
        assert server.get("/background?key=k").body == b"answered"
        upload.send(b"POST /release?key=k HTTP/1.1\r\nHost: test\r\nContent-Length: 10\r\n\r\n12345")
        control(server).wait("k.reading")
        server.send_signal(signal.SIGTERM)
        server.log.wait_for("Shutting down")
        upload.send(b"67890")
        assert upload.read_response().status == 200
        assert server.wait() in exit_status_of(signal.SIGTERM)
    assert "background k finished" in server.stdout.text


@pytest.mark.parametrize("number", SIGNALS)
def test_task_left_running_does_not_hold_up_the_stop(server, number):
    assert server.get("/leave-task").body == b"left one"
    assert server.stop(number) in exit_status_of(number)
    assert "the app shuts down" in server.stdout.text


def test_timeout_ends_what_does_not_end():
    with ServerProcess("apps:app", "--timeout-graceful-shutdown", "1") as server, server.connect() as connection:
        connection.send_request("GET", "/gate?key=k")
        control(server).wait("k.started")
        server.send_signal(signal.SIGTERM)
        assert server.wait() in exit_status_of(signal.SIGTERM)
        assert "gate k cancelled" in server.stdout.text
        assert "timeout graceful shutdown exceeded" in server.log.text
        assert "the app shuts down" in server.stdout.text


@uvicorn_differs("cancels it")
def test_stream_is_told_when_its_time_is_over():
    """It gets http.disconnect and can end by itself, as it does when its client leaves."""
    with ServerProcess("apps:app", "--timeout-graceful-shutdown", "1") as server, server.connect() as connection:
        connection.send_request("GET", "/endless-stream")
        assert connection.read_head().status == 200
        assert connection.read_chunk() == b"begin"
        server.send_signal(signal.SIGTERM)
        assert server.wait() in exit_status_of(signal.SIGTERM)
        assert "the stream was told" in server.stdout.text
        assert "Cancel" not in server.log.text


@uvicorn_differs("waits for the connection on Python 3.12 and later", always=False)
def test_second_sigint_forces_the_end(server):
    with server.connect() as connection:
        connection.send_request("GET", "/gate?key=k")
        control(server).wait("k.started")
        server.send_signal(signal.SIGINT)
        server.log.wait_for("CTRL\\+C to force quit")
        server.send_signal(signal.SIGINT)
        server.wait()


def test_address_is_free_again_at_once(server):
    port = server.address[1]
    with server.connect() as connection:
        connection.get("/text")
        server.stop()
    with ServerProcess("apps:app", "--port", str(port)) as again:
        assert again.address == ("127.0.0.1", port)
        assert again.get("/text").status == 200
