"""How the command stops: signals, what it waits for, what it does not wait for."""

import signal
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from support.applications import lifespan_app
from support.command import running, write_file

# /slow answers when the file `go` exists; /stubborn swallows its cancellation; /leave starts a task that never ends.
APP = """
    import asyncio, pathlib

    async def answer(send, body=b"done"):
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
        await send({"type": "http.response.body", "body": body})

    async def for_ever(swallow=False):
        while True:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                print("cancelled", flush=True)
                if not swallow:
                    raise

    tasks = set()

    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            try:
                await receive()
            except asyncio.CancelledError:
                await send({"type": "lifespan.shutdown.failed", "message": "Traceback, as Starlette sends it"})
                raise
            print("shutdown", flush=True)
            await send({"type": "lifespan.shutdown.complete"})
            return
        print("request", scope["path"], flush=True)
        if scope["path"] == "/slow":
            while not pathlib.Path("go").exists():
                await asyncio.sleep(0.005)
        elif scope["path"] in ("/hang", "/stubborn"):
            await for_ever(swallow=scope["path"] == "/stubborn")
        elif scope["path"] in ("/leave", "/leave-stubborn"):
            tasks.add(asyncio.create_task(for_ever(swallow=scope["path"] == "/leave-stubborn"), name="left"))
            await asyncio.sleep(0)
        await answer(send)
"""

SIGNALS = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)


@pytest.fixture
def start(serve, write):
    write("stopping.py", APP)

    def start_server(*arguments):
        return serve("stopping:app", "--no-access-log", *arguments)

    return start_server


class Background:
    """A request that is under way in a thread."""

    def __init__(self, command, url, path):
        self.outcome = None
        self.thread = threading.Thread(target=self._get, args=(url + path,))
        self.thread.start()
        command.wait_for(f"request {path}")

    def _get(self, url):
        try:
            self.outcome = httpx.get(url, timeout=20, trust_env=False, verify=False).text
        except httpx.HTTPError as exc:
            self.outcome = exc

    def join(self):
        self.thread.join(20)
        return self.outcome


@SIGNALS
def test_idle_server_stops_with_exit_code_0(start, number):
    command, _ = start()
    assert command.stop(number) == 0
    assert "Traceback" not in command.stderr


@SIGNALS
def test_an_idle_keep_alive_connection_does_not_hold_it_up(start, client, number):
    command, url = start()
    assert client.get(url).text == "done"
    assert command.stop(number) == 0
    assert "Waiting for connections" not in command.stderr


@SIGNALS
def test_a_running_request_is_finished(start, tmp_path, number):
    command, url = start()
    request = Background(command, url, "/slow")
    command.send(number)
    command.wait_for(r"Waiting for connections to close\. \(CTRL\+C to force quit\)")
    (tmp_path / "go").touch()
    assert request.join() == "done"
    assert command.wait() == 0
    assert command.stdout.splitlines()[-1] == "shutdown"


def test_new_connections_are_refused_while_it_stops(start, tmp_path):
    command, url = start()
    request = Background(command, url, "/slow")
    command.send(signal.SIGTERM)
    command.wait_for("Waiting for connections")
    host, _, port = url.removeprefix("http://").partition(":")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, int(port)))
    (tmp_path / "go").touch()
    assert request.join() == "done"
    assert command.wait() == 0


@pytest.mark.parametrize("path", ["/hang", "/stubborn"])
def test_a_second_ctrl_c_does_not_wait(start, path):
    command, url = start()
    request = Background(command, url, path)
    command.send(signal.SIGINT)
    command.wait_for("Waiting for connections")
    command.send(signal.SIGINT)
    assert command.wait() == 0
    assert isinstance(request.join(), httpx.HTTPError)
    assert "cancelled" in command.stdout
    assert "shutdown" not in command.stdout
    assert "Traceback" not in command.stderr


# What takes seconds: the path asked for before the stop, whether it still runs then, the signal, options.
SLOW_STOPS = [
    ("/hang", True, signal.SIGTERM, ("--timeout-graceful-shutdown", "1")),
    ("/stubborn", True, signal.SIGTERM, ("--timeout-graceful-shutdown", "1")),
    *(
        (path, False, number, ())
        for path in ("/leave", "/leave-stubborn")
        for number in (signal.SIGINT, signal.SIGTERM)
    ),
]


@pytest.fixture(scope="module")
def slow_stops(tmp_path_factory):
    """The stops above, all at once: (path, signal) to the future of (command, exit code, what the request gave)."""
    folder = tmp_path_factory.mktemp("slow")
    write_file(folder / "stopping.py", APP)

    def stop(path, still_runs, number, options):
        command = start("stopping:app", "--port", "0", "--no-access-log", *options)
        url = command.wait_ready()
        request = Background(command, url, path)
        if not still_runs:
            request.join()
        return command, command.stop(number), request.join()

    with running(folder) as start, ThreadPoolExecutor(len(SLOW_STOPS)) as pool:
        yield {(case[0], case[2]): pool.submit(stop, *case) for case in SLOW_STOPS}


