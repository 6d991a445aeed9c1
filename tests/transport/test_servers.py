"""create_server(), create_unix_server() and the Server they return."""

import asyncio
import contextlib
import contextvars
import errno
import os
import resource
import socket
import struct
import sys
from pathlib import Path

import pytest
from support.loops import only_bolide, run_script, with_loop
from support.protocols import Recorder

HAS_IPV6 = socket.has_ipv6


async def talk(address: tuple, data: bytes = b"x", family: int = socket.AF_INET) -> bytes:
    """What a server answers to data and FIN."""
    reader, writer = await asyncio.open_connection(*address[:2], family=family)
    writer.write(data)
    writer.write_eof()
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer


class Echo(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.transport.write(data)


@with_loop
async def test_one_port():
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Echo, "127.0.0.1", 0)
    assert server.is_serving()
    assert len(server.sockets) == 1
    assert server.get_loop() is loop
    address = server.sockets[0].getsockname()
    assert await talk(address) == b"x"
    server.close()
    await asyncio.wait_for(server.wait_closed(), 20)
    assert not server.is_serving()
    assert len(server.sockets) == 0
    with pytest.raises(OSError):
        await talk(address)


@with_loop
async def test_several_hosts():
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Echo, ["127.0.0.1", "127.0.0.2"], 0)
    hosts = {sock.getsockname()[0] for sock in server.sockets}
    assert hosts == {"127.0.0.1", "127.0.0.2"}
    for sock in server.sockets:
        assert await talk(sock.getsockname()) == b"x"
    server.close()


@with_loop
async def test_every_interface():
    loop = asyncio.get_running_loop()
    for host in (None, ""):
        server = await loop.create_server(Echo, host, 0)
        families = {sock.family for sock in server.sockets}
        assert socket.AF_INET in families
        for sock in server.sockets:
            if sock.family == socket.AF_INET:
                assert await talk(("127.0.0.1", sock.getsockname()[1])) == b"x"
            else:
                assert await talk(("::1", sock.getsockname()[1]), family=socket.AF_INET6) == b"x"
        server.close()


@with_loop
async def test_reuse_port():
    loop = asyncio.get_running_loop()
    first = await loop.create_server(Echo, "127.0.0.1", 0, reuse_port=True)
    port = first.sockets[0].getsockname()[1]
    second = await loop.create_server(Echo, "127.0.0.1", port, reuse_port=True)
    with pytest.raises(OSError) as raised:
        await loop.create_server(Echo, "127.0.0.1", port)
    assert raised.value.errno == errno.EADDRINUSE
    assert str(port) in str(raised.value)
    for _ in range(20):
        assert await talk(("127.0.0.1", port)) == b"x"
    first.close()
    second.close()


@with_loop
async def test_reuse_address():
    """By default a port whose connections linger can be taken anew."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Echo, "127.0.0.1", 0)
    address = server.sockets[0].getsockname()
    assert server.sockets[0].getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR) != 0
    assert await talk(address) == b"x"
    server.close()
    await server.wait_closed()
    again = await loop.create_server(Echo, *address)
    assert await talk(address) == b"x"
    again.close()
    strict = await loop.create_server(Echo, "127.0.0.1", 0, reuse_address=False)
    assert strict.sockets[0].getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR) == 0
    strict.close()


@pytest.mark.skipif(sys.version_info < (3, 14), reason="keep_alive is new in CPython 3.14")
@with_loop
async def test_keep_alive():
    loop = asyncio.get_running_loop()
    for keep_alive in (True, False):
        server = await loop.create_server(Echo, "127.0.0.1", 0, keep_alive=keep_alive)
        assert bool(server.sockets[0].getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)) is keep_alive
        server.close()


@with_loop
async def test_start_serving():
    """Nobody is let in before start_serving() or serve_forever()."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Echo, "127.0.0.1", 0, start_serving=False)
    address = server.sockets[0].getsockname()
    assert not server.is_serving()
    with pytest.raises(ConnectionRefusedError):
        await talk(address)
    await server.start_serving()
    await server.start_serving()
    assert server.is_serving()
    assert await talk(address) == b"x"
    server.close()


