"""The command: its options, and what it says when something is wrong."""

import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from support import KIND, Connection, ServerProcess, uvicorn_differs
from support.server import APPS, exit_status_of


def run(*arguments: str) -> subprocess.CompletedProcess:
    """Run the command to its end."""
    command = [sys.executable, "-m", KIND, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, cwd=APPS, check=False)


def only_line(result: subprocess.CompletedProcess) -> str:
    """The one line that it wrote."""
    text = result.stdout + result.stderr
    lines = text.splitlines()
    assert len(lines) == 1, text
    return lines[0]


# --- mistakes -----------------------------------------------------------------------------------------------


def test_no_argument_prints_a_short_help():
    result = run()
    text = result.stdout + result.stderr
    assert "Traceback" not in text
    assert KIND in text
    assert "--help" in text
    assert "module:" in text.lower() or "APP" in text
    assert 1 <= len(text.splitlines()) <= 25


def test_help():
    result = run("--help")
    assert result.returncode == 0
    for option in (
        "--host",
        "--port",
        "--uds",
        "--fd",
        "--factory",
        "--app-dir",
        "--log-level",
        "--access-log",
        "--no-access-log",
        "--root-path",
        "--backlog",
        "--timeout-keep-alive",
        "--limit-concurrency",
    ):
        assert option in result.stdout


def test_version():
    result = run("--version")
    assert result.returncode == 0
    assert re.search(r"[0-9]+\.[0-9]+", result.stdout)


@uvicorn_differs("ends with 3")
@pytest.mark.parametrize(
    ("app", "named"),
    [
        ("nosuchmodule:app", "nosuchmodule"),
        ("nosuch.module:app", "nosuch"),
        ("apps:nosuchattribute", "nosuchattribute"),
        ("apps.named:Namespace.nosuch", "Namespace.nosuch"),
        ("apps", "apps"),
        (":app", ":app"),
        ("apps:", "apps:"),
    ],
)
def test_app_that_is_not_there(app, named):
    result = run(app, "--port", "0")
    line = only_line(result)
    assert named in line
    assert line.startswith("ERROR:")
    assert result.returncode == 1


@pytest.mark.skipif(KIND == "uvicorn", reason="uvicorn serves it, and fails with each request")
def test_app_that_cannot_be_called():
    result = run("apps.named:not_callable", "--port", "0")
    assert "not_callable" in only_line(result)
    assert result.returncode == 1


def test_module_that_fails_to_import_shows_why(tmp_path):
    """A mistake inside the user's module is the user's to read: the traceback, not 'could not import'."""
    (tmp_path / "broken.py").write_text("import nosuchdependency\n")
    result = run("broken:app", "--app-dir", str(tmp_path), "--port", "0")
    assert "broken.py" in result.stderr
    assert "No module named 'nosuchdependency'" in result.stderr
    assert result.returncode != 0


@uvicorn_differs("ends with 3")
def test_port_in_use():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = run("apps:app", "--port", str(port))
    errors = [line for line in result.stderr.splitlines() if not line.startswith("INFO")]
    assert len(errors) == 1, result.stderr
    assert "address already in use" in errors[0].lower()
    assert str(port) in errors[0]
    assert result.returncode == 1


def test_lifespan_is_shut_down_when_the_port_is_in_use():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        result = run("apps:app", "--port", str(taken.getsockname()[1]))
    started = "Application startup complete" in result.stderr
    assert started == ("the app shuts down" in result.stdout)


@uvicorn_differs("shows a traceback")
def test_uds_that_cannot_be_bound(tmp_path):
    result = run("apps:app", "--uds", str(tmp_path / "no" / "such" / "directory.sock"))
    errors = [line for line in result.stderr.splitlines() if not line.startswith("INFO")]
    assert len(errors) == 1, result.stderr
    assert "directory.sock" in errors[0]
    assert result.returncode == 1


