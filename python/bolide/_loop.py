"""bolide.Loop and the ways to make it asyncio's loop.

What is hot lives in C (`_core.Loop`), which comes first in the method resolution order. The rest (address resolution,
happy eyeballs, servers, executors, exception handlers, ...) is the running CPython's own code, inherited: signatures,
errors and warnings are then those of the running version.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import os
import selectors
import signal
import socket
import sys
import threading
import weakref
from asyncio import base_events, constants, events, sslproto
from collections.abc import Awaitable, Callable, Coroutine, Generator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar, TypeVarTuple, Unpack, overload

from . import _children, _core, _nesting, _resolver

if TYPE_CHECKING:
    from .options import ServeOptions

__all__ = ["EventLoopPolicy", "Loop", "install", "new_event_loop", "run"]

_T = TypeVar("_T")
_Ts = TypeVarTuple("_Ts")


class _WatchedDescriptors:
    """What asyncio's own transports ask a selector for their repr: which events of a descriptor are watched."""

    def __init__(self, loop: Loop) -> None:
        self._loop = weakref.ref(loop)

    def get_key(self, fileobj: Any) -> selectors.SelectorKey:
        """The events watched of a descriptor. Raises KeyError when there are none."""
        loop = self._loop()
        events = loop._watched(fileobj) if loop is not None else 0
        if not events:
            raise KeyError(f"{fileobj!r} is not registered")
        return selectors.SelectorKey(fileobj, fileobj if isinstance(fileobj, int) else fileobj.fileno(), events, None)


class _KeptOpen:
    """A socket that is closed meanwhile stays open to the end of the block.

    Whoever waits for it would else wait for ever, on a descriptor that soon is another's.
    """

    __slots__ = ("_sock",)

    def __init__(self, sock: Any) -> None:
        self._sock = sock if isinstance(getattr(sock, "_io_refs", None), int) else None

    def __enter__(self) -> None:
        if self._sock is not None:
            self._sock._io_refs += 1

    def __exit__(self, *exc_info: object) -> None:
        if self._sock is not None:
            self._sock._decref_socketios()


