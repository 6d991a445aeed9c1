"""Servers and connections beside those of asyncio's own loop: arguments, what they make, and the words of errors."""

import asyncio
import pathlib
import re
import socket
import ssl

import pytest
from support.loops import not_uvloop
from support.protocols import Recorder
from support.side_by_side import check

# What asyncio leaves open where a call fails is not told of here.
pytestmark = [not_uvloop, pytest.mark.filterwarnings("ignore::ResourceWarning")]

HOST = "127.0.0.1"


def tls():
    return ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)


def bound_socket():
    sock = socket.socket()
    sock.bind((HOST, 0))
    return sock


def closed_socket():
    sock = socket.socket()
    sock.close()
    return sock


# What is called is made anew for each call.
TCP_SERVERS = [
    *[((), {}), ((None,), {}), ((HOST,), {}), ((HOST, None), {}), ((None, 0), {}), (("", 0), {}), ((HOST, 0), {})],
    *[(([HOST, "::1"], 0), {}), (([HOST, HOST], 0), {}), (([], 0), {}), (([None], 0), {}), (([""], 0), {})],
    *[((b"127.0.0.1", 0), {}), ((5, 0), {}), ((HOST, "0"), {}), ((HOST, "no-service"), {})],
    *[((HOST, 70000), {}), ((HOST, -1), {}), ((HOST, 1.5), {}), ((HOST, "taken"), {}), (("::1%nowhere", 0), {})],
    *[((HOST, "taken"), {"reuse_port": True}), ((HOST, 0), {"reuse_port": True}), (("1.2.3.4", 0), {})],
    *[((HOST, 0), {"reuse_address": value}) for value in (False, True)],
    *[((host, 0), {"family": family}) for host in (None, HOST) for family in (socket.AF_INET, socket.AF_INET6, 99)],
    *[((), {"sock": sock}) for sock in (socket.socket, bound_socket, closed_socket, 5)],
    *[((HOST, 0), {"sock": bound_socket}), ((None, 0), {"sock": bound_socket})],
    *[((HOST, 0), {"backlog": value}) for value in (0, "x", -1, 2**40, None)],
    *[((HOST, 0), keywords) for keywords in ({"start_serving": False}, {"ssl": True}, {"ssl": 5})],
    *[((HOST, 0), keywords) for keywords in ({"ssl_handshake_timeout": 5}, {"ssl_shutdown_timeout": 5}, {"x": 1})],
    *[((HOST, 0), {"ssl": tls}), ((HOST, 0, 5), {})],
]

UNIX_SERVERS = [
    *[((), {}), ((None,), {}), (("D/a",), {}), ((pathlib.Path("D/b"),), {}), ((b"D/c",), {}), (("D/file",), {})],
    *[(("D/folder",), {}), (("D/dangling",), {}), (("D/stale",), {}), (("D/link to stale",), {}), (("D/live",), {})],
    *[(("D/no/x",), {}), (("x" * 200,), {}), (("\0bolide-tests",), {}), ((b"\0bolide-tests",), {}), (("",), {})],
    *[((5,), {}), (("D/a\0b",), {}), (("D/x", "D/y"), {})],
    *[((), {"sock": sock}) for sock in (socket.socket, closed_socket, 5)],
    *[(("D/z",), keywords) for keywords in ({"sock": socket.socket}, {"backlog": 0}, {"backlog": "x"}, {"ssl": True})],
    *[(("D/z",), keywords) for keywords in ({"ssl_handshake_timeout": 5}, {"cleanup_socket": False}, {"x": 1})],
]


def made_here(value, folder, taken):
    """The argument that is meant, in this run."""
    if value == "taken":
        return taken.getsockname()[1]
    if isinstance(value, pathlib.Path):
        return folder / value.name
    if isinstance(value, bytes):
        return value.replace(b"D/", bytes(folder) + b"/")
    if isinstance(value, str):
        return value.replace("D/", f"{folder}/")
    return value() if callable(value) else value


def note_server(notes, server, folder):
    for sock in server.sockets:
        notes(sock.family, sock.type, sock.proto, sock.gettimeout(), sock.get_inheritable())
        for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT, socket.SO_KEEPALIVE):
            notes(sock.getsockopt(socket.SOL_SOCKET, option))
    shown = re.sub(r", \d+(, 0, 0)?\)", ", PORT)", repr(server).replace(str(folder), "D"))
    notes(shown, server.is_serving())


