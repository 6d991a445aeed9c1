"""Serves a WSGI application (PEP 3333), each request in a thread of a pool."""

import asyncio
import concurrent.futures
import io
import sys
from collections.abc import Callable, Coroutine, Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from bolide._types import Receive, Scope, Send, WSGIApp

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

__all__ = ["WSGIMiddleware", "make_environ"]

T = TypeVar("T")
ExcInfo: TypeAlias = tuple[type[BaseException], BaseException, TracebackType | None]

_THREADS = 10


def make_environ(scope: Scope, body: io.BufferedIOBase) -> dict[str, Any]:
    """The WSGI environment of the http `scope`, with `body` as wsgi.input.

    Headers whose names contain an underscore are left out: in the environment they would pass for others with a dash.
    """
    root_path = _latin1(scope.get("root_path", ""))
    path = _latin1(scope["path"])
    server = scope.get("server") or ("localhost", 80)
    environ: dict[str, Any] = {
        "REQUEST_METHOD": scope["method"],
        "SCRIPT_NAME": root_path,
        "PATH_INFO": path.removeprefix(root_path),
        "QUERY_STRING": scope["query_string"].decode("latin-1"),
        "SERVER_PROTOCOL": f"HTTP/{scope['http_version']}",
        "SERVER_NAME": server[0],
        "SERVER_PORT": str(server[1] if server[1] is not None else ""),
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scope.get("scheme", "http"),
        "wsgi.input": body,
        "wsgi.input_terminated": True,
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }
    client = scope.get("client")
    if client is not None:
        environ["REMOTE_ADDR"] = client[0]
        environ["REMOTE_PORT"] = str(client[1])
    for name, value in scope["headers"]:
        if b"_" in name:
            continue
        key = name.decode("latin-1").upper().replace("-", "_")
        if key not in ("CONTENT_TYPE", "CONTENT_LENGTH"):
            key = "HTTP_" + key
        text = value.decode("latin-1")
        if key in environ:
            text = environ[key] + ("; " if key == "HTTP_COOKIE" else ",") + text
        environ[key] = text
    return environ


def _latin1(text: str) -> str:
    """The UTF-8 bytes of `text` as PEP 3333 wants them: a str with one character a byte."""
    return text.encode("utf-8", "surrogateescape").decode("latin-1")


class _Bridge:
    """What the application's thread does on the loop: it waits there for one ASGI call at a time."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self.receive = receive
        self.send = send
        self.loop = asyncio.get_running_loop()
        self.abandoned = False

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work` on the loop and wait for it. Only for the application's thread."""
        if self.abandoned:
            work.close()
            raise ConnectionAbortedError("the request has been cancelled")
        return asyncio.run_coroutine_threadsafe(work, self.loop).result()

    def read(self) -> tuple[bytes, bool]:
        """The next piece of the body and whether more follow."""

        async def read() -> tuple[bytes, bool]:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                raise ConnectionResetError("the client is gone")
            return message.get("body", b""), message.get("more_body", False)

        return self.call(read())

    def write(self, *messages: dict[str, Any]) -> None:
        async def write() -> None:
            for message in messages:
                await self.send(message)

        self.call(write())


class _Body(io.RawIOBase):
    """The request's body: asks for the next piece only when the application reads on."""

    def __init__(self, bridge: _Bridge) -> None:
        self._bridge = bridge
        self._piece = memoryview(b"")
        self._more = True

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "WriteableBuffer", /) -> int:
        while not self._piece and self._more:
            piece, self._more = self._bridge.read()
            self._piece = memoryview(piece)
        target = memoryview(buffer).cast("B")
        count = min(len(target), len(self._piece))
        target[:count] = self._piece[:count]
        self._piece = self._piece[count:]
        return count


class _Response:
    """One call of the application, in its thread."""

    def __init__(self, bridge: _Bridge) -> None:
        self._bridge = bridge
        self._head: dict[str, Any] | None = None
        self._head_sent = False

    def start_response(
        self, status: str, headers: Iterable[tuple[str, str]], exc_info: ExcInfo | None = None
    ) -> Callable[[bytes], None]:
        """PEP 3333: the head is kept until the first byte of the body, so that an error can replace it."""
        try:
            if exc_info is not None and self._head_sent:
                raise exc_info[1].with_traceback(exc_info[2])
            if exc_info is None and self._head is not None:
                raise AssertionError("start_response() was called before, and there is no exc_info")
        finally:
            exc_info = None
        self._head = {
            "type": "http.response.start",
            "status": int(status[:3]),
            "headers": [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers],
        }
        return self.write

    def write(self, data: bytes) -> None:
        if data:
            self._send(data, more=True)

    def _send(self, data: bytes, more: bool) -> None:
        if self._head is None:
            raise AssertionError("the application wrote before it called start_response()")
        body = {"type": "http.response.body", "body": data, "more_body": more}
        if self._head_sent:
            self._bridge.write(body)
        else:
            self._head_sent = True
            self._bridge.write(self._head, body)

    def run(self, app: WSGIApp, scope: Scope) -> None:
        body = io.BufferedReader(_Body(self._bridge))
        result = app(make_environ(scope, body), self.start_response)
        try:
            for data in result:
                self.write(data)
            self._send(b"", more=False)
        finally:
            close = getattr(result, "close", None)
            if close is not None:
                close()


class WSGIMiddleware:
    """ASGI application that calls `app`, one of WSGI, in threads. It has no lifespan and refuses WebSocket.

    Args:
        app: the WSGI application.
        threads: how many requests are answered at a time.
    """

    def __init__(self, app: WSGIApp, threads: int = _THREADS) -> None:
        self.app = app
        self.executor = concurrent.futures.ThreadPoolExecutor(threads, thread_name_prefix="bolide-wsgi")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close"})
            return
        if scope["type"] != "http":
            raise RuntimeError(f"a WSGI application has no {scope['type']!r}")
        bridge = _Bridge(receive, send)
        response = _Response(bridge)
        try:
            await bridge.loop.run_in_executor(self.executor, response.run, self.app, scope)
        finally:
            bridge.abandoned = True