@with_loop
async def test_serve_forever():
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Echo, "127.0.0.1", 0, start_serving=False)
    address = server.sockets[0].getsockname()
    serving = asyncio.create_task(server.serve_forever())
    await asyncio.sleep(0)
    assert await talk(address) == b"x"
    with pytest.raises(RuntimeError, match="already"):
        await server.serve_forever()
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving
    assert not server.is_serving()
    with pytest.raises(RuntimeError, match="closed"):
        await server.serve_forever()


@with_loop
async def test_async_with():
    loop = asyncio.get_running_loop()
    async with await loop.create_server(Echo, "127.0.0.1", 0) as server:
        address = server.sockets[0].getsockname()
        assert await talk(address) == b"x"
    assert not server.is_serving()
    with pytest.raises(ConnectionRefusedError):
        await talk(address)


@with_loop
async def test_a_socket_of_ones_own():
    loop = asyncio.get_running_loop()
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    server = await loop.create_server(Echo, sock=sock)
    assert await talk(sock.getsockname()) == b"x"
    assert server.sockets[0].fileno() >= 0
    server.close()
    await server.wait_closed()
    assert sock.fileno() == -1


@with_loop
async def test_the_name_of_a_client_that_has_gone():
    """It reset the connection before that was accepted: the socket does not know it any more."""
    names = []
    arrived = asyncio.Event()

    class Names(asyncio.Protocol):
        def connection_made(self, transport):
            names.append(transport.get_extra_info("peername"))
            arrived.set()

    sock = socket.create_server(("127.0.0.1", 0))
    with socket.create_connection(sock.getsockname()) as client:
        name = client.getsockname()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    async with await asyncio.get_running_loop().create_server(Names, sock=sock):
        await asyncio.wait_for(arrived.wait(), 20)
    assert names == [name]


