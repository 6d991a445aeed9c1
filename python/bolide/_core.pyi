"""Type stubs of the C core."""

import asyncio
import logging
import socket
import ssl
from collections.abc import Awaitable, Callable, Coroutine, Iterable, MutableMapping
from contextvars import Context
from typing import Any, Protocol, TypeVar, TypeVarTuple, final

__all__ = [
    "ClientDisconnected",
    "DatagramTransport",
    "Handle",
    "Loop",
    "SSLTransport",
    "Server",
    "StreamTransport",
    "TimerHandle",
]

_T = TypeVar("_T")
_Ts = TypeVarTuple("_Ts")

class _HasFileno(Protocol):
    def fileno(self) -> int: ...

# --- the loop -------------------------------------------------------------------------------------------------------

class Handle(asyncio.Handle):
    """A callback that the loop is to call, as asyncio.Handle."""

    def cancel(self) -> None:
        """Cancel the callback. Does nothing when it was cancelled or has run."""

    def cancelled(self) -> bool:
        """Whether the callback was cancelled."""

    def get_context(self) -> Context:
        """The contextvars.Context in which the callback runs."""

class TimerHandle(Handle, asyncio.TimerHandle):
    """A callback that the loop is to call at a time, as asyncio.TimerHandle."""

    def when(self) -> float:
        """The deadline, in seconds of loop.time()."""

class Loop:
    """The part of bolide.Loop that is in C; not for use on its own."""

    slow_callback_duration: float

    def call_soon(self, callback: Callable[[*_Ts], object], *args: *_Ts, context: Context | None = None) -> Handle:
        """Call callback(*args) on the next turn, in order of registration, in `context` or a copy of the current one.

        Raises:
            RuntimeError: the loop is closed.
        """

    def call_soon_threadsafe(
        self, callback: Callable[[*_Ts], object], *args: *_Ts, context: Context | None = None
    ) -> Handle:
        """call_soon() from any thread; wakes the loop."""

    def call_later(
        self, delay: float, callback: Callable[[*_Ts], object], *args: *_Ts, context: Context | None = None
    ) -> TimerHandle:
        """Call callback(*args) after `delay` seconds, never earlier."""

    def call_at(
        self, when: float, callback: Callable[[*_Ts], object], *args: *_Ts, context: Context | None = None
    ) -> TimerHandle:
        """Call callback(*args) at the time `when`, in seconds of time()."""

    def create_future(self) -> asyncio.Future[Any]:
        """A new asyncio.Future of this loop."""

    def create_task(self, coro: Coroutine[Any, Any, _T], **kwargs: Any) -> asyncio.Task[_T]:
        """Schedule a coroutine; the keywords (name, context, eager_start) are those of the running Python's Task."""

    def time(self) -> float:
        """The monotonic clock, in seconds."""

    def stop(self) -> None:
        """End run_forever() after the current turn."""

    def is_running(self) -> bool:
        """Whether run_forever() is at work."""

    def is_closed(self) -> bool:
        """Whether close() was called."""

    def add_reader(self, fd: int | _HasFileno, callback: Callable[[*_Ts], object], *args: *_Ts) -> None:
        """Call callback(*args) whenever `fd` is readable."""

    def add_writer(self, fd: int | _HasFileno, callback: Callable[[*_Ts], object], *args: *_Ts) -> None:
        """Call callback(*args) whenever `fd` is writable."""

    def remove_reader(self, fd: int | _HasFileno) -> bool:
        """Stop watching `fd` for reading; whether it was watched."""

    def remove_writer(self, fd: int | _HasFileno) -> bool:
        """Stop watching `fd` for writing; whether it was watched."""

    def _run(self) -> None: ...
    def _run_turn(self) -> None: ...
    def _check_turn(self) -> None: ...
    def _allow_nesting(self) -> None: ...
    def _close(self) -> None: ...
    def _after_fork(self) -> bool: ...
    def _check_closed(self) -> None: ...
    def _watched(self, fileobj: int | _HasFileno) -> int: ...
    def _is_resolved(self, sock: socket.socket, address: Any) -> bool: ...
    async def _sock_connect_resolved(self, sock: socket.socket, address: Any) -> None: ...
    def _listen(self, *args: Any) -> None: ...
    def _stop_listening(self, sock: socket.socket) -> None: ...
    def _make_tls_transport(self, *args: Any) -> SSLTransport: ...
    def _start_tls(self, *args: Any) -> None: ...

@final
class StreamTransport(asyncio.Transport):
    """The transport of a TCP or Unix stream connection."""

    max_size: int
    """The number of bytes that are read at once at most."""

