"""Clients that others wrote, and frameworks."""

import asyncio
import os

import pytest

websockets = pytest.importorskip("websockets")
aiohttp = pytest.importorskip("aiohttp")

SIZES = [0, 1, 125, 126, 65535, 65536, 1_000_000]


def url(server, target: str) -> str:
    return server.url.replace("http://", "ws://") + target


@pytest.mark.parametrize("compression", ["deflate", None])
def test_websockets(server, compression):
    async def main():
        async with websockets.connect(url(server, "/ws-echo"), compression=compression, max_size=None) as ws:
            for size in SIZES:
                for message in ("é" * size, os.urandom(size)):
                    await ws.send(message)
                    assert await ws.recv() == message
            await ws.send(["frag", "men", "ts"])
            assert await ws.recv() == "fragments"
            await (await ws.ping())
            await ws.close(4000, "done")
        assert (ws.close_code, ws.close_reason) == (4000, "done")

    asyncio.run(asyncio.wait_for(main(), 30))


@pytest.mark.parametrize("compress", [0, 15])
def test_aiohttp(server, compress):
    async def main():
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(url(server, "/ws-echo"), compress=compress, max_msg_size=0) as ws,
        ):
            for size in SIZES:
                await ws.send_str("x" * size)
                assert await ws.receive_str() == "x" * size
                data = os.urandom(size)
                await ws.send_bytes(data)
                assert await ws.receive_bytes() == data
            await ws.close(code=4001)
            assert ws.close_code == 4001

    asyncio.run(asyncio.wait_for(main(), 30))


def test_subprotocol_and_denial(server):
    async def main():
        async with websockets.connect(url(server, "/ws-accept?subprotocol=b"), subprotocols=["a", "b"]) as ws:
            assert ws.subprotocol == "b"
        with pytest.raises(websockets.exceptions.InvalidStatus) as caught:
            await websockets.connect(url(server, "/ws-deny?pieces=1&key=denied"))
        assert caught.value.response.status_code == 451
        assert caught.value.response.body == b"piece 0;"

    asyncio.run(asyncio.wait_for(main(), 30))


def test_many_clients_at_once(server):
    async def one(number: int):
        async with websockets.connect(url(server, "/ws-echo")) as ws:
            for turn in range(20):
                await ws.send(f"{number} {turn}")
                assert await ws.recv() == f"{number} {turn}"

    async def main():
        await asyncio.gather(*(one(number) for number in range(50)))

    asyncio.run(asyncio.wait_for(main(), 50))


def test_fastapi(serve_module):
    """Endpoints: text, JSON, bytes, rooms, WebSocketDisconnect, path and query parameters, cookies, HTTPException."""
    server = serve_module("fastapi_ws:app")

    async def main():
        async with websockets.connect(url(server, "/echo/kitchen?greeting=hi")) as ws:
            await ws.send("there")
            assert await ws.recv() == "kitchen: hi there"
        async with websockets.connect(url(server, "/json"), additional_headers={"Cookie": "who=me"}) as ws:
            await ws.send('{"n": 4}')
            assert await ws.recv() == '{"n":5,"who":"me"}'
        async with (
            websockets.connect(url(server, "/room/a")) as one,
            websockets.connect(url(server, "/room/a")) as two,
            websockets.connect(url(server, "/room/b")) as three,
        ):
            assert [await ws.recv() for ws in (one, two, three)] == ["joined"] * 3
            await one.send("hello a")
            await three.send("hello b")
            assert await one.recv() == await two.recv() == "hello a"
            assert await three.recv() == "hello b"
            await two.close()
            assert await one.recv() == "one left"
        with pytest.raises(websockets.exceptions.InvalidStatus) as caught:
            await websockets.connect(url(server, "/secret"))
        assert caught.value.response.status_code == 401
        async with websockets.connect(url(server, "/policy")) as ws:
            with pytest.raises(websockets.exceptions.ConnectionClosed):
                await ws.recv()
            assert (ws.close_code, ws.close_reason) == (1008, "against the policy")

    asyncio.run(asyncio.wait_for(main(), 30))
