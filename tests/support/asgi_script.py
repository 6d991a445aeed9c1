"""A server, its application and its clients in a process of their own, for what may crash it."""

import textwrap

from .loops import run_script

PRELUDE = """
import contextlib
from bolide._core import Server

signal.alarm(50)
HEAD = {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]}
END = {"type": "http.response.body", "body": b"ok"}
GET = b"GET / HTTP/1.1\\r\\nHost: localhost\\r\\n\\r\\n"
UPGRADE = (
    b"GET / HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: Upgrade\\r\\nUpgrade: websocket\\r\\n"
    b"Sec-WebSocket-Version: 13\\r\\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\\r\\n"
    b"Sec-WebSocket-Extensions: permessage-deflate\\r\\n\\r\\n"
)
reports = []
errors = []
loop = new_event_loop()
loop.set_exception_handler(lambda loop, context: reports.append(context))
listening = socket.create_server(("127.0.0.1", 0))
listening.setblocking(False)

async def connect(request=b""):
    client = socket.socket()
    client.setblocking(False)
    await loop.sock_connect(client, listening.getsockname())
    await loop.sock_sendall(client, request)
    return client

async def read(client, until=b"ok"):
    got = b""
    while until not in got:
        try:
            data = await loop.sock_recv(client, 100_000)
        except ConnectionError:
            break
        if not data:
            break
        got += data
    return got

async def ask(request, until=b"ok"):
    client = await connect(request)
    got = await read(client, until)
    client.close()
    return got

async def open_tls():
    from support.certificates import authority
    return await asyncio.open_connection(
        *listening.getsockname(), ssl=authority().client(), server_hostname="localhost"
    )

async def post_once(asking):
    # A request whose body is sent once the application, which sets `asking`, waits for it.
    client = await connect(b"POST / HTTP/1.1\\r\\nHost: localhost\\r\\nContent-Length: 5\\r\\n\\r\\n")
    await asking.wait()
    await loop.sock_sendall(client, b"hello")
    assert (await loop.sock_recv(client, 1000)).startswith(b"HTTP/1.1 200")
    client.close()

async def finish(send):
    await send(HEAD)
    await send(END)
"""

RUN = """
server = Server(loop, app)
server.listen(listening, 100)
loop.run_until_complete(asyncio.wait_for(main(), 30))
server.shutdown()
loop.run_until_complete(asyncio.wait_for(server.wait_closed(), 20))
loop.close()
"""

# The same over TLS, for a source that defines `extension`, too. The server alone refers to what calls that.
RUN_TLS = """
from support.certificates import authority
server = Server(loop, app, tls_extension=lambda ssl_object: extension(ssl_object))
server.listen(listening, ssl_context=authority().server())
loop.run_until_complete(asyncio.wait_for(main(), 30))
server.abort()
loop.run_until_complete(asyncio.wait_for(server.wait_closed(), 20))
loop.close()
"""


def run_server(source: str, *, run: str = RUN) -> None:
    """Run an application `app` and a coroutine function `main`, which the source defines, against each other.

    The source finds `server`, `loop`, and what the prelude above defines. `run` replaces the usual course.
    """
    run_script(PRELUDE + textwrap.dedent(source) + textwrap.dedent(run), options=("-W", "ignore"))
