"""Start-up and memory of bolide and uvicorn side by side: `python -m benchmarks.startup`.

Each round starts every server once, one after another, on one core, and asks it for one answer from another. The time
runs from the start of the process to the last byte of the answer; the memory is what is resident once it has answered
and is idle. A figure is the median of the rounds.
"""

import argparse
import json
import os
import socket
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from . import environment
from .environment import HERE, OUT, ROOT, BenchmarkError, Environment, say
from .process import PAGE, Process, ProcessError, free_port, process_tree

APPS = {"raw": "raw:hello", "fastapi": "framework:app"}
WORKERS = 2
DEADLINE = 20.0

SERVERS: dict[str, Callable[[Environment], list[str]]] = {
    "bolide": lambda env: [str(env.python), "-m", "bolide"],
    "uvicorn": lambda env: [str(env.python), "-m", "uvicorn"],
    "uvicorn-plain": lambda env: [str(env.python), "-m", "uvicorn", "--loop", "asyncio", "--http", "h11"],
}


@dataclass
class Figures:
    """What the rounds of one server gave.

    Attributes:
        seconds: from the start of the process to the first answer.
        cpu: processor time of all its processes until then, seconds.
        process: resident bytes of a process that serves, idle.
        supervisor: those of the process that watches the others, if there is one.
    """

    seconds: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    process: list[int] = field(default_factory=list)
    supervisor: list[int] = field(default_factory=list)


def ask(port: int) -> bool:
    """One request; whether it was answered."""
    try:
        with socket.create_connection(("127.0.0.1", port), DEADLINE) as sock:
            sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            answer = b""
            while data := sock.recv(65536):
                answer += data
    except ConnectionError:
        return False
    return answer.startswith(b"HTTP/1.1 200 ")


def resident(pid: int) -> int:
    return int(Path("/proc", str(pid), "statm").read_text().split()[1]) * PAGE


def is_server(pid: int) -> bool:
    """Not one of the helpers of the standard library's multiprocessing."""
    return b"resource_tracker" not in Path("/proc", str(pid), "cmdline").read_bytes()


def measure(command: list[str], workers: int, core: int, figures: Figures) -> None:
    """Start a server, have one answer, look at it, stop it."""
    port = free_port()
    command = [*command, "--port", str(port), "--log-level", "warning"]
    if workers > 1:
        command += ["--workers", str(workers)]
    env = {"PYTHONPATH": str(ROOT / "python"), "PYTHONDONTWRITEBYTECODE": ""}
    began = time.perf_counter()
    process = Process(command, core, OUT / "startup.log", env, cwd=HERE / "apps")
    try:
        while not ask(port):
            process.check()
            if time.perf_counter() - began > DEADLINE:
                raise ProcessError(f"no answer after {DEADLINE} s")
            time.sleep(0.0005)
        seconds = time.perf_counter() - began
        cpu = process.cpu_seconds()
        settle(process)
        pids = [pid for pid in process_tree(process.pid) if is_server(pid)]
        if workers > 1:
            if len(pids) != 1 + workers:
                raise ProcessError(f"{len(pids)} processes instead of {1 + workers}")
            figures.supervisor.append(resident(process.pid))
            pids.remove(process.pid)
        figures.process += map(resident, pids)
    finally:
        process.stop()
    figures.seconds.append(seconds)
    figures.cpu.append(cpu)


def settle(process: Process) -> None:
    """Wait until its processes have nothing to do: all workers have started."""
    before = -1.0
    while (now := process.cpu_seconds()) > before + 0.005:
        before = now
        time.sleep(0.25)


def table(results: dict[str, dict[str, Figures]]) -> str:
    lines = [
        "| | server | to the first answer, ms | CPU until then, ms | idle process, MiB | supervisor, MiB |",
        "|---|---|---|---|---|---|",
    ]
    for case, servers in results.items():
        for name, figures in servers.items():
            if not figures.seconds:
                continue
            memory = [
                statistics.median(values) / 2**20 if values else None
                for values in (figures.process, figures.supervisor)
            ]
            shown = ["-" if value is None else f"{value:.1f}" for value in memory]
            times = [f"{statistics.median(values) * 1000:.0f}" for values in (figures.seconds, figures.cpu)]
            lines.append(f"| {case} | {name} | {' | '.join(times + shown)} |")
    return "\n".join(lines)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.startup", description=__doc__.split("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--servers", default=",".join(SERVERS), help="some of: " + ",".join(SERVERS))
    parser.add_argument("--apps", default=",".join(APPS), help="some of: " + ",".join(APPS))
    parser.add_argument("--python", default=sys.executable, help="the interpreter to measure with")
    return parser.parse_args()


def main() -> int:
    """The command."""
    options = parse_arguments()
    env = environment.find(options.python)
    environment.prepare(env, [])
    if env.bolide_error:
        raise BenchmarkError(env.bolide_error)
    core, own = environment.cores()
    os.sched_setaffinity(0, {own})
    names = options.servers.split(",")
    results: dict[str, dict[str, Figures]] = {}
    for app in options.apps.split(","):
        for workers in (1, WORKERS):
            case = app if workers == 1 else f"{app}, {workers} workers"
            results[case] = {name: Figures() for name in names}
            say(case)
            for number in range(options.rounds + 1):
                for name in names:
                    # The first round fills the caches of files and bytecode.
                    figures = results[case][name] if number else Figures()
                    measure([*SERVERS[name](env), APPS[app]], workers, core, figures)
    print(table(results))
    OUT.mkdir(exist_ok=True)
    record = {case: {name: vars(figures) for name, figures in servers.items()} for case, servers in results.items()}
    (OUT / "startup.json").write_text(json.dumps(record, indent=1))
    slower = [
        f"{case}: {what}"
        for case, servers in results.items()
        for what in ("seconds", "process")
        if "bolide" in servers and "uvicorn" in servers
        if statistics.median(getattr(servers["bolide"], what)) > statistics.median(getattr(servers["uvicorn"], what))
    ]
    if slower:
        print("more than uvicorn: " + "; ".join(slower))
    return 1 if slower else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (BenchmarkError, ProcessError) as error:
        sys.exit(f"error: {error}")