class Loop(_core.Loop, asyncio.SelectorEventLoop):  # type: ignore[misc]
    """An asyncio event loop on libuv: every method of asyncio.AbstractEventLoop, as in the running CPython."""

    if TYPE_CHECKING:
        # asyncio's own, which its type stubs leave out.
        _csock: socket.socket
        _signal_handlers: dict[int, Any]
        _asyncgen_firstiter_hook: Any
        _asyncgen_finalizer_hook: Any
        _child_watcher_callback: Any
        _thread_id: int | None

        def _make_self_pipe(self) -> None: ...
        def _close_self_pipe(self) -> None: ...
        def _check_default_executor(self) -> None: ...
        def _getaddrinfo_debug(self, *args: Any) -> Any: ...
        def _set_coroutine_origin_tracking(self, enabled: bool) -> None: ...

    def __init__(self) -> None:
        self._own_sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        # The running CPython's own, for whatever it keeps on a loop; a real selector would have no work here.
        watched: Any = _WatchedDescriptors(self)
        super(_core.Loop, self).__init__(watched)
        self._resolver: ThreadPoolExecutor | None = None
        self._outer_wakeup_fd = -1  # that of before the run, to which the numbers of signals are passed on
        _open_loops.add(self)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} running={self.is_running()} closed={self.is_closed()} debug={self.get_debug()}>"

    # --- running ------------------------------------------------------------------------------------------------------

    def run_forever(self) -> None:
        """Run until stop() is called.

        Raises:
            RuntimeError: the loop is closed or running, or another loop runs in this thread.
        """
        self._check_closed()
        self._check_running()
        if _nesting.is_wanted():
            self._allow_nesting()
        self._set_coroutine_origin_tracking(self.get_debug())
        hooks = sys.get_asyncgen_hooks()
        wakeup_fd = self._claim_wakeup_fd()
        ours = self._csock.fileno()
        if wakeup_fd is not None and wakeup_fd != ours:
            self._outer_wakeup_fd = wakeup_fd
        try:
            sys.set_asyncgen_hooks(firstiter=self._asyncgen_firstiter_hook, finalizer=self._asyncgen_finalizer_hook)
            events._set_running_loop(self)
            self._run()
        finally:
            events._set_running_loop(None)
            self._set_coroutine_origin_tracking(False)
            sys.set_asyncgen_hooks(*hooks)
            if wakeup_fd is not None:
                self._give_wakeup_fd_back(wakeup_fd, ours)

    def _claim_wakeup_fd(self) -> int | None:
        """Let signals end a poll. Returns the descriptor that had this role, None outside the main thread."""
        if threading.current_thread() is not threading.main_thread():
            return None
        try:
            return signal.set_wakeup_fd(self._csock.fileno(), warn_on_full_buffer=False)
        except ValueError:  # a sub-interpreter
            return None

    def _give_wakeup_fd_back(self, before: int, ours: int) -> None:
        self._outer_wakeup_fd = -1
        if self._signal_handlers:
            return  # a signal between two runs is for the second, as in asyncio
        try:
            current = signal.set_wakeup_fd(before if before != ours else -1)
        except (ValueError, OSError):  # closed meanwhile
            current = signal.set_wakeup_fd(-1)
        if current != ours:  # somebody has asked for the signals during the run
            signal.set_wakeup_fd(current)

    def _process_self_data(self, data: bytes) -> None:
        if self._outer_wakeup_fd != -1:
            with contextlib.suppress(OSError):
                os.write(self._outer_wakeup_fd, data)
        super()._process_self_data(data)  # type: ignore[misc]

    def add_signal_handler(self, sig: int, callback: Callable[[*_Ts], Any], *args: *_Ts) -> None:
        """Call callback(*args) whenever the signal comes; see asyncio.loop.add_signal_handler."""
        super().add_signal_handler(sig, callback, *args)
        self._claim_wakeup_fd()  # which asyncio has done too, but so that each signal of a storm is complained of

    def remove_signal_handler(self, sig: int) -> bool:
        """Remove the handler of a signal; see asyncio.loop.remove_signal_handler."""
        removed: bool = super().remove_signal_handler(sig)
        if removed and self.is_running() and not self._signal_handlers:
            self._claim_wakeup_fd()
        return removed

    def _add_callback_signalsafe(self, handle: events.Handle) -> None:
        if not handle.cancelled():
            self.call_soon_threadsafe(handle._run)

    def _after_fork_in_child(self) -> None:
        """Part from everything that the kernel shares between this process and its parent."""
        if self._after_fork():
            self._close_self_pipe()
            self._make_self_pipe()
            self._default_executor = self._resolver = None  # their threads are in the parent alone

    # --- running within a callback ------------------------------------------------------------------------------------

    # nest_asyncio puts its own run_forever() and its kin on the class of a loop, and so on asyncio's, below this one,
    # which has none of the parts that they go through. What it is for, the loop does by itself once it was applied.

    @property
    def _nest_patched(self) -> bool:
        """By which nest_asyncio sees that this loop needs no patch, when it has patched asyncio."""
        if not _nesting.is_wanted():
            raise AttributeError(f"{type(self).__name__!r} object has no attribute '_nest_patched'")
        self._allow_nesting()
        return True

    def _check_running(self) -> None:
        base_events.BaseEventLoop._check_running(self)  # type: ignore[attr-defined]

    def run_until_complete(self, future: Generator[Any, None, _T] | Awaitable[_T]) -> _T:
        """Run until the future, or the coroutine as a task, is done; see asyncio.loop.run_until_complete.

        Returns:
            its result.

        Raises:
            RuntimeError: the loop is closed or running, or another loop runs in this thread (unless nest_asyncio was
                applied), or stop() was called before.
        """
        if _nesting.is_wanted() and events._get_running_loop() is not None:
            nested: _T = _nesting.run_nested(self, future)
            return nested
        return self._run_on_top(future)

    def _run_on_top(self, future: Generator[Any, None, _T] | Awaitable[_T]) -> _T:
        asyncios: Any = base_events.BaseEventLoop  # and not what was put on SelectorEventLoop
        result: _T = asyncios.run_until_complete(self, future)
        return result

    # --- closing ------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Close the loop and everything still open on it, without calling protocols. Idempotent.

        Raises:
            RuntimeError: the loop is running.
        """
        if self.is_running():
            raise RuntimeError("Cannot close a running event loop")
        if self.is_closed():
            return
        if sys.is_finalizing():
            self._signal_handlers.clear()
        for sig in list(self._signal_handlers):
            self.remove_signal_handler(sig)
        _open_loops.discard(self)
        self._close_self_pipe()
        self._selector = None
        base_events.BaseEventLoop.close(self)
        if sys.platform == "linux" and sys.version_info < (3, 14):
            _children.forget_children(self)
        if self._resolver is not None:
            self._resolver.shutdown(wait=False, cancel_futures=True)
        self._close()

    # --- subprocesses -------------------------------------------------------------------------------------------------

    if sys.platform == "linux" and sys.version_info < (3, 14):
        _child_watcher: Any = None

        async def _make_subprocess_transport(self, protocol: Any, args: Any, *options: Any, **kwargs: Any) -> Any:
            """As CPython 3.14, which has no child watchers: a pidfd, unless the user has set something else.

            What 3.12 and 3.13 do to ask for the watcher, which is deprecated, costs more than the pidfd, and changes
            the warning filters of all threads meanwhile.
            """
            watcher = _children.find_watcher(self)
            if watcher is None:
                return await super()._make_subprocess_transport(protocol, args, *options, **kwargs)  # type: ignore[misc]
            return await _children.start_child(self, watcher, protocol, args, *options, **kwargs)

    # --- servers and connections --------------------------------------------------------------------------------------

    # A transport takes over the descriptor of a socket that the loop has made itself. That of the user's, who may close
    # it at any time, is duplicated.

    async def _connect_sock(self, *args: Any, **kwargs: Any) -> socket.socket:
        try:
            sock: socket.socket = await super()._connect_sock(*args, **kwargs)  # type: ignore[misc]
        finally:
            del args, kwargs  # among them a list of what is raised: a cycle through this frame
        self._own_sockets.add(sock)
        return sock

    async def create_unix_connection(self, protocol_factory: Any, path: Any = None, **kwargs: Any) -> Any:
        """Connect to a Unix socket; see asyncio.loop.create_unix_connection."""
        if path is not None and kwargs.get("sock") is None:
            path = _own_path(os.fspath(path))
        return await super().create_unix_connection(protocol_factory, path, **kwargs)

    def _is_own_socket(self, sock: Any) -> bool:
        return type(sock) is socket.socket and sock in self._own_sockets

    def _take_own_socket(self, sock: Any) -> bool:
        if not self._is_own_socket(sock):
            return False
        self._own_sockets.discard(sock)
        return True

    def _start_serving(
        self,
        protocol_factory: Callable[[], asyncio.BaseProtocol],
        sock: socket.socket,
        sslcontext: Any = None,
        server: Any = None,
        backlog: int = 100,
        ssl_handshake_timeout: float | None = constants.SSL_HANDSHAKE_TIMEOUT,
        ssl_shutdown_timeout: float | None = constants.SSL_SHUTDOWN_TIMEOUT,
        context: contextvars.Context | None = None,
    ) -> None:
        if sslcontext is None:
            self._listen(sock, protocol_factory, backlog, server, context)
        else:
            timeouts = _tls_timeouts(ssl_handshake_timeout, ssl_shutdown_timeout)
            self._listen(sock, protocol_factory, backlog, server, context, sslcontext, *timeouts)

    def _stop_serving(self, sock: socket.socket) -> None:
        self._stop_listening(sock)
        super()._stop_serving(sock)  # type: ignore[misc]

    async def getaddrinfo(
        self,
        host: Any,
        port: Any,
        *,
        family: int = 0,
        type: int = 0,
        proto: int = 0,
        flags: int = 0,
    ) -> list[Any]:
        """Resolve an address; see asyncio.loop.getaddrinfo.

        A numeric one takes no thread; others are looked up in threads kept for that.
        """
        self._check_closed()
        self._check_default_executor()
        if self.get_debug():
            logged: list[Any] = await self._resolve(self._getaddrinfo_debug, host, port, family, type, proto, flags)
            return logged
        addresses: list[Any] | None = _resolver.resolve_numeric(host, port, family, type, proto, flags)
        if addresses is None:
            addresses = await self._resolve(socket.getaddrinfo, host, port, family, type, proto, flags)
        return addresses

    async def getnameinfo(self, sockaddr: Any, flags: int = 0) -> tuple[str, str]:
        """Look up the names of an address; see asyncio.loop.getnameinfo."""
        names: tuple[str, str] = await self._resolve(socket.getnameinfo, sockaddr, flags)
        return names

    async def _resolve(self, lookup: Callable[..., Any], *args: Any) -> Any:
        self._check_closed()
        self._check_default_executor()
        if self._resolver is None:
            self._resolver = _resolver.new_pool()
        return await self.run_in_executor(self._resolver, lookup, *args)

    async def sock_recvfrom(self, sock: socket.socket, bufsize: int) -> tuple[bytes, Any]:
        """Receive a datagram; see asyncio.loop.sock_recvfrom."""
        with _KeptOpen(sock):
            return await super().sock_recvfrom(sock, bufsize)

    async def sock_recvfrom_into(self, sock: socket.socket, buf: Any, nbytes: int = 0) -> tuple[int, Any]:
        """Receive a datagram into a buffer; see asyncio.loop.sock_recvfrom_into."""
        with _KeptOpen(sock):
            return await super().sock_recvfrom_into(sock, buf, nbytes)

    async def sock_sendto(self, sock: socket.socket, data: Any, address: Any) -> int:
        """Send a datagram; see asyncio.loop.sock_sendto."""
        with _KeptOpen(sock):
            return await super().sock_sendto(sock, data, address)

    async def sock_connect(self, sock: socket.socket, address: Any) -> None:
        """Connect a socket; see asyncio.loop.sock_connect."""
        if type(address) in _OWN_PATHS:
            self._own_sockets.add(sock)
        if self._is_resolved(sock, address):
            await self._sock_connect_resolved(sock, address)
            return
        with _KeptOpen(sock):
            await super().sock_connect(sock, address)

    async def sock_sendfile(
        self, sock: socket.socket, file: Any, offset: int = 0, count: int | None = None, *, fallback: bool | None = True
    ) -> int:
        """Send a file, with the kernel's help where it gives any; see asyncio.loop.sock_sendfile."""
        with _KeptOpen(sock):
            return await super().sock_sendfile(sock, file, offset, count, fallback=fallback)

    async def _sendfile_native(self, transp: Any, file: Any, offset: int, count: int | None) -> int:
        # The transport's descriptor stays with libuv; a duplicate of it is what sock_sendfile() waits on.
        is_flushed = transp._make_empty_waiter()  # raises, and leaves all as it is, while another one is at work
        reading = transp.is_reading()
        transp.pause_reading()
        try:
            await is_flushed
            with transp.get_extra_info("socket").dup() as sock:
                sock.setblocking(False)
                sent: int = await self.sock_sendfile(sock, file, offset, count, fallback=False)
                return sent
        finally:
            transp._reset_empty_waiter()
            if reading:
                transp.resume_reading()

    def _make_ssl_transport(
        self,
        rawsock: socket.socket,
        protocol: asyncio.BaseProtocol,
        sslcontext: Any,
        waiter: asyncio.Future[None] | None = None,
        *,
        server_side: bool = False,
        server_hostname: str | None = None,
        extra: dict[str, Any] | None = None,
        server: Any = None,
        ssl_handshake_timeout: float | None = constants.SSL_HANDSHAKE_TIMEOUT,
        ssl_shutdown_timeout: float | None = constants.SSL_SHUTDOWN_TIMEOUT,
        context: contextvars.Context | None = None,
    ) -> asyncio.Transport:
        timeouts = _tls_timeouts(ssl_handshake_timeout, ssl_shutdown_timeout)
        if not sslcontext:
            sslcontext = sslproto._create_transport_context(server_side, server_hostname)
        own = self._is_own_socket(rawsock)
        try:
            return self._make_tls_transport(
                rawsock, protocol, sslcontext, waiter, server_side, server_hostname, extra, server, *timeouts, context
            )
        except BaseException:
            if own and not self._is_own_socket(rawsock):
                rawsock.detach()  # the transport that has failed closes it; CPython 3.14 would do so once more
            raise

    async def start_tls(
        self,
        transport: Any,
        protocol: asyncio.BaseProtocol,
        sslcontext: Any,
        *,
        server_side: bool = False,
        server_hostname: str | None = None,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
    ) -> asyncio.Transport | None:
        """Put TLS on a connection; see asyncio.loop.start_tls.

        TLS within TLS, and transports of other makers, are the work of asyncio's own implementation.
        """
        # The context's class is looked up only if its module was imported: this needs no ssl module.
        ssl = sys.modules.get("ssl")
        is_ours = isinstance(transport, _core.StreamTransport)
        if not is_ours or ssl is None or not isinstance(sslcontext, ssl.SSLContext):
            return await super().start_tls(
                transport,
                protocol,
                sslcontext,
                server_side=server_side,
                server_hostname=server_hostname,
                ssl_handshake_timeout=ssl_handshake_timeout,
                ssl_shutdown_timeout=ssl_shutdown_timeout,
            )
        timeouts = _tls_timeouts(ssl_handshake_timeout, ssl_shutdown_timeout)
        waiter = self.create_future()
        ahead = _take_early_bytes(protocol) if server_side else b""
        try:
            self._start_tls(transport, protocol, sslcontext, waiter, server_side, server_hostname, *timeouts, ahead)
            await waiter
            upgraded: asyncio.Transport = transport
            return upgraded
        except BaseException:
            transport.close()
            raise
        finally:
            del waiter, transport, protocol  # what keeps the exception is reachable from its traceback: a cycle


