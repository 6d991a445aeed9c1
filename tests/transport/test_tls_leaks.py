"""What connections with TLS leave behind: nothing."""

import asyncio
import gc
import weakref

import pytest
from support.certificates import authority
from support.loops import only_bolide, run_script, with_loop
from support.tls_peers import (
    connect,
    serving,
)


@with_loop
async def test_nothing_is_kept_after_the_end():
    context = authority().client()
    async with serving() as (address, protocols, _):
        protocol = await connect(address, context=context)
        protocol.transport.close()
        await protocol.until_event("lost")
        refs = [weakref.ref(context), weakref.ref(protocol.transport)]
        del context, protocol
        await asyncio.sleep(0)
        gc.collect()
        assert [ref() for ref in refs] == [None, None]
        await protocols[0].until_event("lost")


def test_a_loop_closes_with_connections_in_every_state():
    run_script(
        """
        import ssl
        from support.certificates import authority
        loop = new_event_loop()

        class Protocol(asyncio.Protocol):
            def connection_made(self, transport):
                self.transport = transport

        async def main():
            server = await loop.create_server(Protocol, "127.0.0.1", 0, ssl=authority().server())
            address = server.sockets[0].getsockname()
            idle = socket.create_connection(address)
            made = [await loop.create_connection(Protocol, *address, ssl=authority().client(),
                                                 server_hostname="localhost") for _ in range(4)]
            made[1][0].write(bytes(10_000_000))
            made[2][0].close()
            made[3][0].pause_reading()
            asyncio.ensure_future(loop.create_connection(Protocol, *address, ssl=authority().client(),
                                                         server_hostname="localhost"))
            await asyncio.sleep(0)
            return idle

        idle = loop.run_until_complete(main())
        loop.close()
        gc.collect()
        """,
        options=("-W", "ignore"),
    )


@only_bolide
@pytest.mark.rss
def test_handshakes_leave_nothing_behind():
    """2,500 connections, each with a handshake on both ends, some broken off: the process does not grow."""
    run_script(
        """
        import resource, ssl
        from statistics import median
        from support.certificates import authority
        loop = new_event_loop()
        server_context, client_context = authority().server(), authority().client()

        class Echo(asyncio.Protocol):
            def connection_made(self, transport):
                self.transport = transport

            def data_received(self, data):
                self.transport.write(data)

        class Client(asyncio.Protocol):
            def __init__(self):
                self.got = loop.create_future()

            def data_received(self, data):
                self.got.cancelled() or self.got.done() or self.got.set_result(data)

        async def one(address, number):
            if number % 10 == 9:
                socket.create_connection(address).close()
                return
            transport, protocol = await loop.create_connection(Client, *address, ssl=client_context,
                                                               server_hostname="localhost")
            transport.write(bytes(number % 5 * 10_000 + 1))
            await protocol.got
            transport.close() if number % 3 else transport.abort()

        def memory():
            gc.collect()
            with open("/proc/self/statm") as file:
                return int(file.read().split()[1]) * resource.getpagesize()

        async def main():
            server = await loop.create_server(Echo, "127.0.0.1", 0, ssl=server_context)
            address = server.sockets[0].getsockname()
            sizes = []
            for _ in range(5):
                for start in range(0, 500, 10):
                    await asyncio.gather(*(one(address, start + n) for n in range(10)))
                sizes.append(memory())
            growths = [after - before for before, after in zip(sizes, sizes[1:])]
            assert median(growths) < 500 * 64, growths
            server.close()

        loop.run_until_complete(main())
        loop.close()
        """
    )
