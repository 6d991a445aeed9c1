"""Type stubs of the C core."""

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

__all__ = ["ClientDisconnected", "Server"]

class ClientDisconnected(ConnectionError):
    """Raised by an ASGI `send()` once the application has been told of the disconnect, or the connection is broken.

    An OSError, as ASGI's HTTP spec 2.4 asks for.
    """

class Server:
    """An HTTP/1.1 server for one ASGI 3.0 application on one running loop; it speaks to the sockets given to listen().

    Everything but the constructor must be called in the thread of the loop.

    Args:
        loop: the bolide.Loop that serves.
        app: the ASGI 3.0 callable; nothing checks it before the first request.
        root_path: ASGI root_path; stands in front of every path.
        server_header: send `server: bolide` unless `headers` or the response has a server of its own.
        date_header: send `date` unless the response has one of its own.
        headers: (name, value) pairs of bytes put into every response.
        state: the lifespan state; every request gets a shallow copy as scope["state"]. None leaves the key out.
        access_log: called as access_log(client, method, target, http_version, status) when a response starts; `client` is
            scope["client"], `target` the quoted path with the query. What it raises goes to the loop's exception handler.
        logger: gets what goes wrong (application errors, invalid requests); None: logging.getLogger("bolide.error").
        limit_concurrency: open connections or running requests from which on requests are answered with 503.
        limit_max_requests: after so many requests `on_max_requests` is called, once.
        on_max_requests: called without arguments, in the loop's thread.
        limit_request_head: bytes of a request line with its headers, answered with 431 beyond (414 for the target alone).
        limit_request_headers: number of header fields, answered with 431 beyond.
        timeout_keep_alive: seconds that a connection may be idle after a response.
        timeout_request_head: seconds from the first byte of a request (or from the accept) to the end of its headers.

    Raises:
        TypeError, ValueError: an argument has the wrong type or is out of range.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        app: Callable[..., Awaitable[object]],
        *,
        root_path: str = "",
        server_header: bool = True,
        date_header: bool = True,
        headers: Iterable[tuple[bytes, bytes]] = (),
        state: MutableMapping[str, Any] | None = None,
        access_log: Callable[[tuple[str, int] | None, str, str, str, int], object] | None = None,
        logger: logging.Logger | None = None,
        limit_concurrency: int | None = None,
        limit_max_requests: int | None = None,
        on_max_requests: Callable[[], object] | None = None,
        limit_request_head: int = 131072,
        limit_request_headers: int = 256,
        timeout_keep_alive: float = 5.0,
        timeout_request_head: float = 60.0,
    ) -> None: ...
    def listen(self, sock: socket.socket, backlog: int = 2048) -> None:
        """Accept connections on `sock`, a bound TCP or Unix stream socket (listening already or not).

        The descriptor is duplicated: `sock` stays the caller's, who may close it at once or later.

        Raises:
            OSError: the socket cannot listen. RuntimeError: shutdown() has been called.
        """

    def close_listeners(self) -> None:
        """Accept no more connections. Those that are open go on. Idempotent."""

    def shutdown(self) -> None:
        """Close gracefully: close the listeners and the idle connections; the others close after the response they are
        at, and further requests on them are not started. Idempotent."""

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
