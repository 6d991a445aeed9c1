"""Arguments of the methods in C: by place or by name, odd ones too, as the running asyncio's own methods take them."""

import asyncio
import gc
import inspect
import socket

import pytest
from support.loops import new_event_loop, only_bolide, with_loop
from support.protocols import connected


def pair() -> tuple[socket.socket, socket.socket]:
    first, second = socket.socketpair()
    first.setblocking(False)
    second.setblocking(False)
    return first, second


@with_loop
async def test_sock_methods_take_names():
    loop = asyncio.get_running_loop()
    first, second = pair()
    with first, second:
        await loop.sock_sendall(sock=first, data=b"abcd")
        assert await loop.sock_recv(sock=second, n=2) == b"ab"
        buffer = bytearray(5)
        assert await loop.sock_recv_into(second, buf=buffer) == 2
        assert buffer[:2] == b"cd"


def test_watchers_take_names(loop):
    first, second = pair()
    with first, second:
        loop.add_reader(fd=first, callback=print)
        loop.add_writer(first, callback=loop.stop)
        loop.run_forever()
        assert loop.remove_reader(fd=first) is True
        assert loop.remove_writer(fd=first) is True
        assert loop.remove_writer(fd=first) is False


def test_scheduling_takes_names(loop):
    seen = []
    loop.call_soon(callback=lambda: seen.append(1))
    loop.call_soon_threadsafe(callback=lambda: seen.append(2))
    loop.call_later(delay=0, callback=lambda: seen.append(3))
    loop.call_at(when=loop.time(), callback=loop.stop)
    loop.run_forever()
    assert seen == [1, 2, 3]


@with_loop
async def test_transports_take_names():
    protocol, peer = await connected()
    transport = protocol.transport
    transport.set_protocol(protocol=protocol)
    transport.write(data=b"one ")
    transport.writelines(list_of_data=[b"two", b" three"])
    transport.write_eof()
    received = b""
    peer.settimeout(20)
    while piece := await asyncio.to_thread(peer.recv, 100):
        received += piece
    assert received == b"one two three"
    peer.close()
    await protocol.until_event("lost")


@pytest.mark.parametrize(
    ("name", "arguments", "keywords"),
    [
        ("sock_recv", (1,), {}),
        ("sock_recv", (1, 2, 3), {}),
        ("sock_recv", (1, 2), {"n": 3}),
        ("sock_recv", (1,), {"m": 3}),
        ("add_reader", (), {"fd": 0}),
        ("add_reader", (0,), {"fd": 0, "callback": print}),
        ("remove_writer", (), {}),
        ("remove_writer", (0, 1), {}),
        ("remove_writer", (0,), {"bogus": 1}),
    ],
)
def test_wrong_arguments(loop, name, arguments, keywords):
    with pytest.raises(TypeError, match=r"argument|takes"):
        getattr(loop, name)(*arguments, **keywords)


def test_negative_descriptors(loop):
    for method in (loop.add_reader, loop.add_writer):
        with pytest.raises(ValueError, match="Invalid file descriptor: -1"):
            method(-1, print)
    with pytest.raises(ValueError, match="Invalid file descriptor: -5"):
        loop.remove_reader(-5)


@only_bolide
@pytest.mark.parametrize("kind", ["StreamTransport", "SSLTransport", "DatagramTransport"])
def test_transports_name_what_their_docs_name(kind):
    import bolide._core

    ours = getattr(bolide._core, kind)
    base = asyncio.DatagramTransport if kind == "DatagramTransport" else asyncio.Transport
    for name in ("write", "writelines", "set_protocol", "get_extra_info", "set_write_buffer_limits", "sendto"):
        if hasattr(base, name) and hasattr(ours, name):
            expected = [
                parameter for parameter in inspect.signature(getattr(base, name)).parameters if parameter != "self"
            ]
            names = [
                parameter for parameter in inspect.signature(getattr(ours, name)).parameters if parameter != "self"
            ]
            assert names == expected, name


@pytest.mark.parametrize("value", [None, 0, "", "1", 5, [1]])
def test_debug_is_whatever_is_true(loop, value):
    loop.set_debug(value)
    assert bool(loop.get_debug()) is bool(value)
    loop.set_debug(False)


@pytest.mark.parametrize(
    ("method", "arguments"),
    [("sock_recv", [1]), ("sock_recv_into", [bytearray(1)]), ("sock_sendall", [b"x"]), ("sock_recvfrom", [1])],
)
def test_a_socket_operation_that_nobody_awaits_is_warned_of(loop, method, arguments):
    first, second = pair()
    second.send(b"here")
    with first, second:
        with pytest.warns(RuntimeWarning, match=rf"coroutine '\w+\.{method}' was never awaited"):
            getattr(loop, method)(first, *arguments)
            gc.collect()
        assert first.recv(9) == b"here"


@pytest.mark.filterwarnings("error")
@with_loop
async def test_a_socket_operation_that_was_closed_or_cancelled_is_not():
    loop = asyncio.get_running_loop()
    first, second = pair()
    with first, second:
        loop.sock_recv(first, 1).close()
        with pytest.raises(KeyError):
            loop.sock_recv(first, 1).throw(KeyError())
        task = loop.create_task(loop.sock_recv(first, 1))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(TypeError):
            await loop.sock_sendall(first, "text")
        gc.collect()


def test_a_closed_loop_resolves_no_names():
    loop = new_event_loop()
    loop.close()
    for lookup in (loop.getnameinfo(("127.0.0.1", 1)), loop.getaddrinfo("localhost", 1)):
        with pytest.raises(RuntimeError, match="Event loop is closed"):
            lookup.send(None)