@pytest.mark.parametrize("path", ["/hang", "/stubborn"])
def test_timeout_graceful_shutdown_cancels_what_runs(slow_stops, path):
    command, code, answer = slow_stops[path, signal.SIGTERM].result()
    assert code == 0
    assert isinstance(answer, httpx.HTTPError)
    assert "Cancel 1 running task(s), timeout graceful shutdown exceeded" in command.stderr
    assert "cancelled" in command.stdout
    assert command.stdout.splitlines().count("shutdown") == 1


@SIGNALS
@pytest.mark.parametrize("path", ["/leave", "/leave-stubborn"])
def test_a_task_left_running_does_not_hold_it_up(slow_stops, number, path):
    command, code, answer = slow_stops[path, number].result()
    assert answer == "done"
    assert code == 0
    assert "cancelled" in command.stdout
    assert "shutdown" in command.stdout
    left = "Left behind after 5 s, not ended by their cancellation: left" in command.stderr
    assert left == (path == "/leave-stubborn")


def test_a_signal_during_startup_ends_it_once_the_application_is_ready(bolide, write, tmp_path):
    startup = """
        print("starting", flush=True)
        while not pathlib.Path("go").exists():
            await asyncio.sleep(0.005)
    """
    write("slow.py", lifespan_app(startup, 'print("shutdown", flush=True)'))
    command = bolide("slow:app", "--port", "0")
    command.wait_for("starting")
    command.send(signal.SIGTERM)
    (tmp_path / "go").touch()
    assert command.wait() == 0
    assert command.stdout.splitlines() == ["starting", "shutdown"]


@pytest.mark.parametrize("phase", ["startup", "shutdown"])
def test_ctrl_c_twice_ends_an_application_that_hangs_in_its_lifespan(bolide, write, phase):
    write(
        "hung.py",
        """
        import asyncio, os
        async def app(scope, receive, send):
            assert scope["type"] == "lifespan"
            await receive()
            if os.environ["PHASE"] == "shutdown":
                await send({"type": "lifespan.startup.complete"})
                await receive()
            print("hanging", flush=True)
            await asyncio.Event().wait()
        """,
    )
    command = bolide("hung:app", "--port", "0", env={"PHASE": phase})
    if phase == "shutdown":
        command.wait_ready()
        command.send(signal.SIGINT)
    command.wait_for("hanging")
    command.send(signal.SIGINT)
    if phase == "startup":
        command.wait_for(r"Stopping after the startup\. \(CTRL\+C to force quit\)")
        command.send(signal.SIGINT)
        assert command.wait() == 3
    else:
        assert command.wait() == 0


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_connections_that_wait_to_be_accepted_are_answered(bolide, write, tmp_path, kind):
    write(
        "blocking.py",
        """
        import pathlib, time

        async def app(scope, receive, send):
            if scope["path"] == "/block":
                print("blocking", flush=True)
                while not pathlib.Path("go").exists():
                    time.sleep(0.005)
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
            await send({"type": "http.response.body"})
        """,
    )
    path = str(tmp_path / "s")
    where = ["--port", "0"] if kind == "tcp" else ["--uds", path]
    command = bolide("blocking:app", "--lifespan", "off", *where)
    ready = command.wait_ready()

    def connect(target):
        sock = socket.socket(socket.AF_INET if kind == "tcp" else socket.AF_UNIX)
        sock.settimeout(20)
        sock.connect(("127.0.0.1", int(ready.rpartition(":")[2])) if kind == "tcp" else path)
        sock.sendall(b"GET %s HTTP/1.1\r\nHost: x\r\n\r\n" % target)
        return sock

    waiting = [connect(b"/block")]
    command.wait_for("blocking")
    # More than the server accepts in one go.
    waiting += [connect(b"/") for _ in range(400)]
    command.send(signal.SIGTERM)
    (tmp_path / "go").touch()
    for sock in waiting:
        with sock:
            assert sock.recv(4096).startswith(b"HTTP/1.1 200 ")
    assert command.wait() == 0


def test_the_port_is_closed_while_requests_run_on(start, tmp_path):
    command, url = start()
    answers = []
    thread = threading.Thread(target=lambda: answers.append(httpx.get(f"{url}/slow", timeout=20).status_code))
    thread.start()
    command.wait_for("request /slow")
    command.send(signal.SIGTERM)
    command.wait_for("Waiting for connections to close")
    with pytest.raises(httpx.ConnectError):
        httpx.get(url, timeout=20)
    (tmp_path / "go").touch()
    thread.join(20)
    assert answers == [200]
    assert command.wait() == 0
