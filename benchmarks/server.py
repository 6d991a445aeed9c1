"""bolide and other ASGI servers side by side: `python -m benchmarks.server`.

Every server runs alone on one core while the load comes from another; the rounds of all servers are interleaved. The
figure that counts is the CPU time a request of the server's whole process tree: it says what a request costs,
whether or not the load generator keeps the server busy.
"""

import argparse
import contextlib
import socket
import statistics
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path

from . import environment, generators, idle, report
from .environment import HERE, OUT, ROOT, BenchmarkError, Environment, say
from .process import Process, ProcessError, free_port

CONNECTIONS = 64
IDLE_CONNECTIONS = 5000
IDLE_WEBSOCKETS = 10000
BROADCAST_PEERS = 5000
WARM_UP_SECONDS = 0.4
# How much dearer a request may be with very many connections than with few.
GROWTH = 1.15


@dataclass(frozen=True)
class Row:
    """One kind of work."""

    title: str
    app: str
    path: str = "/"
    # Or http-open (counted from when all are connected), websocket, broadcast, broadcast-compressed, idle,
    # idle-websocket, idle-websocket-compressed.
    kind: str = "http"
    method: str = "GET"
    size: int = 0  # bytes of the request body or the message
    pipeline: int = 1  # requests sent at once
    style: str = "plain"  # of the requests: see http.lua
    tls: bool = False
    connections: int | None = None  # that are active; None: as the options say
    idle: int = 0  # further connections that had one request and do nothing
    limit: bool = False  # the floor knows this work
    answer: int | None = None  # bytes of the answer's body, for the floor; None: as the raw application has
    alone: bool = False  # worth knowing what the application costs by itself
    # The most that bolide may cost, relative to a peer.
    targets: dict[str, float] = field(default_factory=dict)
    # The most that it may cost in this row's own unit.
    ceiling: float | None = None
    # Another row, which it may exceed by GROWTH only.
    grows_from: str | None = None


ROWS = {
    "raw": Row(
        "raw ASGI, 13 bytes", "raw:hello", limit=True, targets={"limit": 1.45, "uvicorn": 0.29, "uvicorn-zig": 0.50}
    ),
    "sleep0": Row("awaits sleep(0)", "raw:sleep_zero", targets={"uvicorn": 0.40}),
    "sleep10": Row("awaits sleep(0.01)", "raw:sleep_ten_milliseconds", targets={"uvicorn": 0.50}),
    "post1k": Row(
        "POST 1 KiB echo", "raw:echo", method="POST", size=1024, targets={"uvicorn": 0.36, "uvicorn-zig": 0.50}
    ),
    "post256k": Row("POST 256 KiB echo", "raw:echo", method="POST", size=256 * 1024, targets={"uvicorn": 0.75}),
    "body1m": Row("1 MiB body", "raw:mebibyte", limit=True, answer=1024 * 1024, targets={"uvicorn": 0.70}),
    "streamed": Row("16 x 16 KiB streamed", "raw:streamed", targets={"uvicorn": 0.60, "uvicorn-zig": 0.50}),
    "pipelined": Row("raw, 16 requests pipelined", "raw:hello", pipeline=16, limit=True),
    "close": Row("raw, Connection: close", "raw:hello", style="close"),
    "browser": Row("raw, the 12 headers of a browser", "raw:hello", style="browser", limit=True),
    "https": Row("raw, HTTPS keep-alive", "raw:hello", tls=True),
    "open1": Row("raw, 1 connection", "raw:hello", kind="http-open", connections=1, limit=True),
    "open64": Row("raw, 64 connections", "raw:hello", kind="http-open", connections=64, limit=True),
    "open1k": Row(
        "raw, 1,000 connections", "raw:hello", kind="http-open", connections=1000, limit=True, grows_from="open64"
    ),
    "open10k": Row(
        "raw, 10,000 connections", "raw:hello", kind="http-open", connections=10_000, limit=True, grows_from="open64"
    ),
    "idle1k": Row(
        "raw, 64 connections beside 1,000 idle ones",
        "raw:hello",
        kind="http-open",
        connections=64,
        idle=1000,
        limit=True,
        grows_from="open64",
    ),
    "idle10k": Row(
        "raw, 64 connections beside 10,000 idle ones",
        "raw:hello",
        kind="http-open",
        connections=64,
        idle=10_000,
        limit=True,
        grows_from="open64",
    ),
    "text": Row("FastAPI text", "framework:app", alone=True, targets={"uvicorn": 0.58, "uvicorn-zig": 0.85}),
    "json": Row(
        "FastAPI JSON, path + query",
        "framework:app",
        "/items/42?limit=7",
        alone=True,
        targets={"uvicorn": 0.74, "uvicorn-zig": 0.90},
    ),
    "ws32": Row(
        "WebSocket echo 32 bytes",
        "raw:websocket_echo",
        kind="websocket",
        size=32,
        targets={"uvicorn": 0.55, "uvicorn-zig": 0.60, "socketify": 0.80},
    ),
    "ws1k": Row(
        "WebSocket echo 1 KiB",
        "raw:websocket_echo",
        kind="websocket",
        size=1024,
        targets={"uvicorn": 0.55, "uvicorn-zig": 0.60, "socketify": 0.80},
    ),
    "ws64k": Row(
        "WebSocket echo 64 KiB",
        "raw:websocket_echo",
        kind="websocket",
        size=65536,
        targets={"uvicorn": 0.70, "uvicorn-zig": 0.60},
    ),
    "broadcast": Row(
        "WebSocket broadcast of 1 KiB to 5,000 peers that offer compression",
        "raw:websocket_broadcast",
        kind="broadcast-compressed",
        size=1024,
        targets={"uvicorn": 0.25},
    ),
    "broadcast-plain": Row(
        "WebSocket broadcast of 1 KiB to 5,000 peers, uncompressed",
        "raw:websocket_broadcast",
        kind="broadcast",
        size=1024,
    ),
    "idle": Row("KiB an idle connection", "raw:hello", kind="idle", limit=True, ceiling=1.0),
    "wsidle": Row("KiB an idle WebSocket", "raw:websocket_echo", kind="idle-websocket", ceiling=2.0),
    "wsidle-deflate": Row(
        "KiB an idle WebSocket, compression agreed upon", "raw:websocket_echo", kind="idle-websocket-compressed"
    ),
    "wsidle-starlette": Row("KiB an idle WebSocket of Starlette", "starlette_ws:app", kind="idle-websocket"),
}