_open_loops: weakref.WeakSet[Loop] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    loops = list(_open_loops)
    # Else a signal to this process would wake a loop of the parent, and be handled there (CPython 3.11).
    wakeup_fd = signal.set_wakeup_fd(-1)
    if wakeup_fd != -1 and all(wakeup_fd != loop._csock.fileno() for loop in loops):
        signal.set_wakeup_fd(wakeup_fd)
    for loop in loops:
        loop._after_fork_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


class _StrPath(str):
    """The path of a Unix socket that create_unix_connection() makes, by which sock_connect() tells it."""


class _BytesPath(bytes):
    """The same for bytes."""


_OWN_PATHS = (_StrPath, _BytesPath)


def _own_path(path: str | bytes) -> str | bytes:
    return _StrPath(path) if isinstance(path, str) else _BytesPath(path)


def _tls_timeouts(handshake: float | None, shutdown: float | None) -> tuple[float, float]:
    """Both in seconds, with asyncio's defaults for None and its ValueError for what is not positive."""
    if handshake is None:
        handshake = constants.SSL_HANDSHAKE_TIMEOUT
    elif handshake <= 0:
        raise ValueError(f"ssl_handshake_timeout should be a positive number, got {handshake}")
    if shutdown is None:
        shutdown = constants.SSL_SHUTDOWN_TIMEOUT
    elif shutdown <= 0:
        raise ValueError(f"ssl_shutdown_timeout should be a positive number, got {shutdown}")
    return handshake, shutdown


