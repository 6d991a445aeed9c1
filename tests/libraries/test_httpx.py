"""httpx on the loop, against a server on the same loop."""

import asyncio
import json

import pytest

httpx = pytest.importorskip("httpx")


async def answer(reader, writer):
    """A small HTTP/1.1 server: says what it was asked, streams when asked for /stream."""
    try:
        while head := await reader.readuntil(b"\r\n\r\n"):
            request, *lines = head.decode().split("\r\n")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines if line)}
            body = await reader.readexactly(int(headers.get("content-length", 0)))
            if " /stream " in request:
                writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
                for number in range(50):
                    writer.write(b"%x\r\n%s\r\n" % (len(piece := b"line %d\n" % number), piece))
                    await writer.drain()
                writer.write(b"0\r\n\r\n")
            elif " /never " in request:
                await asyncio.sleep(30)
            else:
                content = json.dumps({"request": request, "length": len(body)}).encode()
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(content), content))
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


def test_requests(run):
    async def main():
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        base = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with httpx.AsyncClient(base_url=base) as client:
            responses = await asyncio.gather(*(client.get(f"/{number}") for number in range(100)))
            assert [response.json()["request"] for response in responses] == [
                f"GET /{number} HTTP/1.1" for number in range(100)
            ]
            assert (await client.post("/up", content=b"x" * 2_000_000)).json()["length"] == 2_000_000
            async with client.stream("GET", "/stream") as response:
                lines = [line async for line in response.aiter_lines()]
            assert lines == [f"line {number}" for number in range(50)]
            with pytest.raises(httpx.ReadTimeout):
                await client.get("/never", timeout=0.05)
            with pytest.raises(httpx.ConnectError):
                await client.get("http://127.0.0.1:1/")
        server.close()

    run(main())
