"""websockets on the loop: its client against its server."""

import asyncio

import pytest

pytest.importorskip("websockets")
from websockets.asyncio.client import connect
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed, ConnectionClosedOK


def test_messages_both_ways(run):
    async def echo(connection):
        async for message in connection:
            await connection.send(message)

    async def main():
        async with serve(echo, "127.0.0.1", 0, max_size=None) as server:
            port = server.sockets[0].getsockname()[1]

            async def talk(number):
                async with connect(f"ws://127.0.0.1:{port}", max_size=None) as connection:
                    for message in (f"text {number}", b"bytes", "", "long " * 50_000, b"\0" * 1_000_000):
                        await connection.send(message)
                        assert await connection.recv() == message
                    await (await connection.ping())

            await asyncio.gather(*(talk(number) for number in range(10)))

    run(main())


def test_ends(run):
    async def main():
        async def handler(connection):
            if await connection.recv() == "close":
                await connection.close(4001, "asked to")
            else:
                connection.transport.abort()

        async with serve(handler, "127.0.0.1", 0) as server:
            address = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            async with connect(address) as connection:
                await connection.send("close")
                with pytest.raises(ConnectionClosed) as caught:
                    await connection.recv()
                assert caught.value.rcvd.code == 4001 and caught.value.rcvd.reason == "asked to"
            async with connect(address) as connection:
                await connection.send("abort")
                with pytest.raises(ConnectionClosed) as caught:
                    await connection.recv()
                assert not isinstance(caught.value, ConnectionClosedOK)

    run(main())
