"""WebSocket over TLS."""

import ast
import asyncio
import os
import ssl

import pytest

trustme = pytest.importorskip("trustme")
websockets = pytest.importorskip("websockets")


def test_wss(serve, tmp_path):
    """Echo over wss, compressed and not, and the scope."""
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost", "127.0.0.1")
    path = tmp_path / "server.pem"
    certificate.private_key_and_cert_chain_pem.write_to_path(path)
    context = ssl.create_default_context()
    authority.configure_trust(context)
    server = serve("--ssl-certfile", str(path))
    base = f"wss://127.0.0.1:{server.address[1]}"

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
