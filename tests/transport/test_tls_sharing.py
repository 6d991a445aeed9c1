"""TLS connections of one loop side by side: what the loop shares among them must not show."""

import asyncio
import os
import random
import socket
import ssl
import sys

import pytest
from support.certificates import authority
from support.loops import only_bolide, with_loop
from support.protocols import Recorder
from support.tls_peers import Accepted, Buffered, Echo, blocking_client, connect, cut_peers, read_to_eof, serving


@pytest.mark.parametrize(
    "make", [Echo, lambda: type("BufferedEcho", (Echo, Buffered), {})(900)], ids=["data", "buffer"]
)
@with_loop
async def test_records_that_come_in_pieces_do_not_mix(make):
    """The pieces of a dozen connections interleave, cut anywhere: within headers, and across several records."""
    choose = random.Random(7)
    async with serving(make) as (address, _, _):
        peers = await cut_peers(address, 12)
        payloads = [choose.randbytes(choose.choice([1, 5000, 40_000, 150_000])) for _ in peers]
        left = {peer: peer.encrypt(payload) for peer, payload in zip(peers, payloads, strict=True)}
        while left:
            peer = choose.choice(list(left))
            cut = choose.choice([1, 3, 5, 900, 16_000, 60_000])
            peer.transport.write(left[peer][:cut])
            left[peer] = left[peer][cut:]
            if not left[peer]:
                del left[peer]
            await asyncio.sleep(0)
        for peer, payload in zip(peers, payloads, strict=True):
            await peer.until_decrypted(len(payload))
            assert peer.plain == payload
            peer.transport.abort()


@only_bolide
@with_loop
async def test_a_bad_record_ends_only_its_own_connection():
    async with serving(Echo) as (address, protocols, _):
        good, bad = await cut_peers(address, 2)
        spoilt = bytearray(bad.encrypt(b"x" * 40_000))
        spoilt[100] ^= 1  # in the first of three records; the others are left behind
        whole = good.encrypt(b"hello" * 10_000)
        good.transport.write(whole[:20_000])
        bad.transport.write(bytes(spoilt))
        await bad.until_event("lost")
        assert bad.alert == "SSLV3_ALERT_BAD_RECORD_MAC" or bad.alert == "SSL/TLS_ALERT_BAD_RECORD_MAC"
        good.transport.write(whole[20_000:])
        await good.until_decrypted(50_000)
        assert good.plain == b"hello" * 10_000
        assert sum("lost" in protocol.events for protocol in protocols) == 1
        good.transport.abort()


@with_loop
async def test_data_after_close_notify_is_dropped():
    async with serving() as (address, protocols, _):
        peer, other = await cut_peers(address, 2)
        before = peer.encrypt(b"before")
        with pytest.raises(ssl.SSLWantReadError):
            peer.tls.unwrap()
        peer.transport.write(before + peer.outgoing.read() + b"\x17\x03\x03\x00\x20" + b"x" * 32)
        await protocols[0].until_event("lost")
        assert protocols[0].data == b"before"
        other.transport.write(other.encrypt(b"still there"))
        await protocols[1].until_received(11)
        other.transport.abort()
        peer.transport.abort()


@only_bolide
@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks are new in Python 3.12")
@with_loop
async def test_an_sni_callback_that_works_with_other_connections():
    """OpenSSL is in the middle of a handshake when it writes much to one connection and opens another."""
    loop = asyncio.get_running_loop()
    context = authority().server()
    payload = os.urandom(300_000)
    started = []

    async with serving(Echo, context) as (address, _, _):
        first = await connect(address)
        peer = Accepted(read_to_eof)
        plain = socket.create_connection(peer.address, timeout=20)
        plain.setblocking(False)

        def meddle(*_):
            if not started:
                first.transport.write(payload)
                made = loop.create_connection(
                    Recorder, sock=plain, ssl=authority().client(), server_hostname="localhost"
                )
                started.append(asyncio.Task(made, loop=loop, eager_start=True))

        context.sni_callback = meddle
        second = await connect(address)
        second.transport.write(b"hello")
        await second.until_received(5)
        await first.until_received(len(payload))
        assert first.data == payload
        transport, third = await started[0]
        transport.write(b"third")
        transport.close()
        await third.until_event("lost")
        assert await peer.task == b"third"
        for protocol in (first, second):
            protocol.transport.abort()
            await protocol.until_event("lost")


@only_bolide
@with_loop
async def test_close_with_input_that_was_kept():
    """The owner pauses in the middle of what was read and closes: the close_notify behind the rest is found."""

    class Stops(Buffered):
        def buffer_updated(self, nbytes):
            super().buffer_updated(nbytes)
            self.transport.pause_reading()
            asyncio.get_running_loop().call_soon(self.transport.close)

    peer = Accepted(lambda secure: (secure.sendall(b"x" * 30_000), secure.unwrap())[0])
    protocol = await connect(peer.address, lambda: Stops(700), ssl_shutdown_timeout=3600)
    await protocol.until_event("lost")
    assert len(protocol.data) == 700 and protocol.lost is None
    await peer.task


@with_loop
async def test_a_client_that_sends_with_its_last_handshake_message():
    """Data, and a close_notify, right behind the client's Finished, in the same segment."""
    async with serving() as (address, protocols, _):

        def client():
            with blocking_client(address) as secure:
                secure.sendall(b"early")
                secure.unwrap()

        await asyncio.to_thread(client)
        await protocols[0].until_event("lost")
        assert protocols[0].data == b"early"
