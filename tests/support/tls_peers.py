"""Both ends of TLS connections: those of the loop under test, and peers that are blocking sockets."""

import asyncio
import contextlib
import select
import socket
import ssl

from .certificates import authority
from .protocols import BufferedRecorder, Recorder

VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
CLOSE_NOTIFY = b"\x01\x00"


@contextlib.asynccontextmanager
async def serving(make=Recorder, context=None, **options):
    """A TLS server: yields the address, the list of its protocols so far, and the asyncio.Server."""
    protocols = []

    def factory():
        protocols.append(make())
        return protocols[-1]

    context = context or authority().server()
    server = await asyncio.get_running_loop().create_server(factory, "127.0.0.1", 0, ssl=context, **options)
    try:
        yield server.sockets[0].getsockname(), protocols, server
    finally:
        server.close()
        for protocol in protocols:
            if protocol.transport is not None:
                protocol.transport.abort()
        await server.wait_closed()


def blocking_client(address, context=None, **options):
    """A TLS connection of a blocking socket."""
    plain = socket.create_connection(address, timeout=20)
    return (context or authority().client()).wrap_socket(plain, server_hostname="localhost", **options)


class Accepted:
    """A blocking TLS server for one connection, in a thread that runs `work(socket)`; `task` has what that returns."""

    def __init__(self, work, context=None, handshake=True):
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.address = self._listening.getsockname()
        self._work = work
        self._context = context or authority().server()
        self._handshake = handshake
        self.task = asyncio.ensure_future(asyncio.to_thread(self._run))

    def _run(self):
        with self._listening:
            plain, _ = self._listening.accept()
        plain.settimeout(20)
        if not self._handshake:
            with plain:
                return self._work(plain)
        with self._context.wrap_socket(plain, server_side=True) as secure:
            return self._work(secure)


def shake_hands(secure, incoming, outgoing, plain):
    """A client's handshake by hand, over two memory BIOs; False if the other end closes before it is done."""
    while True:
        try:
            secure.do_handshake()
            return True
        except ssl.SSLWantReadError:
            plain.sendall(outgoing.read())
            received = plain.recv(10_000)
            if not received:
                return False
            incoming.write(received)


def read_to_eof(secure):
    data = bytearray()
    while piece := secure.recv(1 << 20):
        data += piece
    return bytes(data)


def read_exactly(secure, count):
    data = bytearray()
    while len(data) < count:
        piece = secure.recv(count - len(data))
        assert piece, f"the stream ended after {len(data)} bytes"
        data += piece
    return bytes(data)


def exchange(secure, payload, count):
    """Send and receive at the same time, in one thread: an SSL connection is not to be used by two."""
    secure.setblocking(False)
    left, received = memoryview(payload), bytearray()
    while len(received) < count:
        select.select([secure], [secure] if left else [], [], 20)
        if left:
            with contextlib.suppress(ssl.SSLWantReadError, ssl.SSLWantWriteError):
                left = left[secure.send(left[:16384]) :]
        with contextlib.suppress(ssl.SSLWantReadError):
            piece = secure.recv(1 << 20)
            assert piece, f"the stream ended after {len(received)} bytes"
            received += piece
    return bytes(received)


async def connect(address, make=Recorder, context=None, **options):
    """A protocol of the loop under test on the client's end."""
    _, protocol = await asyncio.get_running_loop().create_connection(
        make, *address, ssl=context or authority().client(), server_hostname="localhost", **options
    )
    return protocol


class Buffered(BufferedRecorder):
    """Gives out a memoryview, which asyncio needs with TLS."""

    def get_buffer(self, sizehint):
        return memoryview(super().get_buffer(sizehint))


class Echo(Recorder):
    """Sends back what it gets."""

    def data_received(self, data):
        super().data_received(data)
        self.transport.write(data)


class CiphertextPeer(Recorder):
    """A TLS client over a plain transport, which decides about each byte that it sends."""

    def __init__(self):
        super().__init__()
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = authority().client().wrap_bio(self.incoming, self.outgoing, server_hostname="localhost")
        self.secure = asyncio.get_running_loop().create_future()
        self.plain = bytearray()
        self.alert = None

    def connection_made(self, transport):
        super().connection_made(transport)
        self.advance()

    def data_received(self, data):
        self.incoming.write(data)
        self.advance()

    def advance(self):
        try:
            if not self.secure.done():
                self.tls.do_handshake()
                self.secure.set_result(None)
            while True:
                self.plain += self.tls.read(65536)
                self._changed.set()
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as error:
            self.alert = error.reason
        finally:
            if not self.secure.done():
                self.transport.write(self.outgoing.read())

    async def until_decrypted(self, count):
        await self.until(lambda self: len(self.plain) >= count)

    def encrypt(self, payload):
        self.tls.write(payload)
        return self.outgoing.read()


async def cut_peers(address, count):
    loop = asyncio.get_running_loop()
    peers = [(await loop.create_connection(CiphertextPeer, *address))[1] for _ in range(count)]
    await asyncio.gather(*(peer.secure for peer in peers))
    for peer in peers:
        peer.transport.write(peer.outgoing.read())  # the client's Finished
    return peers