@final
class SSLTransport(asyncio.Transport):
    """The transport of a TCP or Unix stream connection with TLS."""

    def get_read_buffer_size(self) -> int:
        """Bytes of TLS records that have come and wait to be decrypted."""

    def get_read_buffer_limits(self) -> tuple[int, int]:
        """The marks (low, high), in bytes."""

    def set_read_buffer_limits(self, high: float | None = None, low: float | None = None) -> None:
        """Set the marks for bytes that wait while reading is paused, of which there is never more than one read.

        Raises:
            ValueError: unless high >= low >= 0.
        """

@final
class DatagramTransport(asyncio.DatagramTransport):
    """The transport of a datagram endpoint."""

    max_size: int
    """The number of bytes of a datagram that are received at most."""

# --- the server -----------------------------------------------------------------------------------------------------

class ClientDisconnected(ConnectionError):
    """Raised by an ASGI `send()` once the application has been told of the disconnect, or the connection is broken.

    An OSError, as ASGI's HTTP spec 2.4 asks for.
    """

class AccessLog:
    """The usual lines of an access log, formatted in C; for the argument access_log of Server.

    Called, it gathers lines, and hands them over to `write`, at most ten milliseconds later or when they are many.

    Args:
        loop: whose call_later() is used.
        write: gets the lines.
        endings: what stands at the end of the line for each status: {200: b"200 OK\\n"}.

    Raises:
        TypeError: `endings` is of another type.
    """

    def __new__(
        cls, loop: asyncio.AbstractEventLoop, write: Callable[[bytes], object], endings: dict[int, bytes]
    ) -> AccessLog: ...
    def __call__(
        self, client: tuple[str, int] | None, method: str, target: str, http_version: str, status: int
    ) -> None: ...
    def flush(self) -> None: ...

