"""An echo server on one loop, in one of the styles of asyncio: echo_worker.py LOOP STYLE TRANSPORT ADDRESS [CERT KEY].

STYLE is protocol, buffered, streams or sock; TRANSPORT is tcp, unix, udp or tls; ADDRESS is a port or a path. It says
"ready" when it serves, and ends on SIGTERM.
"""

import asyncio
import functools
import signal
import socket
import ssl
import sys

from loop_factory import new_event_loop

CHUNK = 256 * 1024
HOST = "127.0.0.1"


class Echo(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.transport.write(data)


class BufferedEcho(asyncio.BufferedProtocol):
    def connection_made(self, transport):
        self.transport = transport
        self.view = memoryview(bytearray(CHUNK))

    def get_buffer(self, sizehint):
        return self.view

    def buffer_updated(self, size):
        self.transport.write(bytes(self.view[:size]))


class DatagramEcho(asyncio.DatagramProtocol):
    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, address):
        self.transport.sendto(data, address)


async def stream_echo(reader, writer):
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()


async def socket_echo(loop, client):
    with client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            while data := await loop.sock_recv(client, CHUNK):
                await loop.sock_sendall(client, data)
        except ConnectionError:
            return


async def accept_sockets(loop, port):
    listener = socket.create_server((HOST, port), backlog=100)
    without_pacing(listener)
    listener.setblocking(False)
    print("ready", flush=True)
    clients = set()
    while True:
        client, _ = await loop.sock_accept(listener)
        clients.add(asyncio.create_task(socket_echo(loop, client)))


def without_pacing(listener):
    """Let what it accepts use a congestion control that does not depend on how busy the machine was just before."""
    if hasattr(socket, "TCP_CONGESTION"):
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"reno")


def server_context(certificate, key):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context


async def serve(style, transport, address, files):
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    context = server_context(*files) if transport == "tls" else None
    factory = BufferedEcho if style == "buffered" else Echo
    if style == "sock":
        await accept_sockets(loop, int(address))
    elif transport == "udp":
        await loop.create_datagram_endpoint(DatagramEcho, local_addr=(HOST, int(address)))
    elif transport == "unix":
        await loop.create_unix_server(factory, address)
    elif style == "streams":
        server = await asyncio.start_server(stream_echo, HOST, int(address), ssl=context)
    else:
        server = await loop.create_server(factory, HOST, int(address), ssl=context)
    if transport in ("tcp", "tls"):
        for listener in server.sockets:
            without_pacing(listener)
    print("ready", flush=True)
    await stop.wait()


def main() -> None:
    name, style, transport, address, *files = sys.argv[1:]
    with asyncio.Runner(loop_factory=functools.partial(new_event_loop, name)) as runner:
        runner.run(serve(style, transport, address, files))


main()
