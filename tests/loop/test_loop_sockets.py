"""The sock_*() methods: operations on sockets of the user's."""

import asyncio
import contextlib
import io
import os
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support.loops import only_bolide, with_loop


def pair(kind: int = socket.SOCK_STREAM) -> tuple[socket.socket, socket.socket]:
    first, second = socket.socketpair(socket.AF_UNIX, kind)
    first.setblocking(False)
    second.setblocking(False)
    return first, second


def udp_socket() -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setblocking(False)
    sock.bind(("127.0.0.1", 0))
    return sock


@with_loop
async def test_recv_and_sendall():
    loop = asyncio.get_running_loop()
    first, second = pair()
    with first, second:
        waiting = asyncio.ensure_future(loop.sock_recv(second, 100))
        await asyncio.sleep(0)
        assert await loop.sock_sendall(first, b"hello") is None
        assert await waiting == b"hello"
        await loop.sock_sendall(first, bytearray(b"abc"))
        await loop.sock_sendall(first, memoryview(b"_def_")[1:4])
        assert await loop.sock_recv(second, 2) == b"ab"
        assert await loop.sock_recv(second, 100) == b"cdef"
        assert await loop.sock_recv(second, 0) == b""
        assert await loop.sock_recv_into(second, bytearray()) == 0
        assert await loop.sock_sendall(first, b"") is None
        first.close()
        assert await loop.sock_recv(second, 100) == b""


@with_loop
async def test_more_than_the_socket_takes():
    loop = asyncio.get_running_loop()
    first, second = pair()
    data = os.urandom(3_000_000)
    with first, second:
        sending = asyncio.ensure_future(loop.sock_sendall(first, data))
        received = bytearray()
        while len(received) < len(data):
            received += await loop.sock_recv(second, 1_000_000)
        await sending
        assert received == data


@with_loop
async def test_recv_into():
    loop = asyncio.get_running_loop()
    first, second = pair()
    with first, second:
        buffer = bytearray(b"........")
        waiting = asyncio.ensure_future(loop.sock_recv_into(second, memoryview(buffer)[2:5]))
        await asyncio.sleep(0)
        await loop.sock_sendall(first, b"abcdef")
        assert await waiting == 3
        assert buffer == b"..abc..."
        assert await loop.sock_recv_into(second, buffer) == 3
        with pytest.raises((TypeError, BufferError)):
            await loop.sock_recv_into(second, b"read-only")


@with_loop
async def test_datagrams():
    loop = asyncio.get_running_loop()
    with udp_socket() as first, udp_socket() as second:
        waiting = asyncio.ensure_future(loop.sock_recvfrom(second, 100))
        await asyncio.sleep(0)
        assert await loop.sock_sendto(first, b"one", second.getsockname()) == 3
        assert await waiting == (b"one", first.getsockname())
        buffer = bytearray(10)
        waiting = asyncio.ensure_future(loop.sock_recvfrom_into(second, buffer))
        await asyncio.sleep(0)
        await loop.sock_sendto(first, b"two", second.getsockname())
        assert await waiting == (3, first.getsockname())
        assert buffer[:3] == b"two"
        await loop.sock_sendto(first, b"three", second.getsockname())
        assert await loop.sock_recvfrom_into(second, buffer, 2) == (2, first.getsockname())
        assert buffer[:3] == b"tho"
        await loop.sock_sendto(first, b"four", second.getsockname())
        assert await loop.sock_recv(second, 100) == b"four"


@with_loop
async def test_connect_and_accept():
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        accepting = asyncio.ensure_future(loop.sock_accept(listener))
        await asyncio.sleep(0)
        with socket.socket() as client:
            client.setblocking(False)
            assert await loop.sock_connect(client, listener.getsockname()) is None
            accepted, address = await accepting
            with accepted:
                assert address == client.getsockname()
                assert accepted.gettimeout() == 0
                await loop.sock_sendall(client, b"x")
                assert await loop.sock_recv(accepted, 10) == b"x"
        with socket.socket() as client:
            client.setblocking(False)
            await loop.sock_connect(client, ("localhost", listener.getsockname()[1]))
            accepted, _ = await loop.sock_accept(listener)
            accepted.close()


@with_loop
async def test_connect_to_a_unix_socket(tmp_path: Path):
    loop = asyncio.get_running_loop()
    path = str(tmp_path / "listener")
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as client:
        listener.bind(path)
        listener.listen()
        client.setblocking(False)
        await loop.sock_connect(client, path)
        with pytest.raises(OSError):
            await loop.sock_connect(client, path)
    with socket.socket(socket.AF_UNIX) as client:
        client.setblocking(False)
        with pytest.raises(FileNotFoundError):
            await loop.sock_connect(client, str(tmp_path / "nobody"))