@with_loop
async def test_a_backlog():
    """Clients that come while the loop does something else are served later."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Echo, "127.0.0.1", 0, backlog=50)
    address = server.sockets[0].getsockname()
    clients = [socket.create_connection(address, timeout=20) for _ in range(40)]
    for client in clients:
        client.sendall(b"ping")
        client.setblocking(False)
    for client in clients:
        assert await asyncio.wait_for(loop.sock_recv(client, 10), 20) == b"ping"
        client.close()
    server.close()


@with_loop
async def test_wrong_arguments():
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagram, socket.socket() as stream:
        for arguments, options, error in (
            ((Echo,), {}, ValueError),
            ((Echo, "127.0.0.1", 0), {"sock": stream}, ValueError),
            ((Echo,), {"sock": datagram}, ValueError),
            ((Echo, "127.0.0.1", 0), {"ssl": True}, TypeError),
            ((Echo, "127.0.0.1", 0), {"ssl_handshake_timeout": 1}, ValueError),
            ((Echo, "127.0.0.1", 0), {"ssl_shutdown_timeout": 1}, ValueError),
        ):
            with pytest.raises(error):
                await loop.create_server(*arguments, **options)
    with pytest.raises(OSError):
        await loop.create_server(Echo, "203.0.113.1", 0)  # of no interface here


@pytest.mark.skipif(sys.version_info < (3, 13), reason="close_clients() and abort_clients() are new in CPython 3.13")
@pytest.mark.parametrize("method", ["close_clients", "abort_clients"])
def test_the_end_of_all_clients(loop, method):
    async def main():
        made = []

        def factory():
            made.append(Recorder())
            return made[-1]

        server = await loop.create_server(factory, "127.0.0.1", 0)
        streams = [await asyncio.open_connection(*server.sockets[0].getsockname()) for _ in range(5)]
        while len(made) < 5:
            await asyncio.sleep(0)
        server.close()
        waiting = asyncio.ensure_future(server.wait_closed())
        await asyncio.sleep(0.01)
        assert not waiting.done()
        getattr(server, method)()
        await asyncio.wait_for(waiting, 20)
        for reader, writer in streams:
            assert await reader.read() == b""
            writer.close()

    loop.run_until_complete(main())


@with_loop
async def test_connections_of_a_closed_server_go_on():
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Echo, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    writer.write(b"1")
    assert await reader.readexactly(1) == b"1"
    server.close()
    writer.write(b"2")
    assert await reader.readexactly(1) == b"2"
    writer.close()
    await server.wait_closed()


@only_bolide
@pytest.mark.parametrize("debug", [False, True])
def test_a_protocol_factory_that_fails(loop, reports, debug):
    """It costs that connection, no more; as in asyncio it is reported in debug mode alone."""
    made = []
    loop.set_debug(debug)

    def factory():
        made.append(1)
        if len(made) == 1:
            raise ZeroDivisionError
        return Echo()

    async def main():
        server = await loop.create_server(factory, "127.0.0.1", 0)
        address = server.sockets[0].getsockname()
        with contextlib.suppress(ConnectionError):
            assert await talk(address) == b""
        assert await talk(address) == b"x"
        server.close()

    loop.run_until_complete(main())
    if debug:
        report = reports.pop()
        assert isinstance(report["exception"], ZeroDivisionError)
        assert report["message"] == "Error on transport creation for incoming connection"


@with_loop
async def test_protocols_run_in_a_context_of_their_own():
    """Each connection in a copy of the context in which the server was made."""
    variable = contextvars.ContextVar("variable", default="none")
    variable.set("server")
    seen = []

    class Sets(asyncio.Protocol):
        def connection_made(self, transport):
            seen.append(variable.get())
            variable.set("connection")
            transport.close()

    loop = asyncio.get_running_loop()
    server = await loop.create_server(Sets, "127.0.0.1", 0)
    for _ in range(3):
        await talk(server.sockets[0].getsockname(), b"")
    server.close()
    assert seen == ["server"] * 3
    assert variable.get() == "server"


@with_loop
async def test_unix_servers(tmp_path: Path):
    loop = asyncio.get_running_loop()
    path = tmp_path / "server"
    for where in (path, str(path), b"\0bolide-test-%d" % os.getpid()):
        server = await loop.create_unix_server(Echo, where)
        if isinstance(where, bytes):
            with pytest.raises(OSError, match="in use"):
                await loop.create_unix_server(Echo, where)
        reader, writer = await asyncio.open_unix_connection(where)
        writer.write(b"hi")
        assert await reader.readexactly(2) == b"hi"
        writer.close()
        server.close()
        await server.wait_closed()
        if isinstance(where, Path) and sys.version_info >= (3, 13):
            assert not path.exists()
        elif isinstance(where, Path):
            path.unlink()
    path.unlink(missing_ok=True)


@pytest.mark.skipif(sys.version_info < (3, 13), reason="cleanup_socket is new in CPython 3.13")
@with_loop
async def test_cleanup_socket(tmp_path: Path):
    loop = asyncio.get_running_loop()
    path = tmp_path / "server"
    server = await loop.create_unix_server(Echo, path, cleanup_socket=False)
    server.close()
    assert path.exists()
    server = await loop.create_unix_server(Echo, path)  # a stale one is replaced
    path.unlink()
    path.write_text("another's")
    server.close()
    assert path.read_text() == "another's"


@with_loop
async def test_a_unix_path_that_is_no_socket(tmp_path: Path):
    loop = asyncio.get_running_loop()
    path = tmp_path / "file"
    path.write_text("kept")
    with pytest.raises(OSError):
        await loop.create_unix_server(Echo, path)
    assert path.read_text() == "kept"
    with pytest.raises(FileNotFoundError):
        await loop.create_unix_server(Echo, tmp_path / "nowhere" / "server")


@with_loop
async def test_connect_accepted_socket():
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname(), timeout=20)
        accepted, _ = listener.accept()
        transport, _ = await loop.connect_accepted_socket(Echo, accepted)
        assert transport.get_extra_info("peername") == client.getsockname()
        client.sendall(b"hello")
        client.setblocking(False)
        assert await loop.sock_recv(client, 10) == b"hello"
        transport.close()
        assert await loop.sock_recv(client, 10) == b""
        client.close()


@only_bolide
def test_no_descriptors_left_while_accepting():
    """The server keeps serving, does not spin meanwhile, and lets those who wait in when there is room again."""
    done = run_script("""
    import errno, resource

    class Echo(asyncio.Protocol):
        def connection_made(self, transport):
            self.transport = transport
        def data_received(self, data):
            self.transport.write(data)

    async def main():
        loop = asyncio.get_running_loop()
        problems = []
        loop.set_exception_handler(lambda _, context: problems.append(context))
        server = await loop.create_server(Echo, "127.0.0.1", 0)
        address = server.sockets[0].getsockname()

        async def check(client):
            await loop.sock_sendall(client, b"ping")
            assert await asyncio.wait_for(loop.sock_recv(client, 10), 30) == b"ping"

        first = socket.socket()
        first.setblocking(False)
        await loop.sock_connect(first, address)
        await check(first)
        waiting = [socket.socket() for _ in range(20)]
        for client in waiting:
            client.setblocking(False)
        spare = []
        while True:
            try:
                spare.append(os.dup(0))
            except OSError as error:
                assert error.errno == errno.EMFILE
                break
        for client in waiting:
            await loop.sock_connect(client, address)
        before = time.process_time()
        for _ in range(20):
            await asyncio.sleep(0.05)
            await check(first)
        used = time.process_time() - before
        assert used < 0.6, f"{used} s of CPU in a second"
        for fd in spare:
            os.close(fd)
        await asyncio.gather(*(check(client) for client in waiting))
        server.close()
        for client in (first, *waiting):
            client.close()
        for problem in problems:
            assert problem["exception"].errno == errno.EMFILE, problem
        print(len(problems))

    resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(main())
    """)
    assert int(done.stdout) < 100


def limit_of_connections() -> int:
    """As many as asked for and this process may have descriptors for."""
    wanted = int(os.environ.get("BOLIDE_TEST_CONNECTIONS", "2000"))
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return wanted if hard == resource.RLIM_INFINITY else min(wanted, hard - 200)


def test_very_many_open_connections():
    """BOLIDE_TEST_CONNECTIONS=20000 gives the number; all are open at once, and all are served."""
    run_script(
        """
        import resource, subprocess
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        count = int(sys.argv[1])
        resource.setrlimit(resource.RLIMIT_NOFILE, (count + 150, hard))

        CLIENT = '''
        import resource, socket, sys
        count, port = int(sys.argv[1]), int(sys.argv[2])
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (count + 50, hard))
        # More connections than one address has ports.
        clients = [socket.create_connection((f"127.0.0.{1 + index % 8}", port), 40) for index in range(count)]
        print("open", flush=True)
        sys.stdin.readline()
        for round in range(2):
            for client in clients:
                client.sendall(b"ping")
            for client in clients:
                assert client.recv(10) == b"ping"
        print("served", flush=True)
        '''

        class Echo(asyncio.Protocol):
            def connection_made(self, transport):
                self.transport = transport
                counts["opened"] += 1
            def data_received(self, data):
                self.transport.write(data)
            def connection_lost(self, exc):
                counts["closed"] += 1

        counts = {"opened": 0, "closed": 0}

        async def main():
            loop = asyncio.get_running_loop()
            server = await loop.create_server(Echo, "0.0.0.0", 0, backlog=1000)
            arguments = [sys.executable, "-c", CLIENT]
            port = server.sockets[0].getsockname()[1]
            clients = [await asyncio.create_subprocess_exec(*arguments, str(share), str(port),
                           stdin=subprocess.PIPE, stdout=subprocess.PIPE) for share in (count // 2, count - count // 2)]
            try:
                for client in clients:
                    assert await client.stdout.readline() == b"open\\n"
                while counts["opened"] < count:
                    await asyncio.sleep(0.001)
                assert counts == {"opened": count, "closed": 0}
                for client in clients:
                    client.stdin.write(b"go\\n")
                for client in clients:
                    assert await client.stdout.readline() == b"served\\n"
                    assert await client.wait() == 0
                while counts["closed"] < count:
                    await asyncio.sleep(0.001)
            finally:
                for client in clients:
                    if client.returncode is None:
                        client.kill()
            server.close()

        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            runner.run(asyncio.wait_for(main(), 45))
        """,
        str(limit_of_connections()),
    )
