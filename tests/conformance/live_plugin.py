"""A pytest plugin that has Starlette's TestClient send its requests to a bolide server, over a socket.

The client itself, with its cookies and redirects, stays Starlette's: its transport is replaced. Each client gets a
server of its own at its first request, for the time of one test; inside `with client` the server runs the lifespan.
What the client makes up of the connection ("testclient", "testserver", a scheme of https without TLS) is put into the
scope; all else of it is the server's. WebSocket sessions stay in the process: a test of only those is not counted.
"""

import asyncio
import contextlib
import logging
import threading
from concurrent.futures import Future

import httpx2
import pytest
import starlette.testclient
from outcomes import Outcomes

import bolide
from bolide.lifespan import LifespanOff

# Seconds until a server, a request or an application that hangs is given up.
PATIENCE = 10.0
NUMBER, SCHEME, SERVER = b"x-live-number", b"x-live-scheme", b"x-live-server"

# How many requests the test has sent that runs now.
requests = [0]
running: list["LiveServer"] = []


class Loop:
    """bolide's loop in a thread."""

    def __init__(self) -> None:
        self.loop = bolide.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()

    def call(self, coroutine, timeout: float | None = PATIENCE):
        """The result of a coroutine that runs on it."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(timeout)


loops: list[Loop] = []


class Call:
    """What became of one call of the application."""

    def __init__(self) -> None:
        self.begun = False
        self.done = threading.Event()
        self.exception: BaseException | None = None


class LiveServer:
    """A server for one client."""

    def __init__(self, app, client: tuple[str, int], root_path: str, lifespan: bool) -> None:
        self.app = app
        self.client = client
        self.root_path = root_path
        self.calls: dict[bytes, Call] = {}
        self.lifespan_exception: BaseException | None = None
        config = bolide.Config(
            self.serve_app,
            port=0,
            lifespan="on" if lifespan else "off",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=1,
        )
        self.pool = httpx2.HTTPTransport()
        self.loop = loops[0]
        self.server = self.loop.call(self.make(config))
        self.ended: Future = asyncio.run_coroutine_threadsafe(self.run(), self.loop.loop)
        self.loop.call(self.wait_started())
        running.append(self)

    async def make(self, config) -> bolide.Server:
        return bolide.Server(config)

    async def run(self) -> None:
        with contextlib.suppress(SystemExit):
            await self.server.serve()

    async def wait_started(self) -> None:
        while not self.server.started and not self.ended.done():
            await asyncio.sleep(0.0005)

    def stop(self) -> None:
        """Stop the server and wait for its end."""
        if self in running:
            running.remove(self)
        self.pool.close()
        # Without a lifespan nothing is to be waited for.
        self.server.force_exit = isinstance(self.server.lifespan, LifespanOff)
        self.server.should_exit = True
        try:
            self.ended.result(PATIENCE)
        finally:
            self.server.force_exit = True

    @property
    def address(self) -> tuple[str, int]:
        return self.server.servers[0].sockets[0].getsockname()

    async def serve_app(self, scope, receive, send) -> None:
        """The application: tells the client what it raised."""
        if scope["type"] == "lifespan":
            try:
                await self.app(scope, receive, send)
            except BaseException as exc:
                self.lifespan_exception = exc
                raise
            return
        private = {name: value for name, value in scope["headers"] if name in (NUMBER, SCHEME, SERVER)}
        call = self.calls.setdefault(private[NUMBER], Call())
        call.begun = True
        host, port = private[SERVER].decode("latin-1").split(" ")
        scope["scheme"] = private[SCHEME].decode()
        scope["server"] = (host, int(port))
        scope["client"] = self.client
        scope["root_path"] = self.root_path
        scope["headers"] = [pair for pair in scope["headers"] if pair[0] not in private]
        try:
            await self.app(scope, receive, send)
        except BaseException as exc:
            call.exception = exc
            raise
        finally:
            call.done.set()


class LiveStream(httpx2.SyncByteStream):
    """The body of a response; at its end the application has ended, and what it raised is raised."""

    def __init__(self, stream, end) -> None:
        self.stream = stream
        self.end = end

    def __iter__(self):
        try:
            yield from self.stream
        except httpx2.HTTPError:
            self.stream.close()
            self.end()  # the application's exception is why the response ends early, if there is one
            raise

    def close(self) -> None:
        self.stream.close()
        self.end()


class LiveTransport(starlette.testclient._TestClientTransport):
    """In the place of the client's transport."""

    numbers = 0
    server: LiveServer | None = None

    def __init__(self, app, portal_factory, raise_server_exceptions, root_path, app_state, client) -> None:
        super().__init__(
            app,
            portal_factory=portal_factory,
            raise_server_exceptions=raise_server_exceptions,
            root_path=root_path,
            app_state=app_state,
            client=client,
        )
        self.app, self.root_path, self.client = app, root_path, client
        self.raise_server_exceptions = raise_server_exceptions

    def start(self, lifespan: bool) -> LiveServer:
        """Start the server."""
        self.server = LiveServer(self.app, self.client, self.root_path, lifespan)
        return self.server

    def handle_request(self, request):
        if request.url.scheme in ("ws", "wss"):
            return super().handle_request(request)
        requests[0] += 1
        if self.server is None or self.server not in running:
            self.start(lifespan=False)
        LiveTransport.numbers += 1
        number = b"%d" % LiveTransport.numbers
        call = self.server.calls.setdefault(number, Call())
        scheme, wanted = request.url.scheme, request.url.port
        if wanted is None:
            wanted = 443 if scheme == "https" else 80
        private = [
            (NUMBER, number),
            (SCHEME, scheme.encode()),
            (SERVER, b"%s %d" % (request.url.raw_host, wanted)),
        ]
        host, port = self.server.address
        sent = httpx2.Request(
            request.method,
            request.url.copy_with(scheme="http", host=host, port=port),
            headers=[*request.headers.raw, *private],
            stream=request.stream,
            extensions={"timeout": dict.fromkeys(("connect", "read", "write", "pool"), PATIENCE)},
        )
        ended = [False]

        def end() -> None:
            if ended[0]:
                return
            ended[0] = True
            # Not begun: the server has refused the request by itself, or the client has not sent it.
            assert not call.begun or call.done.wait(PATIENCE), "the application has not ended"
            if call.exception is not None and self.raise_server_exceptions:
                raise call.exception

        try:
            response = self.server.pool.handle_request(sent)
        except httpx2.HTTPError:
            end()
            raise
        response.stream = LiveStream(response.stream, end)
        return response


