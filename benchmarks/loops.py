"""bolide's event loop and others side by side: `python -m benchmarks.loops`.

Each loop has a process of its own, a new one a round; within a round they take turns in short slices. Rows of the first
kind do their work inside one process; the echo rows are servers on one core under a load in C from another. The figure
is CPU time an operation, and in the last rows memory a connection.
"""

import argparse
import contextlib
import os
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from . import environment, generators, idle, report
from .environment import HERE, OUT, ROOT, BenchmarkError, Environment, say
from .process import Process, ProcessError, free_port

CONNECTIONS = 16
IDLE_CONNECTIONS = 5000


@dataclass(frozen=True)
class Case:
    """Work inside one process: a case of loop_cases.py, by the row's name."""

    title: str


@dataclass(frozen=True)
class Echo:
    """An echo server: echo_worker.py."""

    title: str
    style: str
    transport: str
    size: int  # bytes of a message


@dataclass(frozen=True)
class Idle:
    """What a connection to such a server holds that is open and does nothing: KiB, not CPU time."""

    title: str
    style: str


ROWS: dict[str, Case | Echo | Idle] = {
    "call_soon": Case("call_soon chain"),
    "call_soon_burst": Case("100k call_soon, one turn"),
    "timer_cancel": Case("call_later + cancel"),
    "timer_fire": Case("call_later that fire"),
    "timers_pending": Case("100k pending timers, then cancel"),
    "sleep0": Case("sleep(0)"),
    "gather": Case("gather of 10 tasks, each"),
    "task_switch": Case("task switch"),
    "wait_for": Case("wait_for"),
    "future": Case("future round trip"),
    "threadsafe": Case("call_soon_threadsafe"),
    "executor": Case("run_in_executor"),
    "streams": Case("streams ping-pong, one way"),
    "subprocess": Case("subprocess /bin/true"),
    "tcp1k": Echo("TCP echo 1 KiB, Protocol", "protocol", "tcp", 1024),
    "tcp1k_buffered": Echo("TCP echo 1 KiB, BufferedProtocol", "buffered", "tcp", 1024),
    "tcp1k_streams": Echo("TCP echo 1 KiB, streams", "streams", "tcp", 1024),
    "tcp1k_sock": Echo("TCP echo 1 KiB, sock_*", "sock", "tcp", 1024),
    "tcp64k": Echo("TCP echo 64 KiB, Protocol", "protocol", "tcp", 65536),
    "tcp64k_buffered": Echo("TCP echo 64 KiB, BufferedProtocol", "buffered", "tcp", 65536),
    "tcp64k_streams": Echo("TCP echo 64 KiB, streams", "streams", "tcp", 65536),
    "tcp64k_sock": Echo("TCP echo 64 KiB, sock_*", "sock", "tcp", 65536),
    "unix1k": Echo("Unix echo 1 KiB", "protocol", "unix", 1024),
    "udp1k": Echo("UDP echo 1 KiB", "protocol", "udp", 1024),
    "tls1k": Echo("TLS echo 1 KiB", "protocol", "tls", 1024),
    "tls64k": Echo("TLS echo 64 KiB", "protocol", "tls", 65536),
    "idle": Idle("KiB an idle TCP connection, Protocol", "protocol"),
    "idle_streams": Idle("KiB an idle TCP connection, streams", "streams"),
}
# Rows by kind, for --rows.
GROUPS = {
    "all": list(ROWS),
    "cases": [name for name, row in ROWS.items() if isinstance(row, Case)],
    "echo": [name for name, row in ROWS.items() if isinstance(row, Echo)],
    "memory": [name for name, row in ROWS.items() if isinstance(row, Idle)],
}
LOOPS = ["asyncio", "uvloop", "rloop", "zuvloop", "bolide", "baseline"]
# The first Python that a loop can be had for.
FIRST_PYTHON = {"zuvloop": (3, 14)}


def available(loop: str, version: tuple[int, int]) -> bool:
    return version >= FIRST_PYTHON.get(loop, (0, 0))


@dataclass
class Result:
    """What one loop did in one row: CPU microseconds an operation, one figure a slice; of memory KiB, one a round."""

    samples: list[float] = field(default_factory=list)
    error: str | None = None

    def median(self) -> float | None:
        return statistics.median(self.samples) if self.samples else None


@contextlib.contextmanager
def failing(result: Result) -> Iterator[None]:
    """A process that fails is one that has no figure; the others go on."""
    try:
        yield
    except ProcessError as error:
        result.error = str(error)
        result.samples.clear()


