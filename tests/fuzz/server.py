"""The Python half of the fuzz target server.c: clients and an application that do anything, on one loop.

The first four bytes of an input seed what the clients and the application do: how many there are, how the rest is cut
into pieces, what is read, when a client leaves and how, and how each request is answered. What must hold whatever they
do is asserted.
"""

import asyncio
import contextlib
import gc
import importlib.machinery
import logging
import os
import random
import re
import socket
import sys
import tempfile
from collections import Counter

import _fuzz


class CoreImporter:
    """Finds bolide._core in this process."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == "bolide._core":
            return importlib.machinery.ModuleSpec(name, CoreImporter, origin="the fuzz target")
        return None

    @staticmethod
    def create_module(spec):
        return _fuzz.load_core(spec)

    @staticmethod
    def exec_module(module):
        _fuzz.exec_core(module)


sys.meta_path.insert(0, CoreImporter)
import bolide  # noqa: E402
from bolide import _core  # noqa: E402

TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+")
METHOD = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Z]+")
FIELD = re.compile(rb"[^\x00-\x08\x0a-\x1f\x7f]*")
HEAD_LIMIT, BODY_LIMIT = 2000, 3000
TURNS = 400
CLIENTS = [1] * 10 + [2, 2, 2, 3, 3, 5, 5, 8, 8, 40]  # that act at once; the server takes up to 32 reads together


class Plan:
    """What happens in one run; `seen` is what reached the application, in full."""

    def __init__(self, seed: int, tame: bool) -> None:
        self.random = random.Random(seed)
        self.tame = tame
        self.seen: list[tuple] = []
        self.clients: set[asyncio.Task] = set()
        self.stopped = False  # the server, by an application

    def chance(self, one_in: int) -> bool:
        return not self.tame and self.random.randrange(one_in) == 0

    def applications(self) -> list[asyncio.Task]:
        """The tasks that are running requests."""
        return sorted(asyncio.all_tasks() - {asyncio.current_task()} - self.clients, key=id)


plan = Plan(0, True)


def check_scope(scope) -> None:
    """What no request may have that reaches an application."""
    if scope["type"] == "http":
        assert METHOD.fullmatch(scope["method"]), scope
    names = [name for name, _ in scope["headers"]]
    for name, value in scope["headers"]:
        assert TOKEN.fullmatch(name), name
        assert FIELD.fullmatch(value) and value == value.strip(b" \t"), value
    assert names.count(b"host") == 1 or (scope["http_version"] == "1.0" and b"host" not in names), names
    assert names.count(b"content-length") + names.count(b"transfer-encoding") <= 1, names
    assert len(names) <= 20
    assert all(0x21 <= byte < 0x7F for byte in scope["raw_path"] + scope["query_string"]), scope
    assert scope["raw_path"].startswith(b"/") or scope["raw_path"] == b"*", scope


async def app(scope, receive, send):
    """Any application: one that reads or not, answers in one piece or many, wrongly, late or never."""
    check_scope(scope)
    mine = plan
    if scope["type"] == "websocket":
        return await websocket(mine, receive, send)
    if mine.chance(20):
        raise RuntimeError("before")
    if mine.chance(100):
        # Whoever waits for his turn in the same batch is met by it, too.
        mine.stopped = True
        mine.random.choice([server.end_keep_alive, server.shutdown, server.drop_connections, server.abort])()
    body, complete = b"", False
    if not mine.chance(4):
        while not mine.chance(10):
            if mine.chance(10):
                await asyncio.sleep(0)
            message = await receive()
            if message["type"] == "http.disconnect":
                break
            body += message["body"]
            assert len(body) <= BODY_LIMIT
            if not message["more_body"]:
                complete = True
                break
    if complete:
        mine.seen.append((scope["method"], scope["raw_path"], scope["query_string"], tuple(scope["headers"]), body))
    if mine.chance(20):
        return None
    headers = []
    size = mine.random.choice([0, 1, 100, 5000, 200_000])
    if not mine.chance(2):
        headers.append((b"content-length", b"%d" % (size + mine.chance(10))))
    if mine.chance(10):
        headers.append((b"connection", b"close"))
    if mine.chance(30):
        headers.append(mine.random.choice([(b"x", b"a\nb"), (b"", b""), ("a", b"b"), (b"content-length", b"x"), 1]))
    if mine.chance(10):
        await send({"type": "http.response.early_hint", "links": mine.random.choice([[b"</a>"], [], [b"\n"], 1])})
    trailers = mine.chance(10)
    status = mine.random.choice([200, 204, 304, 404, 500] if not mine.tame else [200])
    await send({"type": "http.response.start", "status": status, "headers": headers, "trailers": trailers})
    if mine.chance(10):
        await send({"type": "http.response.pathsend", "path": mine.random.choice([__file__, "/", "/none"])})
    if mine.chance(10):
        part = {"offset": mine.random.choice([None, 0, 100, -1]), "count": mine.random.choice([None, 0, 5000, "1"])}
        with open(mine.random.choice([__file__, "/dev/null"]), "rb") as file:
            chosen = mine.random.choice([file, file.fileno(), -1, 5])
            event = {"type": "http.response.zerocopysend", "file": chosen, **part, "more_body": mine.chance(2)}
            await send(event)
    while mine.chance(3):
        piece = b"p" * mine.random.choice([0, 1, 100, 70_000])
        await send({"type": "http.response.body", "body": piece, "more_body": True})
        if mine.chance(3):
            await asyncio.sleep(0)
    if mine.chance(10):
        await receive()
    if mine.chance(20):
        raise ValueError("after")
    await send({"type": "http.response.body", "body": b"b" * size if status != 204 else b""})
    if trailers:
        fields = mine.random.choice([[], [(b"x", b"y")], [(b"host", b"a")], 1])
        await send({"type": "http.response.trailers", "headers": fields, "more_trailers": mine.chance(5)})
    if mine.chance(10):
        await receive()
    if mine.chance(20):
        await send({"type": "http.response.body"})


async def websocket(mine, receive, send):
    """Any application of a WebSocket."""
    await receive()
    if mine.chance(5):
        return await send({"type": "websocket.close"})
    await send({"type": "websocket.accept"})
    while not mine.chance(10):
        message = await receive()
        if message["type"] == "websocket.disconnect":
            return
        await send({"type": "websocket.send", "bytes": message.get("bytes") or b"", "text": message.get("text")})


def on_loop_exception(loop, context) -> None:
    """Nothing that the server does may come to the loop's exception handler."""
    message = context.get("message", "")
    if "never retrieved" in message or "was destroyed" in message:
        return
    sys.stderr.write(f"the loop's exception handler was called: {context!r}\n")
    os.abort()


