"""aioquic on the loop: QUIC over its datagram transports."""

import asyncio
import os

import pytest

pytest.importorskip("aioquic")

from aioquic.asyncio import connect, serve
from aioquic.quic.configuration import QuicConfiguration


def test_streams(run, tmp_path):
    trustme = pytest.importorskip("trustme")
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost")
    authority.cert_pem.write_to_path(tmp_path / "authority.pem")
    certificate.private_key_and_cert_chain_pem.write_to_path(tmp_path / "certificate.pem")

    async def main():
        tasks = []

        async def echo(reader, writer):
            while data := await reader.read(65536):
                writer.write(data)
            writer.write_eof()

        options = QuicConfiguration(is_client=False, alpn_protocols=["echo"])
        options.load_cert_chain(tmp_path / "certificate.pem", tmp_path / "certificate.pem")
        handler = lambda reader, writer: tasks.append(asyncio.create_task(echo(reader, writer)))  # noqa: E731
        server = await serve("127.0.0.1", 0, configuration=options, stream_handler=handler, retry=True)
        port = server._transport.get_extra_info("sockname")[1]
        options = QuicConfiguration(is_client=True, alpn_protocols=["echo"], server_name="localhost")
        options.load_verify_locations(str(tmp_path / "authority.pem"))
        async with connect("127.0.0.1", port, configuration=options) as client:
            await client.ping()

            async def send(data):
                reader, writer = await client.create_stream()
                writer.write(data)
                writer.write_eof()
                assert await reader.read() == data

            await asyncio.gather(*[send(os.urandom(50000)) for _ in range(5)])
        server.close()
        await asyncio.gather(*tasks)

    run(main())