class Server:
    """An HTTP/1.1 and WebSocket server for one ASGI 3.0 application on one running loop.

    It speaks to the sockets given to listen(). Everything but the constructor must be called in the thread of the loop.
    The constructor has glibc's malloc keep up to 16 MiB of freed memory at hand, unless the environment says otherwise
    (mallopt(3)).

    Args:
        loop: the bolide.Loop that serves.
        app: the ASGI 3.0 callable; nothing checks it before the first request.
        root_path: ASGI root_path; stands in front of every path.
        scheme: scope["scheme"].
        asgi_version: scope["asgi"]["version"].
        server_header: send `server: bolide` unless `headers` or the response has a server of its own.
        date_header: send `date` unless the response has one of its own.
        headers: (name, value) pairs of bytes put into every response.
        state: the lifespan state; every request gets a shallow copy as scope["state"]. None leaves the key out.
        access_log: called as access_log(client, method, target, http_version, status) when a response starts; `client`
            is scope["client"], `target` the quoted path with the query. What it raises goes to the loop's exception
            handler.
        access_details: access_log is called when the response is complete instead, or nothing more will come of it,
            with four more arguments: seconds since the head of the request was complete, bytes of the response's body,
            scope["headers"], and the headers that the application sent (None: it started no response; the status is 0
            or 500 then).
        health_path: path, as it stands in the request, that GET and HEAD are answered for without the application: 200,
            or 503 after shutdown(). Such requests are neither logged nor counted, and limit_concurrency does not hold
            for them.
        pathsend: whether scope["extensions"] offers http.response.pathsend.
        logger: gets what goes wrong (application errors, invalid requests); None: logging.getLogger("bolide.error").
        forwarded: called with the scope, before the application, of a request that has x-forwarded-for or
            x-forwarded-proto (and of no other); may change it. What it raises ends the request with 500.
        tls_extension: makes scope["extensions"]["tls"], once a connection with TLS; None leaves it out.
        reset_contextvars: run each request in an empty contextvars.Context, not in a copy of the one current now.
        limit_concurrency: open connections or running requests from which on requests are answered with 503.
        limit_max_requests: after so many requests `on_max_requests` is called, once.
        on_max_requests: called without arguments, in the loop's thread.
        limit_request_head: bytes of a request line with its headers, answered with 431 beyond (414 for the target
            alone).
        limit_request_headers: number of header fields, answered with 431 beyond.
        limit_max_body: bytes of a request's body, answered with 413 beyond, before the application has seen more; None:
            no limit.
        limit_body_rate: bytes a second that a client must at least send of a body, on average over each
            timeout_request_body; 0: any number.
        timeout_request_body: seconds within which more of a request's body must come while the application waits for
            it; the answer is 408. None or 0: no bound.
        timeout_write: seconds within which a client must take some of the output that waits for it, or it is cut off.
            None or 0: no bound.
        timeout_keep_alive: seconds that a connection may be idle after a response.
        timeout_request_head: seconds from the first byte of a request (or from the accept) to the end of its headers.
        websockets: serve requests for a WebSocket as such; else the upgrade is ignored.
        ws_max_size: bytes of a message from the client, decompressed; closed with 1009 beyond.
        ws_max_queue: messages that wait for the application before nothing more is read.
        ws_ping_interval: seconds between the answer to a ping and the next one; None or 0: no pings.
        ws_ping_timeout: seconds to wait for the answer before the connection is closed with 1011; None or 0: for ever.
        ws_close_timeout: seconds to wait for the client's close frame while it reads nothing.
        ws_per_message_deflate: accept permessage-deflate (RFC 7692).

    Raises:
        TypeError, ValueError: an argument has the wrong type or is out of range.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        app: Callable[..., Awaitable[object]],
        *,
        root_path: str = "",
        scheme: str = "http",
        asgi_version: str = "3.0",
        server_header: bool = True,
        date_header: bool = True,
        headers: Iterable[tuple[bytes, bytes]] = (),
        state: MutableMapping[str, Any] | None = None,
        access_log: Callable[..., object] | None = None,
        logger: logging.Logger | None = None,
        forwarded: Callable[[MutableMapping[str, Any]], object] | None = None,
        tls_extension: Callable[[ssl.SSLObject], dict[str, Any]] | None = None,
        reset_contextvars: bool = False,
        limit_concurrency: int | None = None,
        limit_max_requests: int | None = None,
        on_max_requests: Callable[[], object] | None = None,
        limit_request_head: int = 131072,
        limit_request_headers: int = 256,
        timeout_keep_alive: float = 5.0,
        timeout_request_head: float = 60.0,
        limit_max_body: int | None = None,
        limit_body_rate: int = 0,
        timeout_request_body: float | None = 60.0,
        timeout_write: float | None = 60.0,
        access_details: bool = False,
        health_path: bytes | None = None,
        pathsend: bool = True,
        websockets: bool = True,
        ws_max_size: int = 16777216,
        ws_max_queue: int = 32,
        ws_ping_interval: float | None = 20.0,
        ws_ping_timeout: float | None = 20.0,
        ws_close_timeout: float = 10.0,
        ws_per_message_deflate: bool = True,
    ) -> None: ...
    def listen(self, sock: socket.socket, backlog: int = 2048, ssl_context: ssl.SSLContext | None = None) -> int:
        """Accept connections on `sock`, a bound TCP or Unix stream socket (listening already or not).

        Returns a number, for close_listeners().

        The descriptor is duplicated: `sock` stays the caller's, who may close it at once or later.

        Raises:
            OSError: the socket cannot listen. RuntimeError: shutdown() has been called.
        """

    def replace_ssl_context(self, ssl_context: ssl.SSLContext) -> None:
        """Use another context for the connections to come of all listeners that have TLS; those that are open go on."""

    @staticmethod
    def drop_syn(sock: socket.socket) -> bool:
        """Have the kernel ignore attempts to connect to `sock` that begin from now on, in all processes that have it.

        When the last descriptor of a listening socket is closed, the kernel resets the connections that nobody has
        accepted yet, though for their clients they are established. Once there can be no new ones, those that wait can
        be accepted, and the socket be closed. A client that tries in between repeats its attempt by itself and finds
        the port closed, or another process's socket.

        Returns whether the system can do that: Linux can, for TCP.
        """

    def close_listeners(self, number: int = 0, *, drain: bool = True) -> None:
        """Accept the connections that wait in the kernel's queue, then no more. Those that are open go on. Idempotent.

        Args:
            number: what listen() returned for the one listener to close; 0: all of them.
            drain: False: leave those that wait, to another process that has the socket or to be reset.
        """

    def end_keep_alive(self) -> None:
        """From now on connections close after the response they are at, and further requests on them are not started.
        Idle ones close after 0.1 seconds (fresh ones after 1) unless a request was on its way. Idempotent."""

    def shutdown(self) -> None:
        """Close gracefully: close_listeners() and end_keep_alive(), WebSockets with the code 1001. Idempotent."""

    def drop_connections(self) -> None:
        """Close as shutdown() does, and all connections now: requests go on, told that their clients are gone."""

    def abort(self) -> None:
        """Close by force: shutdown(), cancel the tasks of running requests, drop all connections. Idempotent."""

    def wait_closed(self) -> asyncio.Future[None]:
        """A future that is done once shutdown() has been called and no connection and no running request is left."""

    @property
    def connections(self) -> int:
        """Open connections."""

    @property
    def requests_running(self) -> int:
        """Requests whose application has not returned."""

    @property
    def total_requests(self) -> int:
        """Requests answered since the start."""
