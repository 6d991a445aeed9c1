"""Let each allocation of a request fail in turn; run by test_http_faults.py with the bytes of the request in hex.

The server lives on a loop of its own here, so that memory runs out between the bytes that a client has sent and its
answer, and at no other time.
"""

import _testcapi
import asyncio
import contextlib
import faulthandler
import logging
import socket
import sys
import tempfile

import bolide
from bolide import _core

MOST = 120
FILE = tempfile.NamedTemporaryFile()  # noqa: SIM115 - it lives as long as the process
FILE.truncate(150_000)
faulthandler.enable()


async def app(scope, receive, send):
    """Read the body and answer."""
    more = True
    while more:
        message = await receive()
        more = message.get("more_body", False)
    if scope["path"] == "/descriptor":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.zerocopysend", "file": FILE.fileno(), "offset": 0})
        return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


def turn(loop, count=1):
    """Run the loop for a few turns."""
    for _ in range(count):
        loop.call_later(0.0005, loop.stop)
        loop.run_forever()


def ask(loop, path, raw):
    """Send the bytes and return what comes back, or None when the server does not take the connection."""
    with socket.socket(socket.AF_UNIX) as client:
        client.setblocking(False)
        client.connect(path)
        client.send(raw)
        client.shutdown(socket.SHUT_WR)
        back = b""
        for _ in range(100):
            turn(loop)
            with contextlib.suppress(BlockingIOError, ConnectionError):
                piece = client.recv(65536)
                if not piece:
                    break
                back += piece
        return back


def ask_without_memory(loop, path, raw, start):
    """As ask(), but in the turns that serve it the allocation of number `start`, and every later one, fails."""
    client = socket.socket(socket.AF_UNIX)
    try:
        client.setblocking(False)
        client.connect(path)
        turn(loop, 2)
        client.send(raw)
        stop, run = loop.stop, loop.run_forever
        handle = loop.call_later(0.001, stop)
        failed = True
        _testcapi.set_nomemory(start, start + 40)
        try:
            run()
            failed = False
        except MemoryError:
            pass
        finally:
            _testcapi.remove_mem_hooks()
        handle.cancel()
        turn(loop, 2)
        return failed
    finally:
        client.close()
        turn(loop, 2)


def main():
    """See the module."""
    raw = bytes.fromhex(sys.argv[1])
    logging.getLogger("quiet").addHandler(logging.NullHandler())
    logging.getLogger("quiet").propagate = False
    loop = bolide.new_event_loop()
    asyncio.set_event_loop(loop)
    loop.set_exception_handler(lambda loop, context: None)
    server = _core.Server(loop, app, logger=logging.getLogger("quiet"))
    path = tempfile.mkdtemp() + "/s"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    server.listen(listener)
    expected = ask(loop, path, raw)
    assert expected.startswith(b"HTTP/1.1 "), expected
    for start in range(MOST):
        ask_without_memory(loop, path, raw, start)
        back = ask(loop, path, raw)
        assert back.split(b"\r\n")[0] == expected.split(b"\r\n")[0], (start, back)
    for _ in range(10):
        turn(loop, 10)
    assert server.connections == 0, server.connections
    print("served to the end")


main()