logging.getLogger("fuzz").addHandler(logging.NullHandler())
logging.getLogger("fuzz").propagate = False
loop = bolide.new_event_loop()
asyncio.set_event_loop(loop)
loop.set_exception_handler(on_loop_exception)
folder = tempfile.mkdtemp(prefix="bolide-fuzz-")


def start_server() -> _core.Server:
    """A new server, which listens where the clients expect it."""
    started = _core.Server(
        loop,
        app,
        logger=logging.getLogger("fuzz"),
        limit_request_head=HEAD_LIMIT,
        limit_request_headers=20,
        limit_max_body=BODY_LIMIT,
        timeout_keep_alive=60,
    )
    with contextlib.suppress(FileNotFoundError):
        os.unlink(folder + "/s")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(folder + "/s")
        started.listen(listener)
    return started


server = start_server()
runs = 0
inbox = bytearray(1 << 20)  # one for all runs: a new one each time costs more than all the rest of a run


def read_some(sock: socket.socket) -> bytes | None:
    """What has come, its start; empty at the end, None when there is nothing now."""
    try:
        size = sock.recv_into(inbox)
    except BlockingIOError:
        return None
    return bytes(inbox[: min(size, 100)])


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def converse(data: bytes, pieces: int) -> bytes:
    """Be the client of one connection; returns the start of what came back as far as it was read."""
    chance = plan.chance
    back = b""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.setblocking(False)
        sock.connect(folder + "/s")
        cuts = sorted(plan.random.randrange(len(data) + 1) for _ in range(pieces - 1)) if data else []
        for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
            with contextlib.suppress(OSError):
                sock.send(data[start:end])
            await turns(2)
            if not chance(3):
                with contextlib.suppress(OSError):
                    piece = read_some(sock)
                    back = back or piece or b""
            if chance(20):
                return back
            if chance(50):
                # A task that is cancelled from outside, as at a shutdown.
                tasks = plan.applications()
                if tasks:
                    plan.random.choice(tasks).cancel()
        if not chance(4):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_WR)
        await turns(4)
        if not chance(4):
            for _ in range(TURNS):
                with contextlib.suppress(ConnectionError):
                    piece = read_some(sock)
                    if piece == b"":
                        break
                    back = back or piece or b""
                await turns(1)
    return back


