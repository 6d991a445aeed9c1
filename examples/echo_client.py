"""Measure round trips to examples/echo_server.py, with asyncio's own Runner on bolide's loop.

python examples/echo_client.py 7000 1000
"""

import asyncio
import sys
import time

import bolide


async def main(port: int, count: int) -> None:
    """Send count messages, one after the other, and tell how long an answer took."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    started = time.perf_counter()
    for number in range(count):
        message = f"message {number}\n".encode()
        writer.write(message)
        answer = await reader.readexactly(len(message))
        if answer != message:
            raise SystemExit(f"sent {message!r}, got {answer!r}")
    passed = time.perf_counter() - started
    writer.close()
    await writer.wait_closed()
    print(f"{count} round trips, {passed / count * 1e6:.1f} us each")


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=bolide.new_event_loop) as runner:
        runner.run(main(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1000))
