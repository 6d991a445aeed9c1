"""Several workers: they share the address, are replaced when they die, follow the supervisor's signals."""

import collections
import contextlib
import os
import re
import signal
import socket
import threading
import time

import httpx
import pytest

APP = """
    import asyncio, ctypes, os, pathlib, time

    ballast = []
    while pathlib.Path("hold").exists():
        time.sleep(0.005)

    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            if pathlib.Path("broken").exists():
                os._exit(1)
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        if scope["path"] == "/slow":
            print("slow", os.getpid(), flush=True)
            while not pathlib.Path("go").exists():
                await asyncio.sleep(0.005)
        elif scope["path"] == "/busy":
            end = time.monotonic() + 3
            while time.monotonic() < end:
                pass
        elif scope["path"] == "/greedy":
            began = time.monotonic()
            sum(range(5_000_000))
            # The sum is made in C, which never lets another thread have its turn.
            sum(range(int(5_000_000 * 1.6 / (time.monotonic() - began))))
        elif scope["path"] == "/deadlock":
            ctypes.PyDLL(None).sleep(600)
        elif scope["path"] == "/grow":
            ballast.append(b"x" * (100 << 20))
        body = str(os.getpid()).encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
        await send({"type": "http.response.body", "body": body})
"""
DEADLINE = 20.0


@pytest.fixture
def supervise(serve, write):
    write("worked.py", APP)

    def start(*arguments, workers=2, **options):
        command, url = serve("worked:app", "--no-access-log", "--workers", str(workers), *arguments, **options)
        ready = 1 + sum("startup complete" in line for line in command.lines[:-1])
        for _ in range(workers - ready + 1):
            command.wait_for("startup complete")
        return command, url

    return start


def get(url):
    return httpx.get(url, trust_env=False, verify=False, timeout=DEADLINE).text


def pids(url, count):
    """The workers that answer, until `count` different ones have."""
    seen = set()
    deadline = time.monotonic() + DEADLINE
    while len(seen) < count:
        assert time.monotonic() < deadline, seen
        seen.add(int(get(url)))
    return seen


def wait_gone(pid):
    deadline = time.monotonic() + DEADLINE
    with contextlib.suppress(ProcessLookupError):
        while time.monotonic() < deadline:
            os.kill(pid, 0)
            time.sleep(0.005)
        raise AssertionError(f"process {pid} is still there")


class Load:
    """Requests until it is left, each on a connection of its own unless keep_alive; collects answers and failures."""

    def __init__(self, url, threads=4, keep_alive=False):
        self.url = url
        self.keep_alive = keep_alive
        self.answers = collections.Counter()
        self.failures = []
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(threads)]

    def _run(self):
        with httpx.Client(trust_env=False, verify=False, timeout=DEADLINE) as client:
            answered = None
            while not self._over.is_set():
                try:
                    answer = client.get(self.url).text if self.keep_alive else get(self.url)
                    self.answers[answer] += 1
                    answered = time.monotonic()
                except Exception as exc:
                    # A server that stops waits so long for the next request, which a busy machine may hold up.
                    late = isinstance(exc, httpx.RemoteProtocolError) and answered and time.monotonic() - answered > 0.1
                    if not (self.keep_alive and late):
                        self.failures.append(exc)

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc_info):
        self._over.set()
        for thread in self._threads:
            thread.join(DEADLINE)


def test_all_workers_serve_one_port(supervise):
    command, url = supervise(workers=3)
    workers = pids(url, 3)
    assert command.process.pid not in workers
    assert command.stop() == 0
    assert f"Started parent process [{command.process.pid}]" in command.stderr
    for pid in workers:
        assert f"Started server process [{pid}]" in command.stderr
        assert f"Finished server process [{pid}]" in command.stderr
    with pytest.raises(httpx.ConnectError):
        get(url)


def test_connections_spread_over_the_workers(supervise):
    _, url = supervise(workers=2)
    counts = collections.Counter(get(url) for _ in range(200))
    # The odds against a fair coin that falls 50 or fewer times of 200 on one side are above 10**12 to 1.
    assert len(counts) == 2
    assert min(counts.values()) > 50


def test_workers_share_a_unix_socket(bolide, write, tmp_path):
    write("worked.py", APP)
    path = tmp_path / "s"
    command = bolide("worked:app", "--workers", "2", "--uds", str(path))
    assert command.wait_ready() == f"unix socket {path}"
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(path))) as client:
        assert client.get("http://x/").status_code == 200
    assert command.stop() == 0
    assert not path.exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_a_stop_finishes_running_requests(supervise, tmp_path, number):
    command, url = supervise()
    answers = []
    thread = threading.Thread(target=lambda: answers.append(get(f"{url}/slow")))
    thread.start()
    worker = command.wait_for(r"slow (\d+)")[1]
    command.send(number)
    command.wait_for("Waiting for connections to close")
    (tmp_path / "go").touch()
    thread.join(DEADLINE)
    assert answers == [worker]
    assert command.wait() == 0


