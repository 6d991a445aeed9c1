"""A server under test, started by its command as a user starts it.

BOLIDE_TEST_SERVER names the server: "bolide" (the default) or "uvicorn", which shows that a test states what users of
uvicorn expect. Where uvicorn is known to differ, the test says so with `uvicorn_differs`. BOLIDE_TEST_OPTIONS are for
each start: BOLIDE_TEST_SERVER=uvicorn BOLIDE_TEST_OPTIONS="--loop bolide:new_event_loop" tries the loop alone.
"""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

import pytest

from .http_client import TIMEOUT, Connection

OPTIONS = os.environ.get("BOLIDE_TEST_OPTIONS", "").split()
KIND = os.environ.get("BOLIDE_TEST_SERVER", "bolide")
SANITIZED = "asan" in os.environ.get("LD_PRELOAD", "")
REPOSITORY = Path(__file__).resolve().parents[2]
APPS = REPOSITORY / "tests" / "asgi"
RUNNING = re.compile(r"(?:Bolide|Uvicorn) running on (?P<where>.+?) \(Press CTRL\+C to quit\)")


def uvicorn_differs(reason: str, *, always: bool = True) -> pytest.MarkDecorator:
    """Expect this test to fail, always or at times, when the server under test is uvicorn, for a reason."""
    return pytest.mark.xfail(KIND == "uvicorn", reason=f"uvicorn: {reason}", strict=always)


class Output:
    """What a process writes to one of its streams, line by line, with a way to wait for a line."""

    def __init__(self, stream) -> None:
        self._lines: list[str] = []
        self._changed = threading.Condition()
        self._ended = False
        self._thread = threading.Thread(target=self._read, args=(stream,), daemon=True)
        self._thread.start()

    @property
    def text(self) -> str:
        """Everything so far."""
        with self._changed:
            return "".join(self._lines)

    def wait_for(self, pattern: str | re.Pattern[str], timeout: float = TIMEOUT) -> re.Match[str]:
        """Wait until the output so far matches a regular expression somewhere; fails when it ended without."""
        end = time.monotonic() + timeout
        with self._changed:
            while (found := re.search(pattern, "".join(self._lines))) is None:
                left = end - time.monotonic()
                if self._ended or left <= 0:
                    why = "the output ended" if self._ended else f"not within {timeout} s"
                    raise AssertionError(f"no match of {pattern!r}: {why}; it is:\n{''.join(self._lines)}")
                self._changed.wait(left)
            return found

    def join(self) -> str:
        """Wait for the end of the stream and return all of it."""
        self._thread.join(TIMEOUT)
        return self.text

    def _read(self, stream) -> None:
        with stream:
            for line in stream:
                with self._changed:
                    self._lines.append(line)
                    self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()


