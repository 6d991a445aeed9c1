"""A command that runs beside a test, whatever it is."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

DEADLINE = 20.0


class Process:
    """A command that serves, its output and errors in one."""

    def __init__(self, command, cwd, **options):
        self.process = subprocess.Popen(
            command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options
        )
        self.text = ""
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self):
        for line in self.process.stdout:
            with self._changed:
                self.text += line
                self._changed.notify_all()

    def wait_for(self, pattern, count=1):
        """Wait for `count` matches and return the last one."""
        with self._changed:
            found = self._changed.wait_for(lambda: len(re.findall(pattern, self.text)) >= count, DEADLINE)
            assert found, f"no {count} matches of {pattern!r} in:\n{self.text}"
            return list(re.finditer(pattern, self.text))[count - 1]

    def stop(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        code = self.process.wait(DEADLINE)
        self._thread.join(DEADLINE)
        return code

    def kill(self):
        if self.process.poll() is None:
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(5)
            self.process.kill()
        self.process.wait()
        self._thread.join(DEADLINE)
        self.process.stdout.close()


@contextlib.contextmanager
def launching(folder: Path) -> Iterator[Callable[..., Process]]:
    """Gives start(module, *arguments): run a module of Python in that folder; what still runs at the end is ended."""
    hidden = ("WEB_CONCURRENCY", "GUNICORN_CMD_ARGS")
    started: list[Process] = []

    def start(*command: str, **options: Any) -> Process:
        env = {name: value for name, value in os.environ.items() if name not in hidden}
        started.append(Process([sys.executable, "-m", *command], folder, env=env, **options))
        return started[-1]

    yield start
    for process in started:
        process.kill()