# The packages a server needs beyond those that are always installed.
NEEDS = {
    "uvicorn-zig": ["zuvloop", "zttp"],
    "fastpysgi": ["fastpysgi"],
    "freastal": ["freastal"],
    "socketify": ["socketify"],
}
SERVERS = ["limit", "bolide", "baseline", "uvicorn", "granian", "uvicorn-asyncio", *NEEDS]
DEFAULT_SERVERS = ["limit", "bolide", "uvicorn", "granian"]


class Contestants:
    """How each server is started."""

    def __init__(
        self,
        env: Environment,
        limit: Path | None,
        bolide: str,
        baseline: str | None,
        certificate: tuple[str, str] | None = None,
    ):
        self.env = env
        self.certificate = certificate
        self.limit = limit
        self.paths = {"bolide": bolide, "baseline": baseline}

    def _tls(self, server: str, row: Row) -> list[str]:
        if not row.tls or self.certificate is None:
            return []
        names = ("--ssl-certificate", "--ssl-keyfile") if server == "granian" else ("--ssl-certfile", "--ssl-keyfile")
        return [names[0], self.certificate[0], names[1], self.certificate[1]]

    def command(self, server: str, row: Row, port: int) -> list[str]:
        python, address = str(self.env.python), ["--host", "127.0.0.1", "--port", str(port)]
        options = [*address, *self._tls(server, row), "--log-level", "warning"]
        if "websocket" in row.kind or "broadcast" in row.kind:
            # The clients answer no pings.
            options += {"granian": [], "socketify": []}.get(server, ["--ws-ping-interval", "0"])
        if row.kind == "http-open" and server != "granian":
            options += ["--timeout-keep-alive", "60"]  # the first must not end before the last is open
        if server == "limit":
            return [str(self.limit), "127.0.0.1", str(port), *([] if row.answer is None else [str(row.answer)])]
        if server in ("bolide", "baseline"):
            return [python, "-m", "bolide", row.app, *options, "--no-access-log"]
        if server.startswith("uvicorn"):
            loop, http = {
                "uvicorn": ("uvloop", "httptools"),
                "uvicorn-asyncio": ("asyncio", "h11"),
                "uvicorn-zig": ("zuvloop", "zttp"),
            }[server]
            command = [python, "-m", "uvicorn", row.app, "--loop", loop, "--http", http]
            return [*command, *options, "--no-access-log"]
        if server == "granian":
            command = [self.env.command("granian"), "--interface", "asgi", "--loop", "uvloop", "--workers", "1"]
            # By default it holds no more connections than its backlog.
            many = row.kind.startswith(("idle", "broadcast")) or row.idle + (row.connections or 0) > CONNECTIONS
            command += ["--backlog", str(2 * IDLE_WEBSOCKETS)] if many else []
            return [*command, *options, row.app]
        if server == "socketify":
            return [python, "-m", "socketify", row.app, *address, "--interface", "asgi", "--disable-listen-log", "True"]
        return [python, str(HERE / "apps" / "serve_with.py"), server, row.app, str(port)]

    def unavailable(self, server: str) -> str | None:
        """Why a server cannot take part."""
        if server == "bolide" and self.env.bolide_error:
            return self.env.bolide_error
        if server == "baseline" and self.paths["baseline"] is None:
            return "no --baseline was given"
        for package in [server.partition("-")[0], *NEEDS.get(server, [])]:
            if package in self.env.missing:
                return self.env.missing[package]
        return None

    def start(self, server: str, row: Row, core: int, log: Path) -> tuple[Process, int]:
        """Start it and wait until it answers. Raises ProcessError."""
        port = free_port()
        path = [str(HERE / "apps")]
        if self.paths.get(server):
            path.append(self.paths[server])
        env = {"PYTHONPATH": ":".join(path), "PYTHONDONTWRITEBYTECODE": ""}
        process = Process(self.command(server, row, port), core, log, env)
        try:
            process.wait_until(lambda: _answers(port))
        except BaseException:
            process.stop()
            raise
        return process, port