def enter(self):
    """In the place of TestClient.__enter__: the lifespan is the server's."""
    server = self._transport.start(lifespan=True)
    if server.ended.done():
        running.remove(server)
        raise server.lifespan_exception or AssertionError("the server did not start")
    self.app_state.update(server.server.lifespan.state)
    return self


def leave(self, *args) -> None:
    """In the place of TestClient.__exit__."""
    server = self._transport.server
    server.stop()
    if server.lifespan_exception is not None:
        raise server.lifespan_exception


@pytest.fixture
def anyio_backend():
    return "asyncio"


def install() -> None:
    """Before any test is imported."""
    loops.append(Loop())
    # What the server logs of an exception the client raises again.
    logging.getLogger("bolide.error").setLevel(logging.CRITICAL + 1)
    starlette.testclient._TestClientTransport = LiveTransport
    starlette.testclient.TestClient.__enter__ = enter
    starlette.testclient.TestClient.__exit__ = leave


install()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    # There is one server for both: a test that is run on either back end is run once.
    others = [item for item in items if "trio" in item.name.partition("[")[2]]
    config.hook.pytest_deselected(items=others)
    items[:] = [item for item in items if item not in set(others)]


@pytest.fixture(autouse=True)
def _stop_servers():
    requests[0] = 0
    before = list(running)
    yield
    for server in [server for server in running if server not in before]:
        server.stop()


def pytest_configure(config):
    config.pluginmanager.register(Outcomes(is_apart=lambda: not requests[0]))