@pytest.mark.parametrize("kind", ["create_server", "create_unix_server"])
def test_arguments_of_servers(kind, tmp_path_factory):
    async def scenario(loop, notes):
        folder = tmp_path_factory.mktemp("d")
        folder.joinpath("file").touch()
        folder.joinpath("folder").mkdir()
        folder.joinpath("dangling").symlink_to("nowhere")
        folder.joinpath("link to stale").symlink_to("stale")
        with socket.socket(socket.AF_UNIX) as stale:
            stale.bind(str(folder / "stale"))
        live, taken = socket.socket(socket.AF_UNIX), socket.create_server((HOST, 0))
        live.bind(str(folder / "live"))
        live.listen()
        for places, keywords in TCP_SERVERS if kind == "create_server" else UNIX_SERVERS:
            notes(*places, *keywords)
            given = {name: made_here(value, folder, taken) for name, value in keywords.items()}
            try:
                server = await getattr(loop, kind)(
                    Recorder, *(made_here(value, folder, taken) for value in places), **given
                )
            except Exception as error:
                words = str(error).replace(str(folder), "D").replace(f"{taken.getsockname()[1]}", "PORT")
                notes(type(error).__name__, words, getattr(error, "errno", None))
            else:
                note_server(notes, server, folder)
                server.close()
                notes(server.sockets, server.is_serving())
                await asyncio.wait_for(server.wait_closed(), 20)
            if isinstance(given.get("sock"), socket.socket):
                given["sock"].close()
            notes(sorted(path.name for path in folder.iterdir()))
        live.close()
        taken.close()

    check(scenario)


CONNECTIONS = [
    *[
        ((), {}),
        ((HOST,), {}),
        ((HOST, None), {}),
        ((None, None), {}),
        ((HOST, "open"), {}),
        ((b"127.0.0.1", "open"), {}),
    ],
    *[((HOST, "closed"), {}), (("::1", "closed"), {}), ((HOST, 70000), {}), ((HOST, -1), {}), ((HOST, 1.5), {})],
    *[((HOST, "no-service"), {}), ((5, 5), {}), (("::1%nowhere", 5), {}), (("255.255.255.255", 5), {})],
    *[
        ((HOST, "open"), {"local_addr": address})
        for address in ((HOST, 0), ("1.2.3.4", 0), ("::1", 0), HOST, (HOST,), 5)
    ],
    *[((HOST, "closed"), {"local_addr": ("1.2.3.4", 0)}), (("localhost", "open"), {"local_addr": ("1.2.3.4", 0)})],
    *[((HOST, "open"), {"happy_eyeballs_delay": delay}) for delay in (-1, 0.01)],
    *[((HOST, "closed"), {"happy_eyeballs_delay": 0.01}), ((HOST, "open"), {"interleave": "x"})],
    *[((HOST, "open"), {"family": family}) for family in (socket.AF_INET6, socket.AF_UNIX, 99)],
    *[((HOST, "open"), {"proto": socket.IPPROTO_UDP}), (("localhost", "open"), {"flags": socket.AI_NUMERICHOST})],
    *[((), {"sock": sock}) for sock in (closed_socket, 5)],
    *[((HOST, "open"), {"sock": socket.socket}), ((HOST,), {"sock": socket.socket})],
    *[((HOST, "open"), {"server_hostname": "x"}), ((None, "open"), {"ssl": True}), ((HOST, "open", 5), {})],
    *[((HOST, "open"), {keyword: 5}) for keyword in ("ssl_handshake_timeout", "ssl_shutdown_timeout", "other")],
    *[((HOST, "open"), {"ssl": True, "ssl_handshake_timeout": 0})],
]


@pytest.mark.parametrize("all_errors", [None, True])
def test_arguments_of_connections(all_errors):
    async def scenario(loop, notes):
        with socket.create_server((HOST, 0)) as listening, bound_socket() as closed:
            ports = {"open": listening.getsockname()[1], "closed": closed.getsockname()[1]}

            def plain(text):
                for name, port in ports.items():
                    text = text.replace(str(port), name)
                return text

            for places, keywords in CONNECTIONS:
                notes(*places, *keywords)
                given = {name: value() if callable(value) else value for name, value in keywords.items()}
                if all_errors and hasattr(asyncio, "eager_task_factory"):  # both are new in CPython 3.12
                    given["all_errors"] = True
                try:
                    transport, protocol = await asyncio.wait_for(
                        loop.create_connection(Recorder, *(ports.get(value, value) for value in places), **given), 20
                    )
                except Exception as error:
                    errors = getattr(error, "exceptions", ())
                    notes(type(error).__name__, plain(str(error)), [plain(repr(each)) for each in errors])
                else:
                    sock = transport.get_extra_info("socket")
                    notes(sock.family, sock.type, sock.proto, sock.gettimeout(), sock.get_inheritable())
                    notes(transport.get_extra_info("sockname")[0], transport.get_extra_info("peername")[0])
                    transport.abort()
                    await protocol.until_event("lost")
                if isinstance(given.get("sock"), socket.socket):
                    given["sock"].close()

    check(scenario)