class Run:
    """One run over some rows and loops."""

    def __init__(self, options, env: Environment, pingpong: Path, certificate: tuple[str, str]):
        self.options = options
        self.env = env
        self.pingpong = pingpong
        self.certificate = certificate
        self.server_core, self.load_core = environment.cores()
        self.paths = {"bolide": options.bolide or str(ROOT / "python"), "baseline": options.baseline}
        self.results: dict[str, dict[str, Result]] = {}

    def row(self, name: str) -> None:
        """All loops of a row live side by side and take short turns, so that whatever else happens on the machine, and
        how it has laid out the memory of a process, comes to all of them alike."""
        results = self.results[name] = {loop: Result(error=self._unavailable(loop)) for loop in self.options.loops}
        for _ in range(self.options.rounds):
            with contextlib.ExitStack() as stack:
                turns = {}
                for loop, result in results.items():
                    if not result.error:
                        with failing(result):
                            turns[loop] = self._start(name, loop, stack)
                self._take_turns(turns, results, once=isinstance(ROWS[name], Idle))
        say(f"{name}: " + ", ".join(f"{loop} {report.figure(result.median())}" for loop, result in results.items()))

    def _take_turns(self, turns: dict[str, Callable[[], float]], results: dict[str, Result], once: bool) -> None:
        able = list(turns)
        for loop in able if not once else ():
            with failing(results[loop]):
                turns[loop]()  # to warm up
        for number in range(1 if once else self.options.slices):
            # Each follows each of the others equally often, as far as the number of slices allows.
            order = able[number % len(able) :] + able[: number % len(able)] if able else []
            for loop in order if number // max(1, len(able)) % 2 == 0 else reversed(order):
                if not results[loop].error:
                    with failing(results[loop]):
                        results[loop].samples.append(turns[loop]())

    def _unavailable(self, loop: str) -> str | None:
        if loop == "bolide" and self.env.bolide_error:
            return self.env.bolide_error
        if not available(loop, self.env.version):
            return "needs CPython " + ".".join(map(str, FIRST_PYTHON[loop]))
        return self.env.missing.get(loop)

    def _start(self, name: str, loop: str, stack: contextlib.ExitStack) -> Callable[[], float]:
        """Start what measures `loop`, to be stopped by `stack`. The function takes a turn: its figure."""
        row = ROWS[name]
        log = OUT / "logs" / f"{loop}-{name}.log"
        if isinstance(row, Echo):
            return self._start_echo(row, loop, log, stack)
        if isinstance(row, Idle):
            port = free_port()
            server = self._echo_server(loop, log, stack, row.style, "tcp", str(port))
            return lambda: idle.kibibytes(server, port, IDLE_CONNECTIONS, idle.echo)
        process = self._process(loop, log, stack, True, "loop_worker.py", name, str(self.options.seconds))
        process.answer()
        return lambda: float(process.ask("go"))

    def _process(
        self, loop: str, log: Path, stack: contextlib.ExitStack, asked: bool, script: str, *arguments: str
    ) -> Process:
        env = {"PYTHONPATH": self.paths.get(loop) or ""}
        command = [str(self.env.python), str(HERE / script), loop, *arguments]
        process = Process(command, self.server_core, log, env, asked)
        stack.callback(process.stop)
        return process

    def _echo_server(self, loop: str, log: Path, stack: contextlib.ExitStack, *arguments: str) -> Process:
        process = self._process(loop, log, stack, False, "echo_worker.py", *arguments)
        process.wait_until(lambda: "ready" in log.read_text())
        return process

    def _start_echo(self, row: Echo, loop: str, log: Path, stack: contextlib.ExitStack) -> Callable[[], float]:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="bolide-bench-"))
        port = free_port()
        address = os.path.join(folder, "socket") if row.transport == "unix" else str(port)
        files = self.certificate if row.transport == "tls" else ()
        process = self._echo_server(loop, log, stack, row.style, row.transport, address, *files)
        load = generators.PingPong(
            self.pingpong,
            process,
            self.load_core,
            row.transport,
            address if row.transport == "unix" else "127.0.0.1",
            port,
            self.options.connections,
            row.size,
            self.options.seconds,
        )
        stack.callback(load.close)
        return lambda: load.measure().cpu_us

    def lost(self) -> list[str]:
        """The rows in which bolide is not the fastest, one line each."""
        lines = []
        for name, results in self.results.items():
            ours = results.get("bolide")
            if ours is None or not ours.samples:
                continue
            for loop, theirs in results.items():
                found = report.ratio(ours.samples, theirs.samples) if loop not in ("bolide", "baseline") else None
                if found is not None and found > 1:
                    lines.append(f"{name}: {found:.2f} x {loop} ({report.figure(ours.median())})")
        return lines


def fastest(results: dict[str, Result]) -> str:
    known = {loop: result.median() for loop, result in results.items() if result.samples}
    return min(known, key=known.get) if known else "-"