def _take_early_bytes(protocol: asyncio.BaseProtocol) -> bytes:
    """What an eager client sent after it asked for TLS, and a stream reader took in before the server started TLS.

    It is the client's hello. As plaintext it would be an attacker's way to smuggle in commands.
    """
    reader = getattr(protocol, "_stream_reader", None) if isinstance(protocol, asyncio.StreamReaderProtocol) else None
    buffer = getattr(reader, "_buffer", None)
    if not buffer:
        return b""
    early = bytes(buffer)
    buffer.clear()
    return early


def new_event_loop() -> Loop:
    """A new bolide.Loop. Use it as `asyncio.Runner(loop_factory=bolide.new_event_loop)`."""
    return Loop()


if sys.version_info < (3, 14):

    class EventLoopPolicy(asyncio.DefaultEventLoopPolicy):
        """asyncio's default policy with bolide's loop, for asyncio.set_event_loop_policy()."""

        def _loop_factory(self) -> Loop:
            return Loop()

    def install() -> None:
        """Make asyncio.run(), asyncio.new_event_loop() and their kin use bolide from here on."""
        asyncio.set_event_loop_policy(EventLoopPolicy())

else:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # policies are deprecated since 3.14; this is one
        from asyncio import events as _events

        class EventLoopPolicy(_events._BaseDefaultEventLoopPolicy):  # type: ignore[no-redef,misc,name-defined]
            """asyncio's default policy with bolide's loop. Policies go away in Python 3.16: prefer a loop factory."""

            def _loop_factory(self) -> Loop:
                return Loop()

    def install() -> None:
        """Make asyncio.run(), asyncio.new_event_loop() and their kin use bolide from here on."""
        _events._set_event_loop_policy(EventLoopPolicy())  # type: ignore[attr-defined]


@overload
def run(main: Coroutine[Any, Any, _T], *, debug: bool | None = None) -> _T: ...


@overload
def run(main: Callable[..., Any] | str, **options: Unpack[ServeOptions]) -> None: ...


def run(main: Any, *, debug: bool | None = None, **options: Any) -> Any:
    """Run a coroutine on a new bolide.Loop, as asyncio.run() does on asyncio's.

    Args:
        main: the coroutine. An ASGI application or its import string is served instead: see bolide.serve().
        debug: asyncio's debug mode; None keeps the default.
        options: arguments of bolide.serve(); with an application only.

    Returns:
        What the coroutine returns.

    Raises:
        RuntimeError: an event loop runs in this thread already.
        TypeError: there are options and no application.
    """
    if isinstance(main, str) or callable(main):
        from .server import serve

        return serve(main, **options)
    if options:
        if asyncio.iscoroutine(main):
            main.close()
        raise TypeError(f"run() of a coroutine takes no {', '.join(options)}")
    if events._get_running_loop() is not None:
        raise RuntimeError("bolide.run() cannot be called from a running event loop")
    with asyncio.Runner(debug=debug, loop_factory=new_event_loop) as runner:
        return runner.run(main)
