"""Drills: workers that are replaced, stopped, killed, added and removed under load, and what the clients saw of it.

    make drill                                         all of them, in full: about eight minutes
    make drill ARGS="--rolls 5 --stops 0 --kills 10 --resizes 0"

Each is done twice: with clients that keep their connections (every fourth closes its own after 20 requests), and with
clients that make a connection for each request.

A request counts as lost when its connection was made, even if only by the kernel, and the response did not come whole.
A connection that is tried while the server stops may be refused. Requests that a worker was at when it was killed are
lost, and nothing else.
"""

import argparse
import asyncio
import contextlib
import dataclasses
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

import bolide

APP = """
import asyncio, itertools, os

number = itertools.count()
PID = str(os.getpid()).encode()

async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    if next(number) % 2:
        await asyncio.sleep(0.004)
    headers = [(b"content-length", b"1024"), (b"x-worker", PID)]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"x" * 512, "more_body": True})
    await asyncio.sleep(0)
    await send({"type": "http.response.body", "body": b"x" * 512})
"""
DEADLINE = 60.0


@dataclasses.dataclass
class Figures:
    """What the clients saw.

    Attributes:
        answered: requests with a whole response.
        lost: descriptions of requests that went unanswered on an accepted connection.
        refused: connections that could not be made because the server stopped.
        connections: made.
        workers: process ids of those that answered.
    """

    answered: int = 0
    lost: list[str] = dataclasses.field(default_factory=list)
    refused: int = 0
    connections: int = 0
    workers: set[str] = dataclasses.field(default_factory=set)

    def __str__(self) -> str:
        return (
            f"{self.answered} requests answered by {len(self.workers)} workers over {self.connections} connections, "
            f"{len(self.lost)} lost, {self.refused} connections refused"
        )


class Load:
    """Clients that send requests, one after another, until they are told to stop."""

    def __init__(self, port: int, clients: int, fresh: bool) -> None:
        self.figures = Figures()
        self._fresh = fresh
        self.stopping = False  # the server is: connections may be refused
        self._over = False
        self.port = port
        self._clients = clients

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Figures]:
        """Context in which the load is on."""
        tasks = [asyncio.create_task(self._client(number)) for number in range(self._clients)]
        try:
            while self.figures.answered < self._clients:
                await asyncio.sleep(0.01)
            yield self.figures
        finally:
            self._over = True
            async with asyncio.timeout(DEADLINE):
                await asyncio.gather(*tasks)

    async def _client(self, number: int) -> None:
        limit = 1 if self._fresh else 20 if number % 4 == 0 else sys.maxsize
        while not self._over:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            except OSError as exc:
                if self.stopping:
                    self.figures.refused += 1
                else:
                    self.figures.lost.append(f"connect: {exc!r}")
                await asyncio.sleep(0.02)
                continue
            self.figures.connections += 1
            try:
                await self._converse(reader, writer, limit)
            finally:
                writer.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, limit: int) -> None:
        for count in range(limit):
            if self._over:
                return
            try:
                writer.write(b"GET /drill HTTP/1.1\r\nHost: drill\r\n\r\n")
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                body = await reader.readexactly(1024)
            except (OSError, asyncio.IncompleteReadError) as exc:
                self.figures.lost.append(f"{'a later' if count else 'the first'} request of a connection: {exc!r}")
                return
            assert head.startswith(b"http/1.1 200 ") and body == b"x" * 1024, (head, body)
            self.figures.answered += 1
            self.figures.workers.add(re.search(rb"x-worker: (\d+)", head)[1].decode())
            if b"connection: close" in head:
                return


class Supervised:
    """The server with two workers."""

    def __init__(self, folder: Path, workers: int) -> None:
        (folder / "drilled.py").write_text(APP)
        self._log = open(folder / "log", "w+")  # noqa: SIM115 - closed by stop()
        command = [sys.executable, "-m", "bolide", "drilled:app", "--port", "0", "--workers", str(workers)]
        command += ["--no-access-log", "--lifespan", "off"]
        self.process = subprocess.Popen(command, cwd=folder, stderr=self._log, stdout=self._log)
        self._path = folder / "log"

    @property
    def log(self) -> str:
        return self._path.read_text()

    async def wait(self, pattern: str, count: int = 1) -> re.Match[str]:
        """Wait for a number of matches in the log; the last of them."""
        async with asyncio.timeout(DEADLINE):
            while len(found := list(re.finditer(pattern, self.log))) < count:
                assert self.process.poll() is None, self.log
                await asyncio.sleep(0.01)
        return found[count - 1]

    async def port(self, workers: int) -> int:
        match = await self.wait(r"running on http://127\.0\.0\.1:(\d+)")
        await self.wait("Started server process", workers)
        return int(match[1])

    def workers(self) -> list[int]:
        """The process ids of the workers."""
        with open(f"/proc/{self.process.pid}/task/{self.process.pid}/children") as file:
            return [int(pid) for pid in file.read().split()]

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    async def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(DEADLINE):
            while self.process.poll() is None:
                await asyncio.sleep(0.01)
        self._log.close()
        assert self.process.returncode == 0, self.log


