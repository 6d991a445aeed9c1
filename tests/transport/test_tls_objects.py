"""The SSLObject of a TLS transport in its user's hands, and code of a user's that OpenSSL calls: whatever is done, in
whichever thread, no byte of one connection gets into another."""

import asyncio
import contextlib
import os
import ssl
import sys
import threading
import time

import pytest
from support.certificates import authority
from support.loops import only_bolide, with_loop
from support.protocols import closed
from support.tls_peers import Accepted, Buffered, Echo, blocking_client, connect, cut_peers, read_to_eof, serving

INFORMATION = ["getpeercert", "cipher", "version", "pending", "selected_alpn_protocol", "compression", "shared_ciphers"]


def ssl_object(protocol):
    return protocol.transport.get_extra_info("ssl_object")


async def until_made(*protocols):
    """The server's end is there later than the client's."""
    for protocol in protocols:
        await protocol.until_event("made")


@with_loop
async def test_it_tells_of_the_connection_also_after_the_end():
    async with serving() as (address, protocols, _):
        protocol = await connect(address)
        await until_made(*protocols)
        tells = ssl_object(protocol)
        assert type(tells) is ssl.SSLObject and tells is ssl_object(protocol)
        assert tells.getpeercert()["subjectAltName"] == (("DNS", "localhost"),)
        assert tells.version() == "TLSv1.3" and tells.cipher()[0].startswith("TLS_")
        assert tells.server_side is False and tells.server_hostname == "localhost"
        assert tells.pending() == 0 and tells.session is not None and not tells.session_reused
        assert ssl_object(protocols[0]).shared_ciphers()
        with pytest.raises(AttributeError):
            tells.no_such_thing  # noqa: B018
        await closed(protocol)
        assert tells.version() == "TLSv1.3" and tells.getpeercert()


@with_loop
async def test_what_is_written_by_it_goes_to_its_own_peer():
    async with serving(Echo) as (address, _, _):
        one, other = await connect(address), await connect(address)
        one.transport.write(b"first, ")
        assert ssl_object(one).write(b"past the transport, ") == 20
        other.transport.write(b"hello")
        one.transport.write(b"third")
        await other.until_received(5)
        await one.until_received(32)
        assert (bytes(one.data), bytes(other.data)) == (b"first, past the transport, third", b"hello")
        await closed(one, other)


@with_loop
async def test_reading_by_it_finds_nothing():
    async with serving(Echo) as (address, _, _):
        one, other = await connect(address), await connect(address)
        for number in range(20):
            other.transport.write(b"%4d" % number)
            for _ in range(3):
                with pytest.raises(ssl.SSLWantReadError):
                    ssl_object(one).read(100)
                ssl_object(one).do_handshake()
                await asyncio.sleep(0)
        await other.until_received(80)
        one.transport.write(b"still there")
        await one.until_received(11)
        await closed(one, other)


@only_bolide
@with_loop
async def test_unwrap_by_it_ends_its_own_connection():
    async with serving(Echo) as (address, protocols, _):
        one, other = await connect(address), await connect(address)
        one.transport.write(b"before")
        with pytest.raises(ssl.SSLWantReadError):
            ssl_object(one).unwrap()
        other.transport.write(b"hello")
        await other.until_received(5)
        await one.until_event("lost")
        assert [bytes(protocol.data) for protocol in protocols] == [b"before", b"hello"]
        with pytest.raises(ssl.SSLZeroReturnError, match="closed"):
            ssl_object(one).write(b"late")
        await closed(other)


@only_bolide
@with_loop
async def test_writing_to_a_transport_that_closes():
    async with serving() as (address, _, _):
        protocol = await connect(address)
        protocol.transport.close()
        with pytest.raises(ssl.SSLZeroReturnError, match="closing"):
            ssl_object(protocol).write(b"late")
        with pytest.raises(TypeError):
            ssl_object(protocol).write("text")
        await protocol.until_event("lost")


