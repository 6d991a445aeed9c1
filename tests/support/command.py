"""The command `bolide` in a folder of a test's own, and the files that it serves from there."""

import contextlib
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


def write_file(path: Path, text: str = APP) -> Path:
    """Make a file in one step, so that nobody who watches sees it twice, nor half of it."""
    unfinished = path.with_name(f".{path.name}.part")
    unfinished.write_text(textwrap.dedent(text))
    return unfinished.replace(path)


@contextlib.contextmanager
def running(folder: Path) -> Iterator[Callable[..., Command]]:
    """Gives start(*arguments, env={}): start the command in that folder; what still runs at the end is killed."""
    started: list[Command] = []

    def start(*arguments: str, env: Mapping[str, str] | None = None, **options: object) -> Command:
        started.append(Command(arguments, folder, env or {}, **options))
        return started[-1]

    try:
        yield start
    finally:
        for command in started:
            command.kill()