@pytest.mark.parametrize(
    "options", [["--port", "many"], ["--no-such-option"], ["--lifespan", "perhaps"], ["--limit-concurrency", "x"]]
)
def test_wrong_option_is_a_usage_error(options):
    result = run("apps:app", *options)
    assert result.returncode == 2
    assert options[0] in result.stderr
    assert "Traceback" not in result.stderr


# --- what to serve ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("app", ["apps.named:class_app", "apps.named:Namespace.inner"])
def test_app_as_an_object(app):
    with ServerProcess(app) as server:
        assert server.get("/text").body == b"some text"
        assert "the app shuts down" not in server.stdout.text
        server.stop()
        assert "the app shuts down" in server.stdout.text


def test_factory():
    with ServerProcess("apps.named:make_app", "--factory") as server:
        assert server.get("/text").body == b"some text"


@uvicorn_differs("lets the TypeError through as a traceback")
def test_factory_that_wants_an_argument():
    result = run("apps.named:make_app_with_argument", "--factory", "--port", "0")
    assert result.returncode == 1
    assert "argument" in only_line(result)


def test_working_directory_is_searched():
    with ServerProcess("apps:app", app_dir=None, cwd=APPS) as server:
        assert server.get("/text").body == b"some text"


def test_app_dir(tmp_path):
    (tmp_path / "elsewhere.py").write_text("from apps import app\n")
    shutil.copytree(APPS / "apps", tmp_path / "apps")
    with ServerProcess("elsewhere:app", app_dir=tmp_path, cwd="/") as server:
        assert server.get("/text").body == b"some text"


def test_console_script():
    script = Path(sys.executable).parent / KIND
    with ServerProcess("apps:app", command=[str(script)]) as server:
        assert server.get("/text").body == b"some text"
        assert server.stop() in exit_status_of(signal.SIGINT)


# --- where to listen ----------------------------------------------------------------------------------------


def test_unix_socket(tmp_path):
    path = tmp_path / "server.sock"
    with ServerProcess("apps:app", "--uds", str(path)) as server:
        assert server.address == str(path)
        assert f"running on unix socket {path}" in server.log.text
        assert stat.S_ISSOCK(path.stat().st_mode)
        assert stat.S_IMODE(path.stat().st_mode) == 0o666
        with server.connect() as connection:
            for _ in range(3):
                assert connection.get("/text").body == b"some text"
        server.stop()
    assert not path.exists()


def test_unix_socket_left_by_a_dead_server(tmp_path):
    path = str(tmp_path / "server.sock")
    with ServerProcess("apps:app", "--uds", path) as server:
        server.kill()
    with ServerProcess("apps:app", "--uds", path) as server:
        assert server.get("/text").body == b"some text"


@pytest.mark.parametrize("family", ["tcp", "unix"])
def test_inherited_descriptor(tmp_path, family):
    path = str(tmp_path / "inherited.sock")
    if family == "tcp":
        listener = socket.create_server(("127.0.0.1", 0))
    else:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(path)
        listener.listen()
    with listener:
        address = listener.getsockname()
        with Connection(address) as early:
            early.send_request("GET", "/text")
            number = str(listener.fileno())
            with ServerProcess("apps:app", "--fd", number, pass_fds=[listener.fileno()]) as server:
                assert "running on socket" in server.log.text
                assert early.read_response().body == b"some text", "it was in the backlog before the server started"
                with Connection(address) as connection:
                    assert connection.get("/text").body == b"some text"


def test_host_and_port():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with ServerProcess("apps:app", "--host", "127.0.0.1", "--port", str(port)) as server:
        assert server.address == ("127.0.0.1", port)
        assert f"running on http://127.0.0.1:{port} (Press CTRL+C to quit)" in server.log.text


def test_host_by_name():
    with ServerProcess("apps:app", "--host", "localhost", "--port", "0") as server:
        port = server.address[1]
        with Connection(("127.0.0.1", port)) as connection:
            assert connection.get("/text").body == b"some text"


