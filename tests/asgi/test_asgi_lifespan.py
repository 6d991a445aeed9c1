"""The lifespan protocol: startup, shutdown, state, and apps that do without."""

import ast
import signal

import pytest
from support import KIND, ServerProcess, uvicorn_differs
from support.server import exit_status_of


def stop(server) -> None:
    """Stop it, in good order."""
    assert server.stop() in exit_status_of(signal.SIGINT)


def test_startup_and_shutdown(server_factory):
    server = server_factory("apps.lifespans:lifespan_with_state")
    log = server.log.text
    assert "Waiting for application startup." in log
    assert "Application startup complete." in log
    stop(server)
    log = server.log.text
    assert log.index("Application startup complete.") < log.index("running on") < log.index("Shutting down")
    assert log.index("Waiting for application shutdown.") < log.index("Application shutdown complete.")


def test_lifespan_scope_and_events(server_factory):
    server = server_factory("apps.lifespans:lifespan_with_state")
    stop(server)
    told = dict(line.split(": ", 1) for line in server.stdout.text.splitlines() if line.startswith("lifespan scope"))
    scope = ast.literal_eval(told["lifespan scope"])
    assert scope["type"] == "lifespan"
    assert scope["asgi"]["version"] == "3.0"
    assert scope["asgi"]["spec_version"] == "2.0"
    assert scope["state"] == {}
    events = [line for line in server.stdout.text.splitlines() if line.startswith("lifespan event")]
    assert events == [
        "lifespan event: {'type': 'lifespan.startup'}",
        "lifespan event: {'type': 'lifespan.shutdown'}",
    ]


def test_state_is_copied_for_each_request(server_factory):
    """A shallow copy: what a request adds is its own, what the values hold is shared."""
    server = server_factory("apps.lifespans:lifespan_with_state")
    with server.connect() as connection:
        assert ast.literal_eval(connection.get("/1").text) == {"name": "value", "shared": []}
        assert ast.literal_eval(connection.get("/2").text) == {"name": "value", "shared": ["/1"]}
    assert ast.literal_eval(server.get("/3").text) == {"name": "value", "shared": ["/1", "/2"]}
    stop(server)
    assert "state at shutdown: {'name': 'value', 'shared': ['/1', '/2', '/3']}" in server.stdout.text


@pytest.mark.parametrize("app", ["lifespan_startup_fails", "lifespan_startup_fails_silently"])
@pytest.mark.parametrize("option", ["auto", "on"])
def test_startup_that_fails_ends_the_server(server_factory, app, option):
    server = server_factory(f"apps.lifespans:{app}", "--lifespan", option, wait=False)
    assert server.wait() == 3
    log = server.log.text
    assert "Application startup failed. Exiting." in log
    assert ("the database is not there" in log) == (app == "lifespan_startup_fails")
    assert "running on" not in log
    assert "Traceback" not in log


@pytest.mark.parametrize(
    "app",
    [
        "lifespan_raises",
        "lifespan_returns",
        "lifespan_returns_after_startup",
        "lifespan_raises_after_startup",
        "lifespan_raises_at_shutdown",
    ],
)
def test_app_without_a_whole_lifespan_serves_all_the_same(server_factory, app):
    server = server_factory(f"apps.lifespans:{app}")
    assert server.get("/").status == 200
    stop(server)
    assert "Finished server process" in server.log.text


def test_app_that_answers_lifespan_as_a_request(server_factory):
    server = server_factory("apps.lifespans:lifespan_ignored")
    assert server.get("/").body == b"answered"
    stop(server)


def test_unsupported_is_mentioned(server_factory):
    server = server_factory("apps.lifespans:lifespan_raises")
    server.log.wait_for("ASGI 'lifespan' protocol appears unsupported.")
    assert "Traceback" not in server.log.text


def test_on_wants_a_lifespan(server_factory):
    server = server_factory("apps.lifespans:lifespan_raises", "--lifespan", "on", wait=False)
    assert server.wait() == 3
    assert "Exception in 'lifespan' protocol" in server.log.text
    assert "AssertionError" in server.log.text
    assert "Application startup failed. Exiting." in server.log.text


def test_off_sends_no_lifespan(server_factory):
    server = server_factory("apps.lifespans:lifespan_with_state", "--lifespan", "off", wait=True)
    stop(server)
    assert "lifespan" not in server.stdout.text
    assert "application startup" not in server.log.text


def test_off_gives_an_empty_state(server_factory):
    server = server_factory("apps.lifespans:lifespan_returns", "--lifespan", "off")
    assert server.get("/").body == b"{}"


def test_no_request_before_the_startup_is_complete(server_factory):
    server = server_factory("apps.lifespans:lifespan_slow")
    assert server.get("/").body == b"True"


def test_shutdown_that_fails_is_logged(server_factory):
    server = server_factory("apps.lifespans:lifespan_shutdown_fails")
    server.stop()
    assert "could not flush" in server.log.text
    assert "Application shutdown failed. Exiting." in server.log.text


@uvicorn_differs("cannot be stopped by signals before the startup is complete")
def test_startup_that_hangs_can_be_interrupted(server_factory):
    """The first SIGINT asks to stop after the startup, the second does not wait for it."""
    server = server_factory("apps.lifespans:lifespan_startup_hangs", wait=False)
    server.log.wait_for("Waiting for application startup")
    server.send_signal(signal.SIGINT)
    server.log.wait_for("CTRL\\+C to force quit", timeout=5)
    assert server.stop(signal.SIGINT) == 3


@pytest.mark.skipif(KIND == "uvicorn", reason="uvicorn hangs")
def test_shutdown_that_hangs_can_be_interrupted(server_factory):
    server = server_factory("apps.lifespans:lifespan_shutdown_hangs")
    server.send_signal(signal.SIGINT)
    server.log.wait_for("Waiting for application shutdown")
    server.stop(signal.SIGINT)


@uvicorn_differs("ends with 0 all the same")
def test_shutdown_that_fails_shows_in_the_exit_status(server_factory):
    assert server_factory("apps.lifespans:lifespan_shutdown_fails").stop() != 0


@pytest.fixture
def server_factory():
    """Start servers that end with the test."""
    running = []

    def start(app, *options, wait=True):
        server = ServerProcess(app, *options)
        running.append(server)
        if wait:
            server.wait_ready()
        return server

    yield start
    for server in running:
        server.kill()
