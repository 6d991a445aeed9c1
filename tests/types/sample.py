"""A program that uses all of bolide's public API, for type checkers: it is checked, not run.

assert_type() states what a checker must make of an expression; `make types` holds mypy and pyright to that.
"""

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, MutableMapping
from contextvars import Context, copy_context
from typing import Any, assert_type

import bolide
from bolide.config import UnsupportedOptionError, resolve_interface
from bolide.importer import ImportFromStringError, import_from_string

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


# --- running --------------------------------------------------------------------------------------------------------


async def answer() -> int:
    """A coroutine of a known type."""
    return 42


def ways_to_run() -> None:
    assert_type(bolide.run(answer()), int)
    assert_type(bolide.run(answer(), debug=True), int)
    with asyncio.Runner(loop_factory=bolide.new_event_loop) as runner:
        assert_type(runner.run(answer()), int)
    with asyncio.Runner(loop_factory=bolide.Loop) as runner:
        assert_type(runner.get_loop(), asyncio.AbstractEventLoop)
    assert_type(bolide.new_event_loop(), bolide.Loop)
    assert_type(bolide.install(), None)
    policy = bolide.EventLoopPolicy()
    assert_type(policy.new_event_loop(), asyncio.AbstractEventLoop)
    assert_type(bolide.__version__, str)


class TracingLoop(bolide.Loop):
    """A subclass."""

    def run_forever(self) -> None:
        print("running")
        super().run_forever()

    def time(self) -> float:
        return super().time() + 1


# --- the loop -------------------------------------------------------------------------------------------------------


def add(first: int, second: int) -> int:
    return first + second


def schedule(loop: bolide.Loop) -> None:
    assert_type(loop.call_soon(add, 1, 2), bolide.Handle)
    assert_type(loop.call_soon(print, "x", context=copy_context()), bolide.Handle)
    assert_type(loop.call_soon_threadsafe(add, 1, 2), bolide.Handle)
    timer = loop.call_later(0.5, add, 1, 2)
    assert_type(timer, bolide.TimerHandle)
    assert_type(timer.when(), float)
    assert_type(timer.cancel(), None)
    assert_type(timer.cancelled(), bool)
    assert_type(loop.call_at(loop.time() + 1, add, 1, 2).get_context(), Context)
    assert_type(loop.create_future(), asyncio.Future[Any])
    assert_type(loop.create_task(answer(), name="answer"), asyncio.Task[int])
    assert_type(loop.is_running(), bool)
    assert_type(loop.is_closed(), bool)
    assert_type(loop.get_debug(), bool)
    loop.slow_callback_duration = 0.2
    loop.set_debug(False)
    loop.set_task_factory(None)
    loop.set_exception_handler(lambda _, context: print(context["message"]))
    loop.stop()
    loop.close()


def watch(loop: bolide.Loop, sock: socket.socket) -> None:
    loop.add_reader(sock, add, 1, 2)
    loop.add_writer(sock.fileno(), add, 1, 2)
    assert_type(loop.remove_reader(sock), bool)
    assert_type(loop.remove_writer(sock.fileno()), bool)
    loop.add_signal_handler(15, print, "stop")
    assert_type(loop.remove_signal_handler(15), bool)


class Echo(asyncio.Protocol):
    """A protocol."""

    transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


async def network(loop: bolide.Loop, context: ssl.SSLContext, sock: socket.socket) -> None:
    server = await loop.create_server(Echo, ["127.0.0.1", "::1"], 0, reuse_port=True, backlog=10)
    assert_type(server, asyncio.Server)
    transport, protocol = await loop.create_connection(Echo, "localhost", 80, ssl=context)
    assert_type(transport, asyncio.Transport)
    assert_type(protocol, Echo)
    if isinstance(transport, bolide.StreamTransport):
        assert_type(transport.get_write_buffer_size(), int)
    await loop.start_tls(transport, protocol, context, server_hostname="localhost")
    await loop.create_unix_server(Echo, "/tmp/socket")
    await loop.create_unix_connection(Echo, "/tmp/socket")
    await loop.create_datagram_endpoint(asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0))
    await loop.connect_accepted_socket(Echo, sock)
    assert_type(await loop.sock_recv(sock, 10), bytes)
    assert_type(await loop.sock_recv_into(sock, bytearray(10)), int)
    await loop.sock_sendall(sock, b"x")
    await loop.sock_connect(sock, ("127.0.0.1", 80))
    accepted, _ = await loop.sock_accept(sock)
    assert_type(accepted, socket.socket)
    with open("/dev/null", "rb") as file:
        assert_type(await loop.sock_sendfile(sock, file, 0, None, fallback=False), int)
        await loop.sendfile(transport, file)
    await loop.getaddrinfo("localhost", 80, type=socket.SOCK_STREAM)
    assert_type(await loop.getnameinfo(("127.0.0.1", 80)), tuple[str, str])
    assert_type(await loop.run_in_executor(None, add, 1, 2), int)
    await loop.subprocess_exec(asyncio.SubprocessProtocol, "true")
    await loop.shutdown_asyncgens()
    await loop.shutdown_default_executor()


# --- the server -----------------------------------------------------------------------------------------------------


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """An ASGI application."""
    assert scope["type"] == "http"
    await receive()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"hello"})


def ways_to_serve() -> None:
    assert_type(bolide.serve(app, host="127.0.0.1", port=8000, log_level="warning"), None)
    assert_type(bolide.run(app, port=8000), None)
    assert_type(bolide.run("main:app", workers=4), None)
    assert_type(bolide.serve("main:app", workers=4, reload=False), None)
    bolide.serve(app, ssl_certfile="cert.pem", ssl_keyfile="key.pem", root_path="/api", headers=[("a", "b")])
    config = bolide.Config(app, host="127.0.0.1", port=0, lifespan="off", access_log=False)
    server = bolide.Server(config)
    assert_type(server.run(), None)
    assert_type(server.should_exit, bool)
    server.should_exit = True
    assert_type(server.total_requests, int)
    assert_type(resolve_interface(app) == "asgi3", bool)
    try:
        import_from_string("main:app")
    except (ImportFromStringError, UnsupportedOptionError) as error:
        print(error)


async def embed(config: bolide.Config, sock: socket.socket) -> None:
    server = bolide.Server(config)
    task = asyncio.create_task(server.serve(sockets=[sock]))
    server.should_exit = True
    await task