@pytest.mark.skipif(shutil.which("ss") is None, reason="needs ss, of iproute2")
def test_backlog():
    with ServerProcess("apps:app", "--backlog", "7") as server:
        port = server.address[1]
        found = subprocess.run(["ss", "-Hltn", f"sport = :{port}"], capture_output=True, text=True, check=False)
        if found.returncode != 0 or not found.stdout:
            pytest.skip("ss is not installed")
        assert found.stdout.split()[2] == "7"


# --- limits and logs ----------------------------------------------------------------------------------------


def test_limit_concurrency():
    """As uvicorn counts it: a connection too many is answered by 503."""
    with ServerProcess("apps:app", "--limit-concurrency", "3") as server, server.connect() as first:
        first.send_request("GET", "/gate?key=k")
        with server.connect() as second:
            second.request("GET", "/text")
            with server.connect() as third:
                response = third.get("/text")
                assert (response.status, response.reason) == (503, "Service Unavailable")
                assert response.header("connection") == "close"
                assert third.closed_by_peer()
                server.log.wait_for("WARNING.*Exceeded concurrency limit")
        with server.connect() as again:
            control_set = again.request("GET", "/control/set/k.release")
            assert control_set.status == 200
        assert first.read_response().text == "released k"


def test_access_log():
    with ServerProcess("apps:app") as server:
        with server.connect() as connection:
            port = connection.socket.getsockname()[1]
            connection.get("/text?a=b")
            connection.request("POST", "/response?status=404&length=0", body=b"x")
            connection.request("GET", "/text", version="1.0")
        server.stop()
        lines = [line for line in server.stdout.text.splitlines() if "127.0.0.1" in line]
    assert lines == [
        f'INFO:     127.0.0.1:{port} - "GET /text?a=b HTTP/1.1" 200 OK',
        f'INFO:     127.0.0.1:{port} - "POST /response?status=404&length=0 HTTP/1.1" 404 Not Found',
        f'INFO:     127.0.0.1:{port} - "GET /text HTTP/1.0" 200 OK',
    ]


def test_access_log_of_odd_targets():
    """A path cannot forge a line of the log."""
    with ServerProcess("apps:app") as server:
        server.get("/text/%0d%0aINFO:%20forged")
        server.get("/text/%C3%BC%22%20?x=%00")
        server.stop()
        lines = [line for line in server.stdout.text.splitlines() if "HTTP/1.1" in line]
    assert len(lines) == 2
    assert '"GET /text/%0D%0AINFO%3A%20forged HTTP/1.1" 200' in lines[0]
    assert "forged" not in server.log.text
    assert not any(line.startswith("INFO: forged") for line in server.stdout.text.splitlines())


def test_no_access_log():
    with ServerProcess("apps:app", "--no-access-log") as server:
        server.get("/text")
        server.stop()
        assert "GET /text" not in server.stdout.text + server.log.text
        assert "Application startup complete" in server.log.text


@pytest.mark.parametrize(
    ("level", "info", "access"), [("info", True, True), ("warning", False, False), ("error", False, False)]
)
def test_log_level(tmp_path, level, info, access):
    path = str(tmp_path / "server.sock")
    server = ServerProcess("apps:app", "--uds", path, "--log-level", level)
    try:
        server.wait_accepting(path)
        server.get("/raise-before")
        server.stop()
        assert ("Application startup complete" in server.log.text) == info
        assert ("GET /raise-before" in server.stdout.text) == access
        assert "Exception in ASGI application" in server.log.text
    finally:
        server.kill()


def test_limit_concurrency_leaves_room_below_it():
    with ServerProcess("apps:app", "--limit-concurrency", "50") as server:
        connections = [server.connect() for _ in range(20)]
        assert [connection.get("/text").status for connection in connections] == [200] * 20
        for connection in connections:
            connection.close()


def test_large_timeout_keep_alive_stops_at_once():
    """A pending keep-alive time does not hold up the stop."""
    with ServerProcess("apps:app", "--timeout-keep-alive", "3600") as server, server.connect() as connection:
        connection.get("/text")
        assert server.stop() in exit_status_of(signal.SIGINT)
