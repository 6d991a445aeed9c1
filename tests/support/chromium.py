"""Chromium without a window, driven over its DevTools protocol: just what the tests of pages need."""

import itertools
import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

from .http_client import TIMEOUT
from .server import Output

COMMANDS = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"]
LISTENING = r"DevTools listening on (ws://\S+)"


def find_chromium() -> str | None:
    """The command, or None."""
    return next(filter(None, map(shutil.which, [os.environ.get("CHROMIUM", ""), *COMMANDS])), None)


class Chromium:
    """A browser with a profile of its own: `with Chromium() as browser: page = browser.open(url)`."""

    def __init__(self) -> None:
        self._profile = tempfile.mkdtemp(prefix="chromium-")
        command = [find_chromium(), "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        command += ["--no-first-run", "--remote-debugging-port=0", f"--user-data-dir={self._profile}", "about:blank"]
        # The runtime of a sanitizer is for the server, not for the browser.
        environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
        self._process = subprocess.Popen(command, **pipes, text=True, env=environment)
        self._output = Output(self._process.stderr)
        self._numbers = itertools.count(1)

    def __enter__(self) -> Self:
        from websockets.sync.client import connect

        try:
            address = self._output.wait_for(LISTENING, 40)[1]
            self._stack = ExitStack()
            self._connection = self._stack.enter_context(connect(address, max_size=None, compression=None))
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()
        self._end()

    def _end(self) -> None:
        self._process.kill()
        self._process.wait()
        self._output.join()
        shutil.rmtree(Path(self._profile), ignore_errors=True)

    def call(self, method: str, session: str | None = None, **parameters: object) -> dict[str, Any]:
        """Call a method of the protocol and return its result."""
        number = next(self._numbers)
        message: dict[str, object] = {"id": number, "method": method, "params": parameters}
        if session is not None:
            message["sessionId"] = session
        self._connection.send(json.dumps(message))
        while True:
            answer = json.loads(self._connection.recv(TIMEOUT))
            if answer.get("id") == number:
                assert "error" not in answer, answer
                return answer["result"]

    def open(self, url: str) -> "Page":
        """Open a page in a new tab."""
        target = self.call("Target.createTarget", url=url)["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = Page(self, session)
        page.wait_for("document.readyState === 'complete' && location.href !== 'about:blank'")
        return page


class Page:
    """A tab."""

    def __init__(self, browser: Chromium, session: str) -> None:
        self._browser, self._session = browser, session

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression, which may be a promise."""
        result = self._browser.call(
            "Runtime.evaluate", self._session, expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def wait_for(self, expression: str, timeout: float = TIMEOUT) -> Any:
        """Wait until an expression is true, and return its value."""
        end = time.monotonic() + timeout
        while not (value := self.evaluate(expression)):
            assert time.monotonic() < end, f"not so within {timeout} s: {expression}; the page: {self.text()}"
            time.sleep(0.02)
        return value

    def text(self) -> str:
        """What is to be read on it."""
        return re.sub(r"\s+", " ", self.evaluate("document.body?.innerText") or "")

    def fill_in(self, identifier: str, value: str) -> None:
        """Type into a field."""
        self.evaluate(f"document.getElementById({json.dumps(identifier)}).value = {json.dumps(value)}")

    def submit(self, identifier: str) -> None:
        """Submit a form as its button does."""
        self.evaluate(f"document.querySelector('#{identifier} button').click()")