def test_a_second_ctrl_c_does_not_wait(supervise):
    command, url = supervise()
    failures = []

    def fail():
        try:
            get(f"{url}/slow")
        except httpx.HTTPError as exc:
            failures.append(exc)

    thread = threading.Thread(target=fail)
    thread.start()
    command.wait_for("slow")
    command.send(signal.SIGINT)
    command.wait_for("Waiting for connections to close")
    command.send(signal.SIGINT)
    assert command.wait() == 0
    thread.join(DEADLINE)
    assert len(failures) == 1


def test_a_worker_that_is_killed_is_replaced(supervise):
    command, url = supervise()
    for _ in range(3):
        first, second = pids(url, 2)
        os.kill(first, signal.SIGKILL)
        command.wait_for(rf"Worker process \[{first}\] was killed by SIGKILL")
        command.wait_for("startup complete")
        now = pids(url, 2)
        assert second in now
        assert first not in now
    assert command.stop() == 0


@pytest.mark.parametrize("keep_alive", [False, True], ids=["connections", "keep-alive"])
def test_no_request_fails_while_workers_are_replaced(supervise, keep_alive):
    command, url = supervise()
    before = pids(url, 2)
    with Load(url, keep_alive=keep_alive) as load:
        for _ in range(3):
            command.send(signal.SIGHUP)
            for _ in range(2):
                command.wait_for("Finished server process")
    assert load.failures == []
    assert sum(load.answers.values()) > 0
    assert not before & pids(url, 2)
    assert command.stop() == 0


def test_sighup_loads_new_code_and_keeps_the_old_if_it_is_broken(supervise, tmp_path, write):
    command, url = supervise()
    before = pids(url, 2)
    (tmp_path / "broken").touch()
    command.send(signal.SIGHUP)
    command.wait_for("ended with exit code 1 before it was ready")
    assert pids(url, 2) == before
    (tmp_path / "broken").unlink()
    write("worked.py", APP.replace("str(os.getpid())", "('0' + str(os.getpid()))"))
    command.send(signal.SIGHUP)
    for _ in range(2):
        command.wait_for("Finished server process")
    assert get(url).startswith("0")
    assert command.stop() == 0


def test_sigttin_and_sigttou_change_the_number(supervise):
    command, url = supervise()
    command.send(signal.SIGTTIN)
    command.wait_for("startup complete")
    before = pids(url, 3)
    for left in (2, 1):
        command.send(signal.SIGTTOU)
        gone = int(command.wait_for(r"Finished server process \[(\d+)\]")[1])
        wait_gone(gone)
        before.discard(gone)
        assert len(before) == left
        assert pids(url, left) == before
    command.send(signal.SIGTTOU)
    assert pids(url, 1) == before
    assert command.stop() == 0


def test_workers_at_their_limit_of_requests_are_replaced(supervise):
    command, url = supervise("--limit-max-requests", "20")
    with Load(url) as load:
        for _ in range(6):
            command.wait_for("Maximum request limit of 20 exceeded")
    assert load.failures == []
    assert len(load.answers) > 4
    assert command.stop() == 0


def test_a_worker_that_grows_too_large_is_replaced(supervise):
    command, url = supervise("--max-rss", "120M", workers=1)
    first = get(f"{url}/grow")
    command.wait_for(rf"Worker process \[{first}\] has \d+ MiB: replacing it")
    command.wait_for(rf"Finished server process \[{first}\]")
    assert get(url) != first
    assert command.stop() == 0


def test_a_worker_that_gives_no_sign_of_life_is_replaced(supervise):
    command, url = supervise("--timeout-worker-healthcheck", "1")
    stuck, other = pids(url, 2)
    os.kill(stuck, signal.SIGSTOP)
    command.wait_for(rf"Worker process \[{stuck}\] gives no sign of life: killing it")
    command.wait_for("startup complete")
    now = pids(url, 2)
    assert other in now
    assert stuck not in now
    assert command.stop() == 0


@pytest.mark.parametrize("path", ["busy", "greedy"])
def test_a_worker_that_computes_is_left_alone(supervise, path):
    """In Python, and in C without a chance for another thread."""
    command, url = supervise("--timeout-worker-healthcheck", "1")
    before = pids(url, 2)
    assert int(get(f"{url}/{path}")) in before
    assert pids(url, 2) == before
    assert command.stop() == 0
    assert "no sign of life" not in command.stderr


def test_a_worker_that_waits_for_ever_without_the_gil_s_release_is_replaced(supervise):
    command, url = supervise("--timeout-worker-healthcheck", "1")
    before = pids(url, 2)
    with pytest.raises(httpx.HTTPError):
        get(f"{url}/deadlock")
    stuck = int(command.wait_for(r"Worker process \[(\d+)\] gives no sign of life: killing it")[1])
    assert stuck in before
    command.wait_for("startup complete")
    assert stuck not in pids(url, 2)
    assert command.stop() == 0


def test_others_serve_for_a_worker_until_its_successor_is_ready(supervise, tmp_path):
    command, url = supervise()
    first, second = pids(url, 2)
    (tmp_path / "hold").touch()
    os.kill(first, signal.SIGKILL)
    command.wait_for(rf"Worker process \[{first}\] was killed by SIGKILL")
    # The kernel goes on to spread connections over both sockets.
    assert {int(get(url)) for _ in range(40)} == {second}
    (tmp_path / "hold").unlink()
    command.wait_for("startup complete")
    assert second in pids(url, 2)
    assert command.stop() == 0