@only_bolide
@with_loop
async def test_other_threads_and_many_connections():
    """Threads do what the object offers, while each connection carries bytes of its own."""
    streams, rounds = 8, 40
    refused, unexpected, stop = [], [], threading.Event()

    def hammer(objects):
        while not stop.is_set():
            for thing in objects:
                for call in (
                    lambda: thing.write(b"from another thread"),  # noqa: B023
                    lambda: thing.read(5),  # noqa: B023
                    lambda: thing.unwrap(),  # noqa: B023
                    lambda: thing.do_handshake(),  # noqa: B023
                ):
                    try:
                        call()
                        unexpected.append("nothing was raised")
                    except RuntimeError as error:
                        refused.append(error)
                    except Exception as error:
                        unexpected.append(error)
                for name in INFORMATION:
                    getattr(thing, name)()

    async with serving(Echo) as (address, protocols, _):
        clients = [await connect(address) for _ in range(streams)]
        await until_made(*protocols)
        objects = [ssl_object(protocol) for protocol in (*clients, *protocols)]
        threads = [threading.Thread(target=hammer, args=(objects,)) for _ in range(2)]
        for thread in threads:
            thread.start()
        try:
            sent = [bytearray() for _ in clients]
            for number in range(rounds):
                for index, client in enumerate(clients):
                    piece = bytes([65 + index]) * (1 + 7919 * (number + index) % 50_000)
                    sent[index] += piece
                    client.transport.write(piece)
                await clients[number % streams].until_received(len(sent[number % streams]))
            for data, client in zip(sent, clients, strict=True):
                await client.until_received(len(data))
            while not refused:  # the other threads get their turn some time
                await asyncio.sleep(0)
        finally:
            stop.set()
            for thread in threads:
                thread.join(20)
        assert unexpected == []
        assert all(client.data == data for data, client in zip(sent, clients, strict=True))
        await closed(*clients)


@only_bolide
@with_loop
async def test_other_threads_that_close_connections():
    """They do so while OpenSSL works without the GIL, in the middle of several records."""
    stop, doomed = threading.Event(), []

    def close_all():
        while not stop.is_set():
            while doomed:
                doomed.pop().transport.abort()

    async with serving(Echo) as (address, _, _):
        steady = await connect(address)
        expected = bytearray()
        thread = threading.Thread(target=close_all)
        thread.start()
        try:
            for number in range(60):
                victim = await connect(address)
                victim.transport.write(b"x" * 200_000)
                piece = b"%d " % number * 9000
                steady.transport.write(piece)
                expected += piece
                doomed.append(victim)
                await steady.until_received(len(expected))
                await victim.until_event("lost")
        finally:
            stop.set()
            thread.join(20)
        assert steady.data == expected
        await closed(steady)


@only_bolide
@with_loop
async def test_an_sni_callback_that_uses_the_object_of_another_connection():
    context = authority().server()
    outcomes = []

    async with serving(Echo, context) as (address, _, _):
        first = await connect(address)
        mine = ssl_object(first)

        def meddle(new, *_):
            for thing in (mine, new):
                for method in (thing.do_handshake, thing.unwrap, lambda thing=thing: thing.read(10)):
                    with contextlib.suppress(RuntimeError):
                        method()
                        outcomes.append(method)
            mine.write(b"from the callback")

        context.sni_callback = meddle
        second = await connect(address)
        second.transport.write(b"hello")
        await second.until_received(5)
        await first.until_received(17)
        assert outcomes == []
        assert (bytes(first.data), bytes(second.data)) == (b"from the callback", b"hello")
        await closed(first, second)


@only_bolide
@with_loop
async def test_a_callback_that_closes_in_the_middle_of_several_records():
    """What is left of them is not for the next connection."""
    context = authority().server()
    armed = []

    def close(_, direction, *rest):
        if direction == "read" and armed:
            armed.pop().transport.abort()

    async with serving(Echo, context) as (address, protocols, _):
        others = await cut_peers(address, 2)
        context._msg_callback = close
        (victim,) = await cut_peers(address, 1)
        victim.transport.write(victim.encrypt(b"hello"))
        await victim.until_decrypted(5)
        armed.append(protocols[2])
        victim.transport.write(victim.encrypt(b"x" * 60_000))
        await victim.until_event("lost")
        assert armed == []
        for peer in others:
            peer.transport.write(peer.encrypt(b"hello" * 5000))
        for peer in others:
            await peer.until_decrypted(25_000)
            assert peer.plain == b"hello" * 5000
            peer.transport.abort()


