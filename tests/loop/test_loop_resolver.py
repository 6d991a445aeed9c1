"""getaddrinfo() and getnameinfo()."""

import asyncio
import socket
import threading

import pytest
from support.loops import only_bolide, with_loop


@pytest.mark.parametrize(
    ("host", "port", "options"),
    [
        ("127.0.0.1", 80, {}),
        (b"127.0.0.1", b"80", {"type": socket.SOCK_STREAM}),
        ("127.1", "80", {"proto": socket.IPPROTO_TCP}),
        ("::1", 80, {"type": socket.SOCK_DGRAM}),
        ("::1", None, {"family": socket.AF_INET6}),
        (None, 80, {"flags": socket.AI_PASSIVE, "type": socket.SOCK_STREAM}),
        ("127.0.0.1", 0, {"flags": socket.AI_CANONNAME}),
        ("localhost", 80, {"type": socket.SOCK_STREAM}),
        ("127.0.0.1", "http", {"type": socket.SOCK_STREAM}),
    ],
)
def test_the_result_is_that_of_the_socket_module(loop, host, port, options):
    assert loop.run_until_complete(loop.getaddrinfo(host, port, **options)) == socket.getaddrinfo(host, port, **options)


@pytest.mark.parametrize(
    ("host", "port", "options"),
    [
        ("::1", 80, {"family": socket.AF_INET}),
        ("127.0.0.1", 80, {"flags": socket.AI_NUMERICHOST, "family": socket.AF_INET6}),
        ("300.1.2.3", 80, {"flags": socket.AI_NUMERICHOST}),
        ("127.0.0.1", 80, {"family": 12345}),
        ("127.0.0.1", object(), {}),
        (5, 80, {}),
        ("127.0.0.1", "no such service", {}),
        ("a\0b", 80, {}),
        (None, None, {}),
    ],
)
def test_so_are_the_errors(loop, host, port, options):
    with pytest.raises(Exception) as wanted:
        socket.getaddrinfo(host, port, **options)
    with pytest.raises(type(wanted.value)) as raised:
        loop.run_until_complete(loop.getaddrinfo(host, port, **options))
    assert str(raised.value) == str(wanted.value)


def test_getnameinfo(loop):
    flags = socket.NI_NUMERICHOST | socket.NI_NUMERICSERV
    assert loop.run_until_complete(loop.getnameinfo(("127.0.0.1", 80), flags)) == ("127.0.0.1", "80")
    with pytest.raises((TypeError, OSError)):
        loop.run_until_complete(loop.getnameinfo("nonsense"))


@only_bolide
def test_a_numeric_address_takes_no_thread(loop):
    async def main():
        server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
        host, port = server.sockets[0].getsockname()
        before = threading.active_count()
        await loop.getaddrinfo(host, port)
        await loop.getaddrinfo("::1", str(port), type=socket.SOCK_STREAM)
        await loop.getaddrinfo(None, port, flags=socket.AI_PASSIVE)
        reader, writer = await asyncio.open_connection(host, port)
        assert await reader.read() == b""
        writer.close()
        server.close()
        assert threading.active_count() <= before  # one of an earlier test may have ended

    loop.run_until_complete(main())


@only_bolide
def test_a_slow_resolver_holds_nothing_up(loop, monkeypatch):
    """Neither other work in threads nor other lookups, though more of both wait than asyncio has threads."""
    release = threading.Event()
    waiting = threading.Semaphore(0)
    resolve = socket.getaddrinfo

    def getaddrinfo(host, *args):
        if host == "slow.invalid":
            waiting.release()
            release.wait(40)
            raise socket.gaierror(socket.EAI_AGAIN, "slow")
        return resolve(host, *args)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)

    async def main():
        slow = [loop.create_task(loop.getaddrinfo("slow.invalid", 80)) for _ in range(40)]
        try:
            await asyncio.sleep(0)
            for _ in slow:
                assert await loop.run_in_executor(None, waiting.acquire, True, 30)
            assert await asyncio.wait_for(loop.run_in_executor(None, threading.get_ident), 30)
            assert await asyncio.wait_for(loop.getaddrinfo("localhost", 80), 30)
        finally:
            release.set()
        failed = await asyncio.gather(*slow, return_exceptions=True)
        assert all(isinstance(error, socket.gaierror) for error in failed)

    loop.run_until_complete(main())


@only_bolide
def test_busy_threads_do_not_hold_up_lookups(loop):
    release = threading.Event()

    async def main():
        busy = [loop.run_in_executor(None, release.wait, 40) for _ in range(64)]
        try:
            assert await asyncio.wait_for(loop.getaddrinfo("localhost", 80), 30)
        finally:
            release.set()
        await asyncio.gather(*busy)

    loop.run_until_complete(main())


def test_after_the_end(loop):
    loop.run_until_complete(loop.shutdown_default_executor())
    with pytest.raises(RuntimeError, match="shutdown"):
        loop.run_until_complete(loop.getaddrinfo("localhost", 80))


@only_bolide
def test_the_threads_end_with_the_loop(loop):
    loop.run_until_complete(loop.getaddrinfo("localhost", 80))
    threads = [thread for thread in threading.enumerate() if thread.name.startswith("bolide-resolver")]
    assert threads
    loop.close()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()


@with_loop
async def test_slow_lookups_are_logged_in_debug_mode():
    """Debug mode takes another way; the result is the same."""
    loop = asyncio.get_running_loop()
    loop.set_debug(True)
    try:
        assert await loop.getaddrinfo("localhost", 80) == socket.getaddrinfo("localhost", 80)
    finally:
        loop.set_debug(False)


@with_loop
async def test_the_error_of_a_failed_connection_names_the_address():
    loop = asyncio.get_running_loop()
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        host, port = closed.getsockname()
        with pytest.raises(ConnectionRefusedError, match=rf"{host}.*{port}"):
            await loop.create_connection(asyncio.Protocol, host, port)
        with pytest.raises(OSError, match=rf"{host}.*{port}"):
            await loop.create_server(asyncio.Protocol, host, port)
