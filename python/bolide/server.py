"""The life of a server: startup, serving until told to stop, graceful shutdown."""

import asyncio
import contextlib
import functools
import importlib.util
import logging
import os
import random
import signal
import socket
import sys
import threading
from collections.abc import Callable, Coroutine, Generator, Sequence
from types import FrameType
from typing import Any, Unpack

from bolide import _core, _runner
from bolide._types import Scope
from bolide.accesslog import make_access_log
from bolide.config import LOAD_FAILURE, STARTUP_FAILURE, Config, exit_with_error
from bolide.lifespan import Lifespan, LifespanOff
from bolide.logging import reopen_log_files, styled
from bolide.logqueue import queued_logs
from bolide.options import ServeOptions
from bolide.sockets import Address, BindError, Bound, unlink_unix
from bolide.systemd import Notifier, take_descriptors

__all__ = ["HANDLED_SIGNALS", "Server", "make_config", "run_as_process", "serve", "serve_config"]

HANDLED_SIGNALS = (signal.SIGINT, signal.SIGTERM)

# Seconds: idle connections are given this long to close before the log says that the server waits for them.
_QUIET_CLOSE = 0.3
# Seconds in which handshakes that have begun may end before a listening socket is closed.
_LAST_HANDSHAKES = 0.05
# Seconds that requests get to end after they were told that their clients are gone.
_TOLD_PATIENCE = 0.5
# Seconds that requests get to end after they have been cancelled, and then tasks that the application left running.
_REQUEST_PATIENCE = 2.0
_TASK_PATIENCE = 5.0
# Seconds instead of both when the stop is forced.
_FORCED_PATIENCE = 0.5

logger = logging.getLogger("bolide.error")


