"""An echo server of asyncio streams, on bolide's loop because of one line: `bolide.install()`.

    python examples/echo_server.py 7000

Ctrl-C stops it. Talk to it with examples/echo_client.py, or with `nc 127.0.0.1 7000`.
"""

import asyncio
import contextlib
import sys

import bolide


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send back what comes in; drain() waits when the peer reads more slowly than it writes."""
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()


async def main(port: int) -> None:
    """Serve until cancelled."""
    server = await asyncio.start_server(echo, "127.0.0.1", port)
    host, port = server.sockets[0].getsockname()
    print(f"echo server on {host}:{port}, loop {type(asyncio.get_running_loop()).__module__}", flush=True)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    bolide.install()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 7000))