def _answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), 2):
            return True
    except OSError:
        return False


# What is done with connections that are idle after it, and how many of them there are.
IDLE_KINDS = {
    "idle": (idle.exchange, IDLE_CONNECTIONS),
    "idle-websocket": (idle.upgrade, IDLE_WEBSOCKETS),
    "idle-websocket-compressed": (idle.upgrade_compressed, IDLE_WEBSOCKETS),
}


def idle_kibibytes(server: Process, port: int, kind: str) -> float:
    """Resident KiB that each of many connections adds which had one request each and are kept alive; or which are
    WebSockets, and their application waits for a message."""
    begin, count = IDLE_KINDS[kind]
    return idle.kibibytes(server, port, count, begin)


@dataclass
class Result:
    """What one server did in one row."""

    samples: list = field(default_factory=list)
    error: str | None = None

    def values(self) -> list[float]:
        return [sample["cpu_us"] for sample in self.samples]

    def median(self, key: str = "cpu_us") -> float | None:
        return statistics.median(sample[key] for sample in self.samples) if self.samples else None


class Run:
    """One run over some rows and servers."""

    def __init__(self, options, contestants: Contestants, pingpong: Path):
        self.options = options
        self.contestants = contestants
        self.pingpong = pingpong
        self.server_core, self.load_core = environment.cores()
        self.results: dict[str, dict[str, Result]] = {}

    def row(self, name: str) -> None:
        row = ROWS[name]
        results = self.results[name] = {}
        running = {}
        for server in self.options.servers:
            if server == "limit" and not row.limit:
                continue
            result = results[server] = Result(error=self.contestants.unavailable(server))
            if result.error:
                continue
            try:
                log = OUT / "logs" / f"{server}-{name}.log"
                running[server] = self.contestants.start(server, row, self.server_core, log)
                running[server][0].suspend()
            except ProcessError as error:
                result.error = str(error)
        try:
            for number in range(1 if row.kind.startswith("idle") else self.options.rounds):
                order = list(running)
                turn = number % len(order) if order else 0
                for server in order[turn:] + order[:turn]:
                    self._measure(row, server, *running[server], results[server], warm_up=number == 0)
                    if results[server].error:
                        running.pop(server)[0].stop()
        finally:
            for process, _ in running.values():
                process.stop()
        if row.alone:
            results["app alone"] = self._alone(row, name)
        say(_one_line(name, results))

    def _measure(self, row: Row, server: str, process: Process, port: int, result: Result, warm_up: bool) -> None:
        process.resume()
        try:
            if row.kind.startswith("idle"):
                result.samples.append({"cpu_us": idle_kibibytes(process, port, row.kind)})
                return
            if warm_up:
                self._load(row, process, port, WARM_UP_SECONDS)
            sample = self._load(row, process, port, self.options.seconds)
            result.samples.append(asdict(sample))
        except ProcessError as error:
            result.error = str(error)
        finally:
            process.suspend()

    def _load(self, row: Row, process: Process, port: int, seconds: float) -> generators.Sample:
        connections = row.connections or self.options.connections
        connections = BROADCAST_PEERS if row.kind.startswith("broadcast") else connections
        if row.kind == "http":
            url = f"{'https' if row.tls else 'http'}://127.0.0.1:{port}{row.path}"
            return generators.measure_http(
                process, self.load_core, url, seconds, connections, row.method, row.size, row.pipeline, row.style
            )
        kind, size = ("http", 1) if row.kind == "http-open" else (row.kind, row.size)
        # Each of very many connections has its turn.
        seconds = max(seconds, connections / 4000) if row.kind == "http-open" else seconds
        waiting = idle.open_connections(port, row.idle, idle.exchange)
        try:
            load = generators.PingPong(
                self.pingpong, process, self.load_core, kind, "127.0.0.1", port, connections, size, seconds
            )
            with contextlib.closing(load):
                return load.measure()
        finally:
            for client in waiting:
                client.close()

    def _alone(self, row: Row, name: str) -> Result:
        command = [str(self.contestants.env.python), str(HERE / "apps" / "alone.py"), row.app, row.path, "0.7"]
        result = Result()
        log = OUT / "logs" / f"alone-{name}.log"
        for _ in range(self.options.rounds):
            process = Process(command, self.server_core, log, {"PYTHONPATH": str(HERE / "apps")})
            try:
                process.wait_for_end(30)
                result.samples.append({"cpu_us": float(log.read_text().split()[-1])})
            except ProcessError as error:
                result.error = str(error)
                break
            finally:
                process.stop()
        return result

    def misses(self) -> list[str]:
        """The targets that bolide did not reach, one line each."""
        lines = []
        for name, results in self.results.items():
            ours = results.get("bolide")
            if ours is None:
                continue
            if not ours.samples:
                lines.append(f"{name}: bolide has no figure")
                continue
            for peer, wanted in ROWS[name].targets.items():
                theirs = results.get(peer)
                found = report.ratio(ours.values(), theirs.values()) if theirs else None
                if found is not None and found > wanted:
                    lines.append(f"{name}: {found:.2f} x {peer}, wanted <= {wanted:.2f}")
            base = self.results.get(ROWS[name].grows_from or "", {}).get("bolide")
            if base is not None and base.samples and ours.median() > GROWTH * base.median():
                times = ours.median() / base.median()
                lines.append(f"{name}: {times:.2f} x {ROWS[name].grows_from}, wanted <= {GROWTH:.2f}")
            ceiling = ROWS[name].ceiling
            if ceiling is not None and ours.median() > ceiling:
                lines.append(f"{name}: {ours.median():.2f}, wanted <= {ceiling:.2f}")
        return lines


