"""WebSocket over TLS."""

import ast
import asyncio
import os
import ssl

import pytest

trustme = pytest.importorskip("trustme")
websockets = pytest.importorskip("websockets")


@pytest.fixture
def secure(serve, tmp_path) -> tuple[str, ssl.SSLContext]:
    """The base of a server's URLs, and a client's context that trusts it."""
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost", "127.0.0.1")
    path = tmp_path / "server.pem"
    certificate.private_key_and_cert_chain_pem.write_to_path(path)
    context = ssl.create_default_context()
    authority.configure_trust(context)
    server = serve("--ssl-certfile", str(path))
    return f"wss://127.0.0.1:{server.address[1]}", context


def test_wss(secure):
    """Echo over wss, compressed and not, and the scope."""
    base, context = secure

    async def main():
        async with websockets.connect(f"{base}/ws-scope", ssl=context) as ws:
            scope = ast.literal_eval(await ws.recv())
            assert (scope["type"], scope["scheme"]) == ("websocket", "wss")
            assert scope["extensions"].keys() == {"websocket.http.response", "tls"}
        for compression in ("deflate", None):
            async with websockets.connect(f"{base}/ws-echo", ssl=context, compression=compression, max_size=None) as ws:
                for size in (0, 1, 125, 5000, 65536, 1_000_000):
                    for message in ("é" * size, os.urandom(size)):
                        await ws.send(message)
                        assert await ws.recv() == message
                await ws.close(4000, "done")
            assert (ws.close_code, ws.close_reason) == (4000, "done")

    asyncio.run(asyncio.wait_for(main(), 30))


def test_broadcast(secure):
    """A message to many over wss: each peer's own encryption of the same frame."""
    base, context = secure
    payloads = ["é" * 10, "e" * 1024, os.urandom(5000), "é" * 30000, os.urandom(70000)]

    async def read(ws) -> list:
        assert await ws.recv() == "joined"
        received = [await ws.recv() for _ in range(20 * len(payloads))]
        await ws.close()
        return received

    async def main():
        peers = []
        for compression in ("deflate", None, None, "deflate"):
            url = f"{base}/ws-broadcast-copies"
            peers.append(await websockets.connect(url, ssl=context, compression=compression, max_size=None))
        readers = [asyncio.ensure_future(read(ws)) for ws in peers]
        await peers[-1].ping()
        for payload in payloads:
            await peers[0].send(payload)
        for received in await asyncio.gather(*readers):
            assert received == [payload for payload in payloads for _ in range(20)]

    asyncio.run(asyncio.wait_for(main(), 60))
