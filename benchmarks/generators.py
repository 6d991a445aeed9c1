"""The load: wrk for HTTP, pingpong (benchmarks/load) for the rest. Both run on a core of their own."""

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from .environment import HERE, BenchmarkError
from .process import Process, ProcessError, own_session


@dataclass(frozen=True)
class Sample:
    """What one measurement saw."""

    # CPU time of the server's process tree an operation, in microseconds.
    cpu_us: float
    # Operations a second, as the load generator counts them.
    rate: float
    # Latency in milliseconds.
    p50_ms: float
    p99_ms: float
    # Requests that failed, or connections that ended early.
    failed: int


def find_wrk() -> str:
    path = shutil.which("wrk")
    if path is None:
        raise BenchmarkError("wrk is missing; install it: apt-get install wrk")
    return path


def _sample(server: Process, cpu_seconds: float, result: dict) -> Sample:
    server.check()
    count = result["messages"]
    if count == 0:
        raise ProcessError(f"answered nothing ({result['failed']} failures)")
    return Sample(
        cpu_us=cpu_seconds * 1e6 / count,
        rate=count / result["seconds"],
        p50_ms=result["p50_us"] / 1000,
        p99_ms=result["p99_us"] / 1000,
        failed=result["failed"],
    )


def measure_http(
    server: Process,
    core: int,
    url: str,
    seconds: float,
    connections: int,
    method: str = "GET",
    body: int = 0,
    pipeline: int = 1,
    style: str = "plain",
) -> Sample:
    """Load `url` with wrk for about `seconds`; http.lua tells the styles of requests.

    Raises ProcessError if the server ends, hangs or answers nothing.
    """
    # wrk takes whole seconds; its timer thread is ended from here for shorter runs, on SIGINT, which it handles well.
    command = [find_wrk(), "-t1", f"-c{connections}", "-d", "60s", "--timeout", "5s"]
    command += ["-s", str(HERE / "http.lua"), url, "--", method, str(body), str(pipeline), style]
    before = server.cpu_seconds()
    wrk = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        preexec_fn=own_session(core),
    )
    try:
        wrk.wait(seconds)
    except subprocess.TimeoutExpired:
        wrk.send_signal(2)
    try:
        output, _ = wrk.communicate(timeout=10)
    except subprocess.TimeoutExpired:
        wrk.kill()
        wrk.communicate()
        raise ProcessError("hangs") from None
    after = server.cpu_seconds()
    _, found, text = output.partition("RESULT ")
    if not found:
        server.check()
        lines = output.strip().splitlines()
        raise ProcessError(f"wrk: {lines[-1] if lines else 'no output'}")
    return _sample(server, after - before, json.loads(text))


class PingPong:
    """Connections to a server that exchange messages of `size` bytes, a while at a time.

    The while is `seconds` long, and some replies longer: those on their way at its end are waited for.
    Raises ProcessError, here as in measure(), if the server does not answer as it should.
    """

    def __init__(
        self,
        program: Path,
        server: Process,
        core: int,
        kind: str,
        host: str,
        port: int,
        connections: int,
        size: int,
        seconds: float,
    ):
        self.server = server
        self.connections = connections
        self.seconds = seconds
        command = [str(program), kind, host, str(port), str(connections), str(size), str(seconds)]
        self.client = Process(command, core, server.log.with_suffix(".load.log"), asked=True)
        self.client.answer(60)  # that all are connected

    def measure(self) -> Sample:
        """The next while."""
        before = self.server.cpu_seconds()
        result = json.loads(self.client.ask("go", self.seconds + 30))
        after = self.server.cpu_seconds()
        if result["failed"] >= self.connections:
            raise ProcessError(self.client.last_line() or "all connections ended early")
        return _sample(self.server, after - before, result)

    def close(self) -> None:
        self.client.stop()