def table(results: dict[str, dict[str, Result]], loops: list[str]) -> tuple[list[str], list[list[str]]]:
    """Header and lines: a line for each row, a column for each loop."""
    lines = []
    for name, row in results.items():
        cells = [ROWS[name].title]
        cells += [report.figure(row[loop].median()) if row[loop].samples else "fails" for loop in loops]
        ours = row.get("bolide")
        others = [row[loop] for loop in loops if loop not in ("bolide", "baseline") and row[loop].samples]
        best = min(others, key=Result.median, default=None)
        found = report.ratio(ours.samples, best.samples) if ours and best else None
        lines.append([*cells, fastest(row), "" if found is None else f"{found:.2f}"])
    return ["CPU us an operation", *loops, "fastest", "bolide / best peer"], lines


def errors(results: dict[str, dict[str, Result]]) -> list[str]:
    """Why there are cells without a figure, each reason once."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for name, row in results.items():
        for loop, result in row.items():
            if result.error:
                reasons.setdefault((loop, result.error), []).append(name)
    return [f"{loop} ({', '.join(names)}): {reason}" for (loop, reason), names in reasons.items()]


def write_report(run: Run, conditions: dict) -> None:
    content = {
        "conditions": conditions,
        "rows": {name: {loop: asdict(result) for loop, result in row.items()} for name, row in run.results.items()},
        "lost": run.lost(),
    }
    report.write_json(OUT / "loops.json", content)
    about = ", ".join(f"{key}: {value}" for key, value in conditions.items())
    markdown = report.markdown_table(*table(run.results, run.options.loops))
    (OUT / "loops.md").write_text(f"{markdown}\n\n{about}\n", encoding="utf-8")
    bars = {
        ROWS[name].title: {loop: result.median() for loop, result in row.items() if result.samples}
        for name, row in run.results.items()
    }
    chart = report.bar_chart("Event loops", bars, "CPU microseconds an operation", "asyncio")
    (OUT / "loops.svg").write_text(chart, encoding="utf-8")


def parse_arguments(arguments: list[str] | None):
    def names(known, groups):
        def split(text):
            chosen = []
            for name in text.split(","):
                if name not in known and name not in groups:
                    raise argparse.ArgumentTypeError(f"{name}: choose from {', '.join([*known, *groups])}")
                chosen += groups.get(name, [name])
            return chosen

        return split

    parser = argparse.ArgumentParser(prog="python -m benchmarks.loops", description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=names(ROWS, GROUPS), default=list(ROWS), help="or cases, echo, memory")
    parser.add_argument("--loops", type=names(LOOPS, {}), help=f"of {','.join(LOOPS)}")
    parser.add_argument("--rounds", type=int, default=4, help="new processes of each loop (default: 4)")
    parser.add_argument("--slices", type=int, default=8, help="measurements of each process (default: 8)")
    parser.add_argument("--seconds", type=float, default=0.05, help="of each measurement (default: 0.05)")
    parser.add_argument("--connections", type=int, default=CONNECTIONS, help="of the echo rows (default: 16)")
    parser.add_argument("--python", default=sys.executable, help="the interpreter (default: this one)")
    parser.add_argument("--bolide", metavar="DIR", help="a folder with a built bolide package, instead of this tree's")
    parser.add_argument("--baseline", metavar="DIR", help="likewise: another bolide, to compare with")
    options = parser.parse_args(arguments)
    if options.rounds < 1 or options.slices < 1 or options.seconds <= 0 or options.connections < 1:
        parser.error("--rounds, --slices, --seconds and --connections must be positive")
    return options


def main(arguments: list[str] | None = None) -> int:
    options = parse_arguments(arguments)
    idle.allow(IDLE_CONNECTIONS)
    try:
        env = environment.find(options.python)
        loops = options.loops or [name for name in LOOPS if name != "baseline" and available(name, env.version)]
        options.loops = [*loops, "baseline"] if options.baseline and "baseline" not in loops else loops
        optional = [loop for loop in options.loops if loop in environment.OPTIONAL and available(loop, env.version)]
        environment.prepare(env, optional, bolide="bolide" in options.loops and not options.bolide)
        pingpong = environment.build_pingpong()
        certificate = environment.make_certificate(env)
    except BenchmarkError as error:
        sys.exit(f"error: {error}")
    run = Run(options, env, pingpong, certificate)
    for name in options.rows:
        run.row(name)
    conditions = report.conditions(env.version)
    write_report(run, conditions)
    print(report.text_table(*table(run.results, options.loops)))
    print(f"\nCPython {conditions['python']}; tables, figures and a drawing are in {OUT}")
    for line in errors(run.results):
        print(f"no figure: {line}")
    for line in run.lost():
        print(f"not the fastest: {line}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