@with_loop
async def test_a_refused_connection_names_the_address():
    loop = asyncio.get_running_loop()
    with socket.socket() as closed, socket.socket() as client:
        closed.bind(("127.0.0.1", 0))
        client.setblocking(False)
        with pytest.raises(ConnectionRefusedError, match=str(closed.getsockname()[1])):
            await loop.sock_connect(client, closed.getsockname())


@pytest.mark.skipif(not socket.has_ipv6, reason="this machine has no IPv6")
@pytest.mark.parametrize("length", [2, 3, 4])
@with_loop
async def test_connect_over_ipv6(length: int):
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET6) as listener, socket.socket(socket.AF_INET6) as client:
        listener.bind(("::1", 0))
        client.setblocking(False)
        with pytest.raises(ConnectionRefusedError, match="::1"):
            await loop.sock_connect(client, listener.getsockname()[:length])
    with socket.socket(socket.AF_INET6) as client:
        client.setblocking(False)
        with pytest.raises(socket.gaierror):
            await loop.sock_connect(client, ("127.0.0.1", 80))


@with_loop
async def test_a_cancelled_connect_leaves_nothing_behind():
    """The backlog is full, so that the last one waits; then the descriptor is another's."""
    loop = asyncio.get_running_loop()
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        waiting: set[asyncio.Future[None]] = set()
        while not waiting:
            client = socket.socket()
            client.setblocking(False)
            connecting = asyncio.ensure_future(loop.sock_connect(client, listener.getsockname()))
            _, waiting = await asyncio.wait([connecting], timeout=0.2)
            if not waiting:
                stack.enter_context(client)
        number = client.fileno()
        await cancel(connecting)
        client.close()
        first, second = map(stack.enter_context, pair())
        assert number in (first.fileno(), second.fileno())
        await loop.sock_sendall(first, b"x")
        assert await loop.sock_recv(second, 10) == b"x"
        assert not loop.remove_writer(number)


@pytest.mark.parametrize("size", [0, 1, 100_000, 3_000_000])
@pytest.mark.parametrize("fallback", [True, False])
def test_sendfile(loop, tmp_path, size, fallback):
    path = tmp_path / "file"
    data = os.urandom(size)
    path.write_bytes(data)

    async def main():
        first, second = pair()
        with first, second, path.open("rb") as file:
            sending = asyncio.ensure_future(loop.sock_sendfile(first, file, fallback=fallback))
            received = bytearray()
            while len(received) < size:
                received += await loop.sock_recv(second, 1_000_000)
            assert await sending == size
            assert received == data
            assert file.tell() == size
            if size >= 100:
                assert await loop.sock_sendfile(first, file, 10, 20, fallback=fallback) == 20
                assert await loop.sock_recv(second, 100) == data[10:30]
                assert file.tell() == 30

    loop.run_until_complete(asyncio.wait_for(main(), 40))


def test_sendfile_of_what_is_no_file(loop):
    """The fallback reads and sends; without it there is an error."""

    async def main():
        first, second = pair()
        with first, second:
            assert await loop.sock_sendfile(first, io.BytesIO(b"abcdef"), 1, 3) == 3
            assert await loop.sock_recv(second, 100) == b"bcd"
            with pytest.raises(asyncio.SendfileNotAvailableError):
                await loop.sock_sendfile(first, io.BytesIO(b"abcdef"), fallback=False)
            with Path(__file__).open() as text, pytest.raises(ValueError, match="binary mode"):
                await loop.sock_sendfile(first, text)

    loop.run_until_complete(main())


OPERATIONS = {
    "sock_recv": lambda loop, sock: loop.sock_recv(sock, 10),
    "sock_recv_into": lambda loop, sock: loop.sock_recv_into(sock, bytearray(10)),
    "sock_recvfrom": lambda loop, sock: loop.sock_recvfrom(sock, 10),
    "sock_recvfrom_into": lambda loop, sock: loop.sock_recvfrom_into(sock, bytearray(10)),
    "sock_sendall": lambda loop, sock: loop.sock_sendall(sock, b"x" * 10_000_000),
}