def _one_line(name: str, results: dict[str, Result]) -> str:
    figures = (f"{server} {report.figure(result.median())}" for server, result in results.items())
    return f"{name}: {', '.join(figures)}"


def _cells(server: str, result: Result, results: dict[str, Result]) -> list[str]:
    """One line of a row's table."""
    if not result.samples:
        return [server, "fails", "", "", "", "", ""]
    cells = [server, report.figure(result.median())]
    for base in ("uvicorn", "limit"):
        other = results.get(base)
        found = report.ratio(result.values(), other.values()) if other and server != base else None
        cells.append("" if found is None else f"{found:.2f}")
    sample = result.samples[0]
    cells.append(report.thousands(result.median("rate")) if "rate" in sample else "")
    cells.append(report.figure(result.median("p99_ms")) if "rate" in sample else "")
    failed = sum(sample.get("failed", 0) for sample in result.samples)
    return [*cells, f"{failed} failed" if failed else ""]


def text_report(results: dict[str, dict[str, Result]]) -> str:
    parts = []
    for name, row in results.items():
        unit = "KiB" if ROWS[name].kind.startswith("idle") else "CPU us"
        header = [ROWS[name].title, unit, "x uvicorn", "x limit", "a second", "p99 ms", ""]
        lines = [report.text_table(header, [_cells(server, result, row) for server, result in row.items()])]
        lines += [f"{server}: {result.error}" for server, result in row.items() if result.error]
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def growth_report(results: dict[str, dict[str, Result]]) -> list[str]:
    """How each server's cost grows with the number of its connections, one line a row."""
    lines = []
    for name, row in results.items():
        base = results.get(ROWS[name].grows_from or "", {})
        figures = [
            f"{server} {result.median() / base[server].median():.2f}"
            for server, result in row.items()
            if result.samples and server in base and base[server].samples
        ]
        if figures:
            lines.append(f"{name} / {ROWS[name].grows_from}: {', '.join(figures)}")
    return lines


