"""asyncssh, client and server, on the loop."""

import asyncio
import os

import pytest

asyncssh = pytest.importorskip("asyncssh")


class Anybody(asyncssh.SSHServer):
    """Lets everybody in, and forwards for them."""

    def begin_auth(self, username):
        return False

    def connection_requested(self, *_):
        return True


async def upper(process):
    async for line in process.stdin:
        process.stdout.write(line.upper())
    process.exit(3)


async def shout(reader, writer):
    writer.write((await reader.readline()).upper())
    writer.close()


def test_commands_files_and_forwarding(run, tmp_path):
    async def main():
        key = asyncssh.generate_private_key("ssh-ed25519")
        options = {"server_host_keys": [key], "process_factory": upper, "sftp_factory": True}
        server = await asyncssh.create_server(Anybody, "127.0.0.1", 0, **options)
        port = server.sockets[0].getsockname()[1]
        target = await asyncio.start_server(shout, "127.0.0.1", 0)
        nobody = {"known_hosts": None, "username": "nobody", "client_keys": None, "config": []}
        async with asyncssh.connect("127.0.0.1", port, **nobody) as connection:
            result = await connection.run("upper", input="one\ntwo\n")
            assert (result.stdout, result.exit_status) == ("ONE\nTWO\n", 3)
            (tmp_path / "sent").write_bytes(os.urandom(1000000))
            async with connection.start_sftp_client() as sftp:
                await sftp.put(tmp_path / "sent", tmp_path / "stored")
                await sftp.get(tmp_path / "stored", tmp_path / "back")
            assert (tmp_path / "back").read_bytes() == (tmp_path / "sent").read_bytes()
            forwarder = await connection.forward_local_port("127.0.0.1", 0, *target.sockets[0].getsockname())
            reader, writer = await asyncio.open_connection("127.0.0.1", forwarder.get_port())
            writer.write(b"hello\n")
            assert await reader.read() == b"HELLO\n"
            writer.close()
        server.close()
        target.close()
        await server.wait_closed()

    run(main())