def test_a_worker_that_ends_by_itself_is_replaced_before_it_has_drained(supervise, tmp_path):
    command, url = supervise()
    pids(url, 2)
    answers = []
    thread = threading.Thread(target=lambda: answers.append(get(f"{url}/slow")))
    thread.start()
    leaving = int(command.wait_for(r"slow (\d+)")[1])
    os.kill(leaving, signal.SIGTERM)
    command.wait_for("startup complete")
    assert leaving not in pids(url, 2)
    (tmp_path / "go").touch()
    thread.join(DEADLINE)
    assert answers == [str(leaving)]
    assert command.stop() == 0


def test_nobody_waits_for_a_server_that_stops(supervise, tmp_path):
    command, url = supervise("--max-rss", "100G", workers=1)
    thread = threading.Thread(target=lambda: get(f"{url}/slow"))
    thread.start()
    command.wait_for("slow")
    command.send(signal.SIGTERM)
    command.wait_for("Waiting for connections to close")
    with pytest.raises(httpx.ConnectError):
        get(url)
    (tmp_path / "go").touch()
    thread.join(DEADLINE)
    assert command.wait() == 0


def test_an_application_that_cannot_start_stops_the_supervisor(bolide, write, tmp_path):
    write("worked.py", APP)
    (tmp_path / "broken").touch()
    command = bolide("worked:app", "--port", "0", "--workers", "2")
    assert command.wait() == 1
    assert re.search(r"Worker process \[\d+\] failed to start\. Stopping parent process\.", command.stderr)


def test_a_failed_startup_is_the_exit_code(bolide, write):
    write(
        "failing.py",
        """
        async def app(scope, receive, send):
            await receive()
            await send({"type": "lifespan.startup.failed", "message": "no database"})
        """,
    )
    command = bolide("failing:app", "--port", "0", "--workers", "2")
    assert command.wait() == 3
    assert "no database" in command.stderr


def test_a_worker_that_dies_at_its_start_does_not_spin(supervise, tmp_path):
    command, url = supervise()
    first, second = pids(url, 2)
    (tmp_path / "broken").touch()
    os.kill(first, signal.SIGKILL)
    ended = re.compile(r"Worker process \[\d+\] ended with exit code 1 before it was ready")
    start = time.monotonic()
    for _ in range(3):
        command.wait_for(ended.pattern)
    # The pauses before the second and the third start are 0.5 and 1 second.
    assert time.monotonic() - start >= 1.5
    (tmp_path / "broken").unlink()
    command.wait_for("startup complete")
    assert second in pids(url, 2)
    assert command.stop() == 0


def test_a_module_that_does_not_exist_is_one_line_and_exit_code_1(bolide):
    command = bolide("nowhere:app", "--workers", "2")
    assert command.wait() == 1
    assert command.stderr == 'ERROR:    Error loading ASGI app. Could not import module "nowhere".\n'


def test_a_port_in_use_is_one_line_and_exit_code_1(supervise, bolide):
    _, url = supervise()
    port = url.rpartition(":")[2]
    second = bolide("worked:app", "--workers", "2", "--port", port, "--log-level", "warning")
    assert second.wait() == 1
    assert second.stderr == f"ERROR:    Cannot listen on 127.0.0.1:{port}: address already in use\n"


def test_workers_end_when_their_supervisor_is_killed(supervise):
    command, url = supervise()
    workers = pids(url, 2)
    command.process.kill()
    for pid in workers:
        wait_gone(pid)
    host, _, port = url.removeprefix("http://").partition(":")
    with socket.socket() as sock:
        sock.bind((host, int(port)))
        sock.listen()


def test_sigusr1_reopens_the_log_files(supervise, write, tmp_path):
    write(
        "log.toml",
        """
        version = 1
        disable_existing_loggers = false
        handlers.file = { class = "logging.FileHandler", filename = "server.log" }
        handlers.console = { class = "logging.StreamHandler", stream = "ext://sys.stderr" }
        loggers.bolide = { handlers = ["file", "console"], level = "INFO" }
        """,
    )
    command, url = supervise("--log-config", "log.toml")
    workers = pids(url, 2)
    (tmp_path / "server.log").rename(tmp_path / "server.log.1")
    command.send(signal.SIGUSR1)
    deadline = time.monotonic() + DEADLINE
    while not (tmp_path / "server.log").exists():
        assert time.monotonic() < deadline
        time.sleep(0.005)
    assert command.stop() == 0
    text = (tmp_path / "server.log").read_text()
    assert all(f"Finished server process [{pid}]" in text for pid in workers)


def test_an_object_cannot_be_given_to_workers():
    import bolide

    async def app(scope, receive, send):
        pass

    with pytest.raises(SystemExit) as caught:
        bolide.serve(app, workers=2, log_config=None)
    assert caught.value.code == 1