def markdown_report(results: dict[str, dict[str, Result]], conditions: dict) -> str:
    servers = list(dict.fromkeys(server for row in results.values() for server in row))
    header = ["CPU us a request (requests a second)", *servers, "bolide / uvicorn"]
    lines = []
    for name, row in results.items():
        cells = [ROWS[name].title]
        for server in servers:
            result = row.get(server)
            if result is None or not result.samples:
                cells.append("" if result is None else "fails")
                continue
            rate = f" ({report.thousands(result.median('rate'))})" if "rate" in result.samples[0] else ""
            cells.append(report.figure(result.median()) + rate)
        ours, theirs = row.get("bolide"), row.get("uvicorn")
        found = report.ratio(ours.values(), theirs.values()) if ours and theirs else None
        lines.append([*cells, "" if found is None else f"{found:.2f}"])
    about = ", ".join(f"{key}: {value}" for key, value in conditions.items())
    return f"{report.markdown_table(header, lines)}\n\n{about}\n"


def write_report(run: Run, conditions: dict) -> None:
    content = {
        "conditions": conditions,
        "rows": {name: {server: asdict(result) for server, result in row.items()} for name, row in run.results.items()},
        "missed": run.misses(),
    }
    report.write_json(OUT / "server.json", content)
    (OUT / "server.md").write_text(markdown_report(run.results, conditions), encoding="utf-8")
    bars = {
        ROWS[name].title: {server: result.median() for server, result in row.items() if result.samples}
        for name, row in run.results.items()
    }
    chart = report.bar_chart("ASGI servers", bars, "CPU microseconds a request", "uvicorn")
    (OUT / "server.svg").write_text(chart, encoding="utf-8")


def parse_arguments(arguments: list[str] | None):
    def names(known):
        def split(text):
            chosen = list(known) if text == "all" else text.split(",")
            for name in chosen:
                if name not in known:
                    raise argparse.ArgumentTypeError(f"{name}: choose from {', '.join(known)}, or all")
            return chosen

        return split

    parser = argparse.ArgumentParser(prog="python -m benchmarks.server", description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=names(ROWS), default=list(ROWS), help=f"of {','.join(ROWS)}")
    parser.add_argument("--servers", type=names(SERVERS), default=DEFAULT_SERVERS, help=f"of {','.join(SERVERS)}")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each server (default: 3)")
    parser.add_argument("--seconds", type=float, default=1.5, help="of each measurement (default: 1.5)")
    parser.add_argument("--connections", type=int, default=CONNECTIONS, help="default: 64")
    parser.add_argument("--python", default=sys.executable, help="the interpreter of the servers (default: this one)")
    parser.add_argument("--bolide", metavar="DIR", help="a folder with a built bolide package, instead of this tree's")
    parser.add_argument("--baseline", metavar="DIR", help="likewise: another bolide, to compare with")
    options = parser.parse_args(arguments)
    if options.baseline and "baseline" not in options.servers:
        options.servers.append("baseline")
    if options.rounds < 1 or options.seconds <= 0 or options.connections < 1:
        parser.error("--rounds, --seconds and --connections must be positive")
    return options


def main(arguments: list[str] | None = None) -> int:
    options = parse_arguments(arguments)
    idle.allow(IDLE_WEBSOCKETS)
    try:
        generators.find_wrk()
        optional = [package for server in options.servers for package in NEEDS.get(server, [])]
        wanted = "bolide" in options.servers and not options.bolide
        env = environment.find(options.python)
        environment.prepare(env, optional, bolide=wanted)
        limit = environment.build_limit(env) if "limit" in options.servers else None
        pingpong = environment.build_pingpong()
        certificate = environment.make_certificate(env) if any(ROWS[name].tls for name in options.rows) else None
    except BenchmarkError as error:
        sys.exit(f"error: {error}")
    contestants = Contestants(env, limit, options.bolide or str(ROOT / "python"), options.baseline, certificate)
    run = Run(options, contestants, pingpong)
    for name in options.rows:
        run.row(name)
    conditions = report.conditions(env.version)
    write_report(run, conditions)
    print(text_report(run.results))
    print("\n".join(["", *growth_report(run.results)]))
    print(f"\nCPython {conditions['python']}; tables, figures and a drawing are in {OUT}")
    for line in run.misses():
        print(f"missed: {line}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