async def fence() -> None:
    """Wait until the server has accepted whoever has connected before."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.setblocking(False)
        if sock.connect_ex(folder + "/s") == 0:  # else it does not listen any more
            with contextlib.suppress(OSError):
                sock.send(b"\0")  # answered by the parser
            for _ in range(TURNS):
                with contextlib.suppress(ConnectionError):
                    if read_some(sock) is None:
                        await turns(1)
                        continue
                return
            sys.stderr.write("nobody answers\n")
            os.abort()


async def visit(data: bytes, pieces: int, clients: int) -> list[bytes]:
    """converse() with so many at once, and wait until nothing of it is left in the server.

    They take their steps in the same turns of the loop: what they send arrives together.
    """
    parts = [data[plan.random.randrange(len(data) + 1) :] if plan.chance(4) else data for _ in range(clients)]
    plan.clients = {asyncio.ensure_future(converse(part, pieces)) for part in parts}
    plan.clients.add(asyncio.current_task())
    backs = await asyncio.gather(*(plan.clients - {asyncio.current_task()}))
    await fence()
    for turn in range(TURNS):
        if not server.connections and not server.requests_running:
            return backs
        if turn > TURNS // 2:
            for task in plan.applications():
                task.cancel()
        await turns(1)
    sys.stderr.write(f"{server.connections} connections and {server.requests_running} requests are left\n")
    os.abort()


async def restart_server() -> None:
    """After an application has ended it: nobody whom it has still accepted may be served in the next run."""
    global server
    server.abort()
    await turns(4)  # those that its listener had at hand
    server.abort()
    await server.wait_closed()
    server = start_server()


def run_one(data: bytes) -> None:
    """One input."""
    global plan, runs
    runs += 1
    seed = int.from_bytes(data[:4].ljust(4, b"\0"), "little")
    raw = data[4:]
    if seed % 4:
        plan = Plan(seed, tame=False)
        clients = plan.random.choice(CLIENTS)
        loop.run_until_complete(visit(raw, 1 + plan.random.randrange(8), clients))
        if plan.stopped:
            loop.run_until_complete(restart_server())
    else:
        # One reading of one stream, however it is cut, and whoever else sends.
        accounts = []
        some, many = 2 + seed // 8 % 5, 1 + seed // 64 % 4
        for pieces, clients in ((1, 1), (some, many), (len(raw) if seed % 8 else 3, 1)):
            plan = Plan(seed, tame=True)
            for back in loop.run_until_complete(visit(raw, max(1, min(pieces, 300)), clients)):
                assert not back or back.startswith(b"HTTP/1.1 "), back[:100]
            counts = Counter(plan.seen)
            assert all(count % clients == 0 for count in counts.values()), counts
            accounts.append((plan.seen if clients == 1 else None, {what: n // clients for what, n in counts.items()}))
        (first, counts), (_, others), (last, _) = accounts
        if first != last or counts != others:
            raise AssertionError(f"read in different ways: {accounts!r}")
    if runs % 2000 == 0:
        gc.collect()