@only_bolide
@pytest.mark.parametrize("overridden", ["read", "write", "do_handshake", "nothing"])
@with_loop
async def test_an_object_of_a_class_with_code_of_its_own(overridden):
    """It works on BIOs of its own: what it does at the wrong time is a matter of its connection alone."""
    calls = []

    class Own(ssl.SSLObject):
        pass

    def method(self, *arguments):
        calls.append(overridden)
        for thing in others:
            if thing is not self:
                with contextlib.suppress(ssl.SSLError):
                    ssl.SSLObject.read(thing, 10)
        return getattr(ssl.SSLObject, overridden)(self, *arguments)

    if overridden != "nothing":
        setattr(Own, overridden, method)
    others = []
    context, client_context = authority().server(), authority().client()
    context.sslobject_class = client_context.sslobject_class = Own
    payload = os.urandom(150_000)
    async with serving(Echo, context) as (address, protocols, _):
        clients = [await connect(address, context=client_context) for _ in range(4)]
        await until_made(*protocols)
        others += [ssl_object(protocol) for protocol in (*clients, *protocols)]
        assert all(type(thing) is Own for thing in others)
        assert ssl_object(clients[0]).write(b"aside, ") == 7
        for client in clients:
            client.transport.write(payload)
        for client in clients:
            expected = b"aside, " + payload if client is clients[0] else payload
            await client.until_received(len(expected))
            assert client.data == expected
        assert bool(calls) == (overridden != "nothing")
        await closed(*clients)


@only_bolide
@with_loop
async def test_a_context_that_wraps_in_a_way_of_its_own():
    kept = []

    class Context(ssl.SSLContext):
        def wrap_bio(self, incoming, outgoing, **options):
            kept.append((incoming, outgoing))
            return super().wrap_bio(incoming, outgoing, **options)

    context = Context(ssl.PROTOCOL_TLS_CLIENT)
    authority().ca.configure_trust(context)
    async with serving(Echo) as (address, _, _):
        one, other = [await connect(address, context=context) for _ in range(2)]
        plain = await connect(address)
        assert len({id(bio) for pair in kept for bio in pair}) == 4
        for client in (plain, one, other):
            client.transport.write(b"hello")
        for client in (plain, one, other):
            await client.until_received(5)
        await closed(plain, one, other)


@only_bolide
@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks are new in Python 3.12")
@with_loop
async def test_plaintext_that_is_dropped_is_not_parsed_as_another_connections(tmp_path):
    """The application closes a TLS client, which has half a record left, between two requests that came together."""
    import bolide

    seen, clients = [], []

    async def app(scope, receive, send):
        if scope["type"] != "http":
            return
        seen.append(scope["path"])
        if scope["path"] == "/one":
            clients[0].transport.close()
            time.sleep(0.003)  # so that output leaves before the next request
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body"})

    class Stops(Buffered):
        def buffer_updated(self, nbytes):
            super().buffer_updated(nbytes)
            self.transport.pause_reading()

    def ask(address):
        with blocking_client(address) as secure:
            secure.sendall(
                b"GET /one HTTP/1.1\r\nhost: localhost\r\n\r\n"
                b"GET /two HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
            )
            return read_to_eof(secure)

    peer = Accepted(lambda secure: (secure.sendall(b"GET /leak HTTP/1.1\r\nhost: x\r\n\r\n" * 500), secure.recv(1))[1])
    clients.append(await connect(peer.address, lambda: Stops(700)))
    await clients[0].until_received(700)

    issued = authority().issue("localhost")
    chain, key = tmp_path / "chain.pem", tmp_path / "key.pem"
    issued.private_key_pem.write_to_path(key)
    for pem in issued.cert_chain_pems:
        pem.write_to_path(chain, append=True)
    server = bolide.Server(
        bolide.Config(app, port=0, log_config=None, lifespan="off", ssl_certfile=str(chain), ssl_keyfile=str(key))
    )
    task = asyncio.ensure_future(server.serve())
    async with asyncio.timeout(20):
        while not server.started:
            await asyncio.sleep(0.001)
    answer = await asyncio.to_thread(ask, server.servers[0].sockets[0].getsockname())
    server.should_exit = True
    await task
    await peer.task
    assert seen == ["/one", "/two"]
    assert answer.count(b"HTTP/1.1 200") == 2