@contextlib.asynccontextmanager
async def supervised(workers: int = 2) -> AsyncIterator[tuple[Supervised, int]]:
    """A server, and the port it serves on."""
    with tempfile.TemporaryDirectory() as folder:
        server = Supervised(Path(folder), workers)
        try:
            yield server, await server.port(workers)
            await server.stop()
        finally:
            if server.process.poll() is None:
                server.process.kill()
                server.process.wait()


@contextlib.asynccontextmanager
async def loaded(fresh: bool, clients: int) -> AsyncIterator[tuple[Supervised, Load]]:
    """A server with two workers, and the load on it, whose figures are complete when this has ended."""
    async with supervised() as (server, port):
        load = Load(port, clients, fresh)
        async with load.running():
            yield server, load


async def rolling_restarts(count: int, fresh: bool = False, clients: int = 64) -> Figures:
    """SIGHUP replaces both workers, `count` times, under load: nothing may be lost or refused."""
    async with loaded(fresh, clients) as (server, load):
        for number in range(1, count + 1):
            server.process.send_signal(signal.SIGHUP)
            await server.wait("Finished server process", 2 * number)
    return load.figures


async def stops(count: int, fresh: bool = False, clients: int = 64) -> Figures:
    """SIGTERM stops the server, `count` times, under load: what was accepted is answered."""
    total = Figures()
    for _ in range(count):
        async with loaded(fresh, clients) as (server, load):
            await asyncio.sleep(random.uniform(0.05, 0.3))
            load.stopping = True
            await server.stop()
        figures = load.figures
        total.answered += figures.answered
        total.lost += figures.lost
        total.refused += figures.refused
        total.connections += figures.connections
        total.workers |= figures.workers
    return total


async def kills(seconds: int, fresh: bool = False, clients: int = 64) -> Figures:
    """kill -9 of a random worker every second: the requests that it was at are lost, and nothing else."""
    async with loaded(fresh, clients) as (server, load):
        figures = load.figures
        before = server.descriptors()
        for number in range(1, seconds + 1):
            await asyncio.sleep(1)
            os.kill(random.choice(server.workers()), signal.SIGKILL)
            await server.wait("was killed by SIGKILL", number)
        async with asyncio.timeout(DEADLINE):
            while len(now := server.workers()) != 2 or not set(map(str, now)) <= figures.workers:
                await asyncio.sleep(0.01)
        assert server.descriptors() <= before, "descriptors leak in the supervisor"
    # A worker is at most at one request for each client when it dies.
    assert len(figures.lost) <= seconds * clients
    assert not any(line.startswith("connect") for line in figures.lost), figures.lost
    with contextlib.suppress(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", load.port)
        raise AssertionError("somebody still listens")
    return figures


async def resizes(count: int, fresh: bool = False, clients: int = 64) -> Figures:
    """SIGTTIN adds a worker and SIGTTOU stops it, `count` times, under load: nothing may be lost or refused."""
    async with loaded(fresh, clients) as (server, load):
        for number in range(1, count + 1):
            server.process.send_signal(signal.SIGTTIN)
            # What the log says of a start comes before the worker accepts.
            newest = (await server.wait(r"Started server process \[(\d+)\]", 2 + number))[1]
            async with asyncio.timeout(DEADLINE):
                while fresh and newest not in load.figures.workers:
                    await asyncio.sleep(0.01)
            server.process.send_signal(signal.SIGTTOU)
            await server.wait("Finished server process", number)
    return load.figures


async def drill(options: argparse.Namespace) -> int:
    """Run what was asked for and print the figures; the exit code."""
    code = 0
    for name, run, count in (
        ("rolling restarts", rolling_restarts, options.rolls),
        ("stops", stops, options.stops),
        ("workers added and removed", resizes, options.resizes),
        ("kills", kills, options.kills),
    ):
        for fresh in (False, True) if count else ():
            began = time.monotonic()
            figures = await run(count, fresh, options.clients)
            how = "a connection for each request" if fresh else "connections kept"
            print(f"{count} {name} in {time.monotonic() - began:.0f} s, {how}: {figures}", flush=True)
            for line in sorted(set(figures.lost)):
                print(f"    {figures.lost.count(line)} x {line}")
            if figures.lost and run is not kills:
                code = 1
    return code


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rolls", type=int, default=100, help="rolling restarts by SIGHUP")
    parser.add_argument("--stops", type=int, default=20, help="stops by SIGTERM")
    parser.add_argument("--kills", type=int, default=60, help="seconds, with a kill -9 in each")
    parser.add_argument("--resizes", type=int, default=20, help="pairs of SIGTTIN and SIGTTOU")
    parser.add_argument("--clients", type=int, default=64)
    sys.exit(bolide.run(drill(parser.parse_args())))


if __name__ == "__main__":
    main()