class Listener:
    """Where a server listens.

    Attributes:
        sockets: the listening sockets, one; for getsockname() and the like.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.sockets = (sock,)


class Server:
    """A server for one configuration; serves once.

    Attributes:
        config: the configuration.
        started: whether the server has begun to accept connections. Stays True when it has stopped.
        servers: the listeners, once started; `servers[0].sockets[0].getsockname()` tells the port.
        lifespan: the application's lifespan, once serve() has begun.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.started = False
        self.servers: list[Listener] = []
        self.lifespan: Lifespan | LifespanOff = LifespanOff(config)
        self._core: _core.Server | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._should_exit = False
        self._force_exit = False
        self._exit_event = asyncio.Event()
        self._force_event = asyncio.Event()
        self._captured_signals: list[int] = []
        self._original_handlers: dict[int, Any] = {}
        self._reraise_signals = True
        self._has_begun = False
        self._paths: list[tuple[str, int]] = []
        self._own_sockets: list[socket.socket] = []
        self._notifier = Notifier()
        self._access_log: Callable[..., None] | None = None

    @property
    def should_exit(self) -> bool:
        """Whether the server is to stop gracefully. May be set from any thread and from signal handlers."""
        return self._should_exit

    @should_exit.setter
    def should_exit(self, value: bool) -> None:
        self._should_exit = value
        self._wake()

    @property
    def force_exit(self) -> bool:
        """Whether the server is to stop without waiting. May be set from any thread and from signal handlers."""
        return self._force_exit

    @force_exit.setter
    def force_exit(self, value: bool) -> None:
        self._force_exit = value
        self._wake()

    @property
    def total_requests(self) -> int:
        """Requests answered since the start."""
        return self._core.total_requests if self._core is not None else 0

    @functools.cached_property
    def limit_max_requests(self) -> int | None:
        """The number of requests after which this server stops, its random part drawn once; None: no limit."""
        limit = self.config.limit_max_requests
        return None if limit is None else limit + random.randint(0, self.config.limit_max_requests_jitter)

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve on a loop of its own until told to stop; see serve().

        Raises:
            RuntimeError: a loop is running in this thread.
        """
        loop_factory = self.config.get_loop_factory()
        _runner.run(self.serve(sockets), loop_factory, lambda: _FORCED_PATIENCE if self.force_exit else _TASK_PATIENCE)

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve on the running loop, which must be bolide's, until should_exit is set or SIGINT or SIGTERM arrives.

        Signals are handled in the main thread only, and raised again once the server has stopped and the handlers
        before are back, so that the program around it hears them too. Cancelling stops the server without waiting for
        requests.

        Args:
            sockets: bound sockets to listen on in place of the configuration's address; they are closed at the end.

        Raises:
            RuntimeError: the running loop is not bolide's, or the server has served before.
            SystemExit: code 1: the application cannot be loaded or the address not be bound; 3: its startup failed.
        """
        loop = asyncio.get_running_loop()
        if not isinstance(loop, _core.Loop):
            raise RuntimeError(
                f"bolide.Server serves on bolide's event loop only, and the running one is {type(loop).__qualname__}: "
                "start it by bolide.run() or by asyncio.Runner(loop_factory=bolide.new_event_loop), or beside this "
                "loop by threading.Thread(target=server.run)"
            )
        if self._has_begun:
            raise RuntimeError("a bolide.Server serves once: make a new one")
        self._has_begun = True
        self._loop = loop
        try:
            with queued_logs(), self.capture_signals():
                await self._serve(sockets)
        finally:
            self._loop = None

    async def _serve(self, sockets: list[socket.socket] | None) -> None:
        self.config.load()
        self.lifespan = LifespanOff(self.config) if self._has_no_lifespan() else Lifespan(self.config)
        self._wake()
        self._log_process("Started server process")
        try:
            await self.startup(sockets)
            if not self.should_exit:
                await self.main_loop()
        except BaseException:
            await self._give_up(sockets)
            raise
        await self.shutdown(sockets)
        self._log_process("Finished server process")

    async def _give_up(self, sockets: list[socket.socket] | None) -> None:
        """Stop at once: the server was cancelled, or it could not start, or a callback raised."""
        if self.started:
            self.force_exit = True
            self._close_sockets(sockets, drain=False)
            await self._stop_core()
            await self.lifespan.shutdown()
        else:
            self._close_sockets(None, drain=False)

    def _has_no_lifespan(self) -> bool:
        return self.config.lifespan == "off" or self.config.interface == "wsgi"

    def _log_process(self, message: str) -> None:
        color_message = f"{message} [{styled('%d', 'cyan')}]"
        logger.info(f"{message} [%d]", os.getpid(), extra={"color_message": color_message})

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Bind, run the application's startup, and begin to accept connections.

        The address is bound first, so that a second server ends before its application has begun; connections are
        accepted only once the application is ready.

        Raises:
            SystemExit: code 1: the address cannot be bound; 3: the application's startup failed.
        """
        bound = await self._bind() if sockets is None else [(Address(fd=sock.fileno()), [sock]) for sock in sockets]
        self.servers = [Listener(sock) for _, of_address in bound for sock in of_address]
        if not await self._unless_forced(self.lifespan.startup()) or self.lifespan.should_exit:
            sys.exit(STARTUP_FAILURE)
        try:
            self._core = self._make_core()
            for address, of_address in bound:
                with address.explaining():
                    for sock in of_address:
                        self._core.listen(sock, self.config.backlog, self.config.ssl)
        except BindError as exc:
            await self._unless_forced(self.lifespan.shutdown())
            exit_with_error(exc, LOAD_FAILURE)
        if sockets is None:
            self.config.log_listening(bound)
        self.started = True
        self._notifier.ready()
        self._watch()

    def _watch(self) -> None:
        """Give the service manager a sign of life, now and as often as it wants: from the loop, whose life it is."""
        if self._notifier.watchdog is not None and self._loop is not None:
            self._notifier.alive()
            self._loop.call_later(self._notifier.watchdog, self._watch)

    async def _bind(self) -> Bound:
        config = self.config
        bound: Bound = []
        try:
            for address in config.addresses():
                infos = await self._resolve(address)
                bound.append((address, address.bind_all(config.uds_permissions, config.tcp_options, infos)))
                if address.fd is None:
                    self._own_sockets += bound[-1][1]
                if address.path is not None:
                    self._paths.append((address.path, os.stat(address.path).st_ino))
        except BindError as exc:
            for _, sockets in bound:
                for sock in sockets:
                    sock.close()
            self._close_sockets(None, drain=False)
            exit_with_error(exc, LOAD_FAILURE)
        return bound

    async def _resolve(self, address: Address) -> Sequence[Any]:
        if address.path is not None or address.fd is not None:
            return ()
        # A numeric address needs no thread to resolve it. In a process that has never had a second thread, the C
        # library does without locks.
        infos = address.numeric_infos()
        if infos is None:
            with address.explaining():
                infos = await asyncio.get_running_loop().run_in_executor(None, address.infos)
        return infos

    def _make_core(self) -> _core.Server:
        config = self.config
        assert config.loaded_app is not None and self._loop is not None
        self._access_log, details = make_access_log(
            self._loop, config.access_log, config.log_format, config.access_log_format
        )
        limits: dict[str, Any] = {}
        if config.h11_max_incomplete_event_size is not None:
            limits["limit_request_head"] = config.h11_max_incomplete_event_size
        return _core.Server(
            self._loop,
            config.loaded_app,
            root_path=config.root_path,
            scheme="https" if config.is_ssl else "http",
            asgi_version=config.asgi_version,
            server_header=config.server_header,
            date_header=config.date_header,
            headers=config.encoded_headers,
            state=self.lifespan.state,
            access_log=self._access_log,
            access_details=details,
            logger=logger,
            forwarded=_proxy_headers(config),
            tls_extension=config.tls_extension,
            reset_contextvars=config.reset_contextvars,
            limit_concurrency=config.limit_concurrency,
            limit_max_requests=self.limit_max_requests,
            on_max_requests=self._on_max_requests,
            timeout_keep_alive=float(config.timeout_keep_alive),
            websockets=config.ws != "none",
            limit_max_body=config.limit_max_body,
            limit_body_rate=config.limit_body_rate,
            limit_request_headers=config.limit_request_headers,
            timeout_request_head=float(config.timeout_request_head),
            timeout_request_body=float(config.timeout_request_body),
            timeout_write=float(config.timeout_write),
            ws_max_size=config.ws_max_size,
            ws_max_queue=config.ws_max_queue,
            ws_ping_interval=config.ws_ping_interval,
            ws_ping_timeout=config.ws_ping_timeout,
            ws_per_message_deflate=config.ws_per_message_deflate,
            health_path=None if config.health_path is None else config.health_path.encode(),
            pathsend=config.pathsend,
            **limits,
        )

    def reload_certificates(self) -> None:
        """Read the files of the ssl_* options again, for the connections to come. SIGHUP does it.

        What is wrong with them is logged, and the server goes on with what it has. Connections that are open go on
        undisturbed either way.
        """
        self._notifier.reloading()
        try:
            self.config.load_ssl()
        except Exception as exc:
            logger.error("The certificates could not be reloaded and stay as they were: %s", exc)
            return
        finally:
            self._notifier.ready()
        if self._core is not None and self.config.ssl is not None:
            self._core.replace_ssl_context(self.config.ssl)
        logger.info("Reloaded the certificates")

    def _on_max_requests(self) -> None:
        self._log_max_requests()
        self.should_exit = True

    def _log_max_requests(self) -> None:
        logger.info("Maximum request limit of %d exceeded. Terminating process.", self.limit_max_requests)

    async def main_loop(self) -> None:
        """Wait until should_exit is set, calling config.callback_notify now and then if there is one."""
        if self.config.callback_notify is None:
            await self._exit_event.wait()
            return
        while not self.should_exit:
            await self.config.callback_notify()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._exit_event.wait(), self.config.timeout_notify)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop accepting, wait for the connections and requests that run, then run the application's shutdown.

        The wait ends after config.timeout_graceful_shutdown seconds, or when force_exit is set; then the requests that
        still run are cancelled and their connections dropped.

        Args:
            sockets: those that were given to startup(); closed here.
        """
        if self._core is not None:
            self._core.end_keep_alive()
        logger.info("Shutting down")
        self._notifier.stopping()
        try:
            await self._turn_away()
        finally:
            self._close_sockets(sockets, drain=not self.force_exit)
        await self._stop_core()
        if not self.force_exit:
            await self._unless_forced(self.lifespan.shutdown())

    async def _stop_core(self) -> None:
        core = self._core
        if core is None:
            return
        core.shutdown()
        closed = core.wait_closed()
        if not await self._wait_closed(closed):
            if not self.force_exit:
                # Those that wait for their clients learn that these are gone, and may end by themselves.
                core.drop_connections()
                await asyncio.wait([closed], timeout=_TOLD_PATIENCE)
            running = core.requests_running
            if running and not self.force_exit:
                logger.error("Cancel %s running task(s), timeout graceful shutdown exceeded", running)
            core.abort()
            await asyncio.wait([closed], timeout=_FORCED_PATIENCE if self.force_exit else _REQUEST_PATIENCE)
            if core.requests_running:
                logger.warning("%d request(s) go on after their cancellation", core.requests_running)
        if isinstance(self._access_log, _core.AccessLog):
            self._access_log.flush()

    async def _wait_closed(self, closed: asyncio.Future[None]) -> bool:
        """Whether `closed` was done within the time that graceful shutdown has."""
        timeout = self.config.timeout_graceful_shutdown
        if self.force_exit or timeout == 0:
            return closed.done()
        forced = asyncio.ensure_future(self._force_event.wait())
        waited: list[asyncio.Future[Any]] = [closed, forced]
        try:
            quiet = _QUIET_CLOSE if timeout is None else min(_QUIET_CLOSE, timeout)
            done, _ = await asyncio.wait(waited, timeout=quiet, return_when=asyncio.FIRST_COMPLETED)
            if not done:
                what = "connections to close" if self._core and self._core.connections else "requests to complete"
                logger.info("Waiting for %s. (CTRL+C to force quit)", what)
                rest = None if timeout is None else timeout - quiet
                await asyncio.wait(waited, timeout=rest, return_when=asyncio.FIRST_COMPLETED)
        finally:
            forced.cancel()
        return closed.done()

    async def _unless_forced(self, work: Coroutine[Any, Any, None]) -> bool:
        """Run `work` until it ends or force_exit is set; whether it ended."""
        task = asyncio.ensure_future(work)
        forced = asyncio.ensure_future(self._force_event.wait())
        try:
            await asyncio.wait([task, forced], return_when=asyncio.FIRST_COMPLETED)
        finally:
            forced.cancel()
            if not task.done():
                task.cancel()
        if task.done():
            await task
            return True
        return False

    async def _turn_away(self) -> None:
        """Let no new connections begin on the sockets bound here, and those that have begun on any socket be made."""
        while self._paths:
            unlink_unix(*self._paths.pop())
        for sock in self._own_sockets:
            if sock.fileno() >= 0:
                _core.Server.drop_syn(sock)
        if any(listener.sockets[0].family != socket.AF_UNIX for listener in self.servers):
            await self._unless_forced(asyncio.sleep(_LAST_HANDSHAKES))

    def _close_sockets(self, given: Sequence[socket.socket] | None, drain: bool) -> None:
        """Close the listening sockets: those bound here, and those `given` to serve().

        `drain`: once the connections that wait in their queues are accepted; otherwise these are reset, unless another
        process has the socket.
        """
        if self._core is not None:
            self._core.close_listeners(drain=drain)
        while self._paths:
            unlink_unix(*self._paths.pop())
        for listener in self.servers:
            listener.sockets[0].close()
        for sock in given or ():
            sock.close()

    def _wake(self) -> None:
        """Make the waits of the loop see should_exit and force_exit."""
        loop = self._loop
        if loop is not None and (self._should_exit or self._force_exit):
            # The loop may have been closed meanwhile, in its own thread.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(self._set_events)

    def _set_events(self) -> None:
        if not self._exit_event.is_set() and not self.started and self._captured_signals:
            logger.info("Stopping after the startup. (CTRL+C to force quit)")
        self._exit_event.set()
        if self._force_exit:
            self._force_event.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Context in which SIGINT and SIGTERM stop the server; at its end they are raised again for whoever was before.

        In another thread than the main one it does nothing.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        self.install_signal_handlers()
        try:
            yield
        finally:
            for number, handler in self._original_handlers.items():
                signal.signal(number, handler)
            self._original_handlers.clear()
        if self._reraise_signals:
            for number in reversed(self._captured_signals):
                signal.raise_signal(number)

    def install_signal_handlers(self) -> None:
        """Make handle_exit() the handler of SIGINT and SIGTERM. A subclass may override it to leave signals alone."""
        for number in HANDLED_SIGNALS:
            self._original_handlers[number] = signal.signal(number, self.handle_exit)
        # Where hang-ups are ignored (nohup, a supervisor's worker), they stay so.
        if self.config.is_ssl and hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
            self._original_handlers[signal.SIGHUP] = signal.signal(signal.SIGHUP, self._handle_hangup)

    def _handle_hangup(self, sig: int, frame: FrameType | None) -> None:
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self.reload_certificates)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Signal handler: the first signal asks for a graceful stop, SIGINT after that for an immediate one."""
        self._captured_signals.append(sig)
        if self._should_exit and sig == signal.SIGINT:
            self.force_exit = True
        else:
            self.should_exit = True


def _proxy_headers(config: Config) -> Callable[[Scope], None] | None:
    """What the core calls with the scope of a request that has X-Forwarded-* headers."""
    if not config.proxy_headers:
        return None
    from bolide.middleware.proxy_headers import TrustedHosts, apply_proxy_headers

    return functools.partial(apply_proxy_headers, TrustedHosts(config.forwarded_allow_ips))


def make_config(app: Callable[..., Any] | str, app_dir: str | None = None, **options: Any) -> Config:
    """The configuration of `options`, with `app_dir` put in front of sys.path."""
    if app_dir is not None:
        sys.path.insert(0, os.path.abspath(app_dir))
    return Config(app, **options)


def serve_config(config: Config) -> None:
    """Serve `config` until told to stop; see serve(). Sockets that systemd has handed over are listened on instead."""
    inherited = take_descriptors()
    if inherited:
        config.bind = [f"fd://{fd}" for fd in inherited]
    if config.use_subprocess:
        _serve_in_subprocesses(config)
    else:
        server = Server(config)
        server._notifier = Notifier.from_environment()
        run_as_process(server)


def _serve_in_subprocesses(config: Config) -> None:
    if not isinstance(config.app, str):
        exit_with_error("Pass the application as an import string to have workers or reload.", LOAD_FAILURE)
    package = config.app.partition(":")[0].partition(".")[0]
    # One line from here instead of one from each worker; whether the rest of the name exists, they will see.
    if not package or importlib.util.find_spec(package) is None:
        config.load_app()
    if config.should_reload:
        from bolide.reload import Reloader

        code = Reloader(config).run()
    else:
        from bolide.supervisor import Supervisor

        code = Supervisor(config).run()
    if code:
        sys.exit(code)


def run_as_process(server: Server, sockets: list[socket.socket] | None = None) -> None:
    """Run `server` as what this process is there for: SIGINT and SIGTERM end it, SIGUSR1 reopens the log files.

    Args:
        server: what to run.
        sockets: see Server.serve().

    Raises:
        SystemExit: see serve().
    """
    # Reopening takes the handlers' locks, which the code that the signal interrupts may hold.
    signal.signal(signal.SIGUSR1, lambda number, frame: threading.Thread(target=reopen_log_files).start())
    # Before any loop runs, so that a module may use asyncio.run() as it is imported.
    server.config.load_app()
    server._reraise_signals = False
    server.run(sockets)
    if not server.started or server.lifespan.should_exit:
        sys.exit(STARTUP_FAILURE)


def serve(app: Callable[..., Any] | str, **options: Unpack[ServeOptions]) -> None:
    """Serve `app` on a bolide loop of its own until SIGINT or SIGTERM stops it gracefully.

    Args:
        app: an ASGI callable, or an import string "module:attribute".
        options: the keyword arguments of bolide.Config, and app_dir, a folder to put in front of sys.path.

    Raises:
        SystemExit: code 1: the application cannot be loaded or the address not be bound; 3: its startup or shutdown
            failed.
        UnsupportedOptionError, ValueError, OSError: as bolide.Config.
        RuntimeError: a loop is running in this thread: await bolide.Server(config).serve() there.
    """
    serve_config(make_config(app, **options))
