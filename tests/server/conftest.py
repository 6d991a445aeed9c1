"""Starts servers as users do: by the command, in a process of their own."""

import os
import queue
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import httpx
import pytest

DEADLINE = 20.0

APP = """
    async def app(scope, receive, send):
        assert scope["type"] == "http"
        body = repr({key: scope[key] for key in ("path", "root_path", "scheme", "client")}).encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
        await send({"type": "http.response.body", "body": body})
"""


class Command:
    """The command `bolide` with some arguments, running."""

    def __init__(self, arguments: Sequence[str], cwd: Path, env: Mapping[str, str], **options: object) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "bolide", *arguments],
            cwd=cwd,
            env=clean_environment() | env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **options,
        )
        self.lines: list[str] = []
        self.outputs = {"stdout": "", "stderr": ""}
        self._queue: queue.Queue[str | None] = queue.Queue()
        self._threads = [threading.Thread(target=self._collect, args=(name,)) for name in self.outputs]
        for thread in self._threads:
            thread.start()

    def _collect(self, name: str) -> None:
        for line in getattr(self.process, name):
            self.outputs[name] += line
            self._queue.put(line.rstrip("\n"))
        self._queue.put(None)

    def wait_for(self, pattern: str) -> re.Match[str]:
        """Wait until a line of the output matches; fails when the process ends without one."""
        ended = 0
        deadline = time.monotonic() + DEADLINE
        while True:
            try:
                line = self._queue.get(timeout=deadline - time.monotonic())
            except (queue.Empty, ValueError):
                raise AssertionError(f"no line matches {pattern!r} in:\n" + "\n".join(self.lines)) from None
            if line is None:
                ended += 1
                assert ended < 2, f"ended, and no line matches {pattern!r} in:\n" + "\n".join(self.lines)
                continue
            self.lines.append(line)
            match = re.search(pattern, line)
            if match:
                return match

    def wait_ready(self) -> str:
        """The address that the server says it runs on."""
        return self.wait_for(r"Bolide running on (\S.*) \(Press CTRL\+C to quit\)")[1]

    def send(self, number: int) -> None:
        self.process.send_signal(number)

    def wait(self) -> int:
        """The exit code, once the process has ended and its output is read."""
        code = self.process.wait(DEADLINE)
        for thread in self._threads:
            thread.join(DEADLINE)
        return code

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.send(number)
        return self.wait()

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.wait()
        self.process.stdout.close()
        self.process.stderr.close()

    @property
    def stderr(self) -> str:
        return self.outputs["stderr"]

    @property
    def stdout(self) -> str:
        return self.outputs["stdout"]


def clean_environment() -> dict[str, str]:
    """The environment without what would configure a server."""
    names = ("WEB_CONCURRENCY", "FORWARDED_ALLOW_IPS")
    return {name: value for name, value in os.environ.items() if name not in names and not name.startswith("BOLIDE_")}


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """write(name, text): make a file in the folder that commands run in."""

    def write_file(name: str, text: str = APP) -> Path:
        # In one step, so that nobody who watches sees it twice, nor half of it.
        path = tmp_path / name
        unfinished = path.with_name(f".{path.name}.part")
        unfinished.write_text(textwrap.dedent(text))
        return unfinished.replace(path)

    return write_file


@pytest.fixture
def bolide(tmp_path: Path, write: Callable[..., Path]) -> Iterator[Callable[..., Command]]:
    """bolide(*arguments, env={}): start the command in a folder that holds main.py with a plain application, `app`."""
    write("main.py")
    started: list[Command] = []

    def start(*arguments: str, env: Mapping[str, str] | None = None, **options: object) -> Command:
        started.append(Command(arguments, tmp_path, env or {}, **options))
        return started[-1]

    yield start
    for command in started:
        command.kill()


@pytest.fixture
def serve(bolide: Callable[..., Command]) -> Callable[..., tuple[Command, str]]:
    """serve(*arguments): start the command on a free port and wait until it accepts; (command, address)."""

    def start(*arguments: str, **options: object) -> tuple[Command, str]:
        command = bolide(*arguments, "--port", "0", **options)
        return command, command.wait_ready()

    return start


@pytest.fixture
def client() -> Iterator[httpx.Client]:
    with httpx.Client(trust_env=False, verify=False, timeout=DEADLINE) as made:
        yield made
