"""The load: wrk for HTTP, pingpong (benchmarks/load) for the rest. Both run on a core of their own."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .environment import HERE, BenchmarkError
from .process import Process, ProcessError


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


def _on_core(core: int) -> Callable[[], None]:
    return lambda: os.sched_setaffinity(0, {core})


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
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, preexec_fn=_on_core(core)
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


def measure_pingpong(
    pingpong: Path,
    server: Process,
    core: int,
    kind: str,
    host: str,
    port: int,
    connections: int,
    size: int,
    seconds: float,
) -> Sample:
    """Exchange messages of `size` bytes for `seconds`. The CPU time is counted from when all are connected."""
    command = [str(pingpong), kind, host, str(port), str(connections), str(size), str(seconds)]
    client = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=_on_core(core),
    )
    if client.stdout.readline() != "ready\n":
        _, errors = client.communicate(timeout=10)
        lines = errors.strip().splitlines()
        raise ProcessError(lines[-1] if lines else "the load generator did not start")
    before = server.cpu_seconds()
    try:
        output, errors = client.communicate("go\n", timeout=seconds + 10)
    except subprocess.TimeoutExpired:
        client.kill()
        client.communicate()
        raise ProcessError("hangs") from None
    after = server.cpu_seconds()
    if not output:
        raise ProcessError(errors.strip() or "the load generator failed")
    result = json.loads(output)
    if result["failed"] >= connections:
        raise ProcessError(errors.strip().splitlines()[-1] if errors.strip() else "all connections ended early")
    return _sample(server, after - before, result)