@contextlib.asynccontextmanager
async def waiting(name: str) -> AsyncIterator[tuple[socket.socket, socket.socket, asyncio.Future]]:
    """A pair of sockets and an operation that waits on the second."""
    first, second = pair()
    with first, second:
        operation = asyncio.ensure_future(OPERATIONS[name](asyncio.get_running_loop(), second))
        await asyncio.sleep(0.001)
        yield first, second, operation


async def cancel(operation: asyncio.Future) -> None:
    operation.cancel()
    with pytest.raises(asyncio.CancelledError):
        await operation


@pytest.mark.parametrize("name", OPERATIONS)
@with_loop
async def test_cancelling(name):
    """What comes after that is for the next one."""
    async with waiting(name) as (first, second, operation):
        await cancel(operation)
        first.send(b"later")
        assert await asyncio.wait_for(asyncio.get_running_loop().sock_recv(second, 10), 20) == b"later"
        second.close()
        assert second.fileno() == -1


@only_bolide
@pytest.mark.parametrize("name", [name for name in OPERATIONS if name != "sock_sendall"])
@with_loop
async def test_a_socket_closed_while_an_operation_waits(name):
    """It is open until that ends, as one with a file of makefile(); in asyncio the operation waits for ever."""
    async with waiting(name) as (first, second, operation):
        second.close()
        assert second.fileno() != -1
        first.send(b"hello")
        assert await asyncio.wait_for(operation, 20) in (b"hello", 5, (b"hello", None), (5, None))
        assert second.fileno() == -1


@only_bolide
@pytest.mark.parametrize("name", OPERATIONS)
@with_loop
async def test_a_closed_socket_is_closed_when_the_operation_is_cancelled(name):
    async with waiting(name) as (_, second, operation):
        second.close()
        await cancel(operation)
        assert second.fileno() == -1


@only_bolide
def test_sockets_closed_while_connecting_and_accepting(loop):
    async def main():
        with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as client:
            listener.setblocking(False)
            client.setblocking(False)
            address = listener.getsockname()
            accepting = asyncio.ensure_future(loop.sock_accept(listener))
            connecting = asyncio.ensure_future(loop.sock_connect(client, address))
            loop.call_soon(listener.close)
            loop.call_soon(client.close)
            accepted, _ = await asyncio.wait_for(accepting, 20)
            accepted.close()
            await asyncio.wait_for(connecting, 20)
            assert listener.fileno() == client.fileno() == -1

    loop.run_until_complete(main())


@only_bolide
def test_a_closed_socket_is_closed_with_the_loop(loop):
    first, second = pair()
    with first:
        task = loop.create_task(loop.sock_recv(second, 10), name="waits for ever")
        loop.run_until_complete(asyncio.sleep(0.001))
        second.close()
        assert second.fileno() != -1
        loop.close()
        assert second.fileno() == -1
    task._log_destroy_pending = False


def test_two_operations_on_one_socket_each_way(loop):
    async def main():
        first, second = pair()
        with first, second:
            for _ in range(100):
                send, receive = loop.sock_sendall(first, b"ping"), loop.sock_recv(second, 4)
                back, answer = loop.sock_sendall(second, b"pong"), loop.sock_recv(first, 4)
                assert await asyncio.gather(send, receive, back, answer) == [None, b"ping", None, b"pong"]

    loop.run_until_complete(main())


def test_wrong_sockets(loop):
    """Blocking ones in debug mode, and those of the ssl module, are refused."""

    async def main():
        first, second = socket.socketpair()
        with first, second:
            for operation in OPERATIONS.values():
                with pytest.raises(ValueError, match="non-blocking"):
                    await operation(loop, first)
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            with context.wrap_socket(second, do_handshake_on_connect=False) as wrapped:
                wrapped.setblocking(False)
                for operation in OPERATIONS.values():
                    with pytest.raises(TypeError, match="SSLSocket"):
                        await operation(loop, wrapped)

    loop.set_debug(True)
    loop.run_until_complete(main())


def test_closed_sockets(loop):
    async def main():
        first, second = pair()
        first.close()
        second.close()
        for operation in OPERATIONS.values():
            with pytest.raises(OSError, match="Bad file descriptor"):
                await operation(loop, first)

    loop.run_until_complete(main())


def test_the_socket_of_a_transport_is_refused(loop):
    async def main():
        first, second = pair()
        with second:
            transport, _ = await loop.create_connection(asyncio.Protocol, sock=first)
            sock = transport.get_extra_info("socket")
            with pytest.raises((RuntimeError, TypeError, AttributeError)):
                await loop.sock_recv(sock, 10)
            transport.close()
            await asyncio.sleep(0)

    loop.run_until_complete(main())