class ServerProcess:
    """The command, running: `with ServerProcess("apps:app", "--root-path", "/x") as server: server.connect()`.

    app: the import string, or None to give every argument in options.
    options: command-line arguments. Unless they name an address, it listens on a free port of 127.0.0.1.
    app_dir: where the module is; tests/asgi by default, None to leave the option out.
    env: variables added to the environment. pass_fds: descriptors that the process inherits.
    command: what to start instead of `python -m KIND`.
    """

    def __init__(
        self,
        app: str | None,
        *options: str,
        app_dir: Path | str | None = APPS,
        env: dict[str, str] | None = None,
        pass_fds: Sequence[int] = (),
        command: Sequence[str] | None = None,
        cwd: Path | str | None = None,
    ) -> None:
        arguments = [*(command or [sys.executable, "-m", KIND]), *options]
        if app is not None:
            if not {"--port", "--uds", "--fd"} & set(options):
                arguments += ["--port", "0"]
            if app_dir is not None:
                arguments += ["--app-dir", str(app_dir)]
            arguments += [*OPTIONS, app]
        environment = {**os.environ, "PYTHONUNBUFFERED": "1", "NO_COLOR": "1", **(env or {})}
        self.process = subprocess.Popen(
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            pass_fds=pass_fds,
            cwd=cwd,
        )
        self.stdout = Output(self.process.stdout)
        self.log = Output(self.process.stderr)
        self._address: tuple[str, int] | str | None = None

    def __enter__(self) -> Self:
        try:
            self.wait_ready()
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(self, exc_type: object, *exc: object) -> None:
        self.kill()

    @property
    def pid(self) -> int:
        """The process id."""
        return self.process.pid

    @property
    def address(self) -> tuple[str, int] | str:
        """Where to connect: (host, port), or the path of a Unix socket."""
        if self._address is None:
            self.wait_ready()
        assert self._address is not None
        return self._address

    @property
    def url(self) -> str:
        """The base URL, without a slash at the end."""
        host, port = self.address
        return f"http://{host}:{port}"

    def wait_ready(self) -> None:
        """Wait for the line that tells the address."""
        where = self.log.wait_for(RUNNING)["where"]
        if found := re.fullmatch(r"https?://\[?(.+?)\]?:([0-9]+)|socket \('(.+)', ([0-9]+)\)", where):
            self._address = found[1] or found[3], int(found[2] or found[4])
        else:
            self._address = re.fullmatch(r"(?:unix )?socket (.+)", where)[1]

    def wait_accepting(self, path: str) -> None:
        """Wait until it accepts connections on a Unix socket: for a log level that leaves the address line out."""
        end = time.monotonic() + TIMEOUT
        while True:
            try:
                Connection(path).close()
            except OSError:
                assert self.process.poll() is None, f"the server ended:\n{self.log.join()}"
                assert time.monotonic() < end, f"nobody accepts on {path}"
                time.sleep(0.005)
            else:
                self._address = path
                return

    def connect(self, **options) -> Connection:
        """Open a connection to it."""
        return Connection(self.address, **options)

    def get(self, target: str):
        """GET on a connection of its own."""
        with self.connect() as connection:
            return connection.get(target)

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    def wait(self, timeout: float = TIMEOUT) -> int:
        """Wait for its end and return the exit status (negative: the signal that killed it)."""
        status = self.process.wait(timeout)
        self.log.join()
        self.stdout.join()
        return status

    def stop(self, number: signal.Signals = signal.SIGINT) -> int:
        """Ask it to stop, wait, and return the exit status."""
        self.send_signal(number)
        return self.wait()

    def kill(self) -> None:
        """End it now, if it still runs."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.log.join()
        self.stdout.join()

    def memory(self, field: str = "VmRSS") -> int:
        """Return a line of /proc/PID/status in bytes: VmRSS is the memory in use, VmHWM its peak."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith(field + ":"):
                return int(line.split()[1]) * 1024
        raise KeyError(field)

    def reset_peak_memory(self) -> None:
        """Let VmHWM start anew from the present VmRSS."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")


class SharedServers:
    """Servers that many tests use, one for each set of ServerProcess's arguments. One that has died is used no more."""

    def __init__(self) -> None:
        self._running: dict[str, ServerProcess] = {}

    @contextlib.contextmanager
    def lend(self, *arguments: str, **options: Any) -> Iterator[ServerProcess]:
        """A server for one test, which fails with the log if it finds the server dead or leaves it so."""
        key = repr((arguments, options))
        if key not in self._running:
            self._running[key] = ServerProcess(*arguments, **options).__enter__()
        self._check(key, "before this test")
        yield self._running[key]
        self._check(key, "in this test")

    def _check(self, key: str, when: str) -> None:
        if (status := self._running[key].process.poll()) is not None:
            log = self._running.pop(key).log.join()
            pytest.fail(f"the shared server ended {when}, with the status {status}:\n{log}", pytrace=False)

    def close(self) -> None:
        """End them all."""
        for server in self._running.values():
            server.kill()


def exit_status_of(number: signal.Signals) -> set[int]:
    """The exit statuses that a graceful stop by this signal may have: uvicorn dies of SIGTERM after its shutdown."""
    return {0, -number} if KIND == "uvicorn" else {0}


class Control:
    """The events and values that the apps in tests/asgi/apps share with a test, over the server itself."""

    def __init__(self, server: ServerProcess) -> None:
        self._server = server

    def set(self, name: str) -> None:
        """Set an event that an app waits for."""
        self._call("set", name)

    def wait(self, name: str) -> object:
        """Wait until an app sets an event, and return the value it left with it."""
        return self._call("wait", name)

    def get(self, name: str) -> object:
        """Return the value that an app keeps under a name now; None when there is none."""
        return self._call("get", name)

    def _call(self, action: str, name: str) -> object:
        response = self._server.get(f"/control/{action}/{quote(name)}")
        assert response.status == 200, response
        return json.loads(response.body)


def control(server: ServerProcess) -> Control:
    """Return the control of the apps that this server serves."""
    return Control(server)
