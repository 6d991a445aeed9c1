"""Where a server listens: several addresses, both families of IP, sockets of systemd, and what systemd hears."""

import os
import re
import select
import signal
import socket
import subprocess
import sys

import httpx
import pytest
from support.applications import lifespan_app

from bolide.sockets import Address, parse_address

DEADLINE = 20.0


def has_ipv6():
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")


def get_unix(path):
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), timeout=DEADLINE) as client:
        return client.get("http://x/")


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:80", Address(host="127.0.0.1", port=80)),
        (":0", Address(host="", port=0)),
        ("[::1]:8000", Address(host="::1", port=8000)),
        ("name.example:65535", Address(host="name.example", port=65535)),
        ("unix:/run/x.sock", Address(path="/run/x.sock")),
        ("fd://3", Address(fd=3)),
    ],
)
def test_addresses(text, address):
    assert parse_address(text) == address


@pytest.mark.parametrize("text", ["", "host", "::1:80", "host:", "host:65536", "host:-1", "unix:", "fd://x", "[::1]"])
def test_what_is_no_address(text, bolide):
    with pytest.raises(ValueError, match="is no address"):
        parse_address(text)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_several_addresses(bolide, tmp_path, client, workers):
    path = tmp_path / "s"
    binds = ["--bind", "127.0.0.1:0", "--bind", f"unix:{path}", "--bind", "127.0.0.1:0"]
    command = bolide("main:app", *binds, "--workers", workers)
    where = [command.wait_ready() for _ in range(3)]
    assert where[1] == f"unix socket {path}"
    assert where[0] != where[2]
    for url in (where[0], where[2]):
        assert client.get(url).status_code == 200
    assert get_unix(path).status_code == 200
    assert command.stop() == 0
    assert not path.exists()


def test_an_address_in_use_among_several_is_told_and_leaves_nothing(bolide, tmp_path):
    path = tmp_path / "s"
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = f"127.0.0.1:{other.getsockname()[1]}"
        for workers in ("1", "2"):
            command = bolide("main:app", "--bind", f"unix:{path}", "--bind", taken, "--workers", workers)
            assert command.wait() == 1
            assert f"Cannot listen on {taken}: address already in use" in command.stderr
            assert not path.exists()


def test_a_wrong_bind_is_one_line_and_exit_code_2(bolide):
    command = bolide("main:app", "--bind", "nowhere")
    assert command.wait() == 2
    assert len(command.stderr.splitlines()) == 1


@needs_ipv6
@pytest.mark.parametrize("arguments", [["--host", "", "--port", "0"], ["--bind", ":0"]], ids=" ".join)
@pytest.mark.parametrize("workers", ["1", "2"])
def test_all_interfaces_are_both_families_on_one_port(bolide, client, arguments, workers):
    command = bolide("main:app", *arguments, "--workers", workers)
    port = re.search(r":(\d+)$", command.wait_ready())[1]
    for host in ("127.0.0.1", "[::1]"):
        assert client.get(f"http://{host}:{port}/").status_code == 200
    assert command.stop() == 0


@needs_ipv6
def test_an_address_of_ipv6(bolide, client):
    command = bolide("main:app", "--bind", "[::1]:0")
    url = command.wait_ready()
    assert re.fullmatch(r"http://\[::1\]:\d+", url)
    assert "'client': ('::1', " in client.get(url).text
    assert command.stop() == 0


def test_tcp_options_serve(bolide, client):
    options = ["--tcp-keepalive", "77", "--tcp-defer-accept", "5", "--tcp-fast-open", "16"]
    command = bolide("main:app", "--port", "0", *options)
    assert client.get(command.wait_ready()).status_code == 200
    assert command.stop() == 0


def test_tcp_options_are_set():
    from bolide.sockets import TCPOptions

    with socket.socket() as sock:
        TCPOptions(keepalive=77, defer_accept=5, fast_open=16).apply(sock)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 77
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT) >= 5
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_FASTOPEN) == 16
    with pytest.raises(ValueError, match="tcp_keepalive"):
        TCPOptions(keepalive=-1)


# --- systemd ----------------------------------------------------------------------------------------------------------

# What systemd does: descriptors from 3 on, and variables that name the process it makes.
ACTIVATE = """
import os, sys
count = int(sys.argv[1])
os.environ["LISTEN_PID"] = sys.argv[2] if sys.argv[2] != "own" else str(os.getpid())
os.environ["LISTEN_FDS"] = str(count)
os.execv(sys.executable, [sys.executable, "-m", "bolide", *sys.argv[3:]])
"""


class Activated:
    """The command, started with sockets as systemd does it."""

    def __init__(self, sockets, folder, *arguments, pid="own", env=None):
        duplicates = [os.dup(sock.fileno()) for sock in sockets]
        # From 3 on, which the child alone can arrange: the numbers may be in use here.
        arrange = "import fcntl, os, sys; fds = [int(fd) for fd in sys.argv[1].split(',')]\n"
        arrange += "high = [fcntl.fcntl(fd, fcntl.F_DUPFD, 100) for fd in fds]\n"
        arrange += "[os.dup2(fd, 3 + n) for n, fd in enumerate(high)]\nsys.argv[:2] = ['-c']\n"
        command = [sys.executable, "-c", arrange + ACTIVATE, ",".join(map(str, duplicates)), str(len(sockets)), pid]
        self.process = subprocess.Popen(
            [*command, *arguments], cwd=folder, env={**os.environ, **(env or {})}, pass_fds=duplicates,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        for fd in duplicates:
            os.close(fd)

    def wait_ready(self):
        lines = []
        for line in self.process.stderr:
            lines.append(line)
            if found := re.search(r"running on (.+) \(Press", line):
                return found[1]
        raise AssertionError("".join(lines))

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self.process.kill()
        self.process.wait()
        self.process.stderr.close()


@pytest.mark.parametrize("arguments", [[], ["--workers", "2"], ["--reload"]], ids=["one", "workers", "reload"])
def test_socket_activation(write, tmp_path, client, arguments):
    write("main.py")
    path = tmp_path / "s"
    with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(path))
        unix.listen()
        port = tcp.getsockname()[1]
        with Activated([tcp, unix], tmp_path, "main:app", "--port", "1", *arguments) as activated:
            assert str(port) in activated.wait_ready()
            assert client.get(f"http://127.0.0.1:{port}/").status_code == 200
            assert get_unix(path).status_code == 200
            activated.process.send_signal(signal.SIGTERM)
            assert activated.process.wait(DEADLINE) == 0
    assert path.exists(), "the file is systemd's"


def test_sockets_of_another_process_are_left_alone(write, tmp_path):
    write("main.py")
    with socket.create_server(("127.0.0.1", 0)) as tcp:
        port = tcp.getsockname()[1]
        with Activated([tcp], tmp_path, "main:app", "--port", "0", pid="1") as activated:
            assert str(port) not in activated.wait_ready()


class Manager:
    """What a service is told to notify: a datagram socket."""

    def __init__(self, folder):
        self.path = str(folder / "notify")
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sock.bind(self.path)
        self.sock.settimeout(DEADLINE)

    def next(self, skip="WATCHDOG=1"):
        while True:
            message = self.sock.recv(4096).decode()
            if message != skip:
                return message.split("\n")[0]

    def is_quiet(self):
        return not select.select([self.sock], [], [], 0)[0]


@pytest.fixture
def manager(tmp_path):
    made = Manager(tmp_path)
    yield made
    made.sock.close()


@pytest.mark.parametrize("workers", ["1", "2"])
def test_notifications(bolide, client, manager, workers):
    command = bolide("main:app", "--port", "0", "--workers", workers, env={"NOTIFY_SOCKET": manager.path})
    assert manager.next() == "READY=1"
    assert client.get(command.wait_ready()).status_code == 200
    if workers == "2":
        command.send(signal.SIGHUP)
        assert manager.next() == "RELOADING=1"
        assert manager.next() == "READY=1"
    command.send(signal.SIGTERM)
    assert manager.next() == "STOPPING=1"
    assert command.wait() == 0
    assert manager.is_quiet()


def test_ready_comes_after_the_startup(bolide, manager, write):
    startup = """
        assert "NOTIFY_SOCKET" not in os.environ, "the application would speak for the server"
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        sock.sendto(b"APPLICATION", os.environ["MANAGER"])
    """
    write("late.py", lifespan_app(startup))
    command = bolide("late:app", "--port", "0", env={"NOTIFY_SOCKET": manager.path, "MANAGER": manager.path})
    assert manager.next() == "APPLICATION"
    assert manager.next() == "READY=1"
    assert command.stop() == 0


@pytest.mark.parametrize("workers", ["1", "2"])
def test_watchdog(bolide, manager, workers):
    env = {"NOTIFY_SOCKET": manager.path, "WATCHDOG_USEC": "200000"}
    command = bolide("main:app", "--port", "0", "--workers", workers, env=env)
    assert manager.next() == "READY=1"
    for _ in range(5):
        assert manager.next(skip=None) == "WATCHDOG=1"
    assert command.stop() == 0


def test_no_watchdog_when_it_is_for_another_process(bolide, manager):
    env = {"NOTIFY_SOCKET": manager.path, "WATCHDOG_USEC": "20000", "WATCHDOG_PID": "1"}
    command = bolide("main:app", "--port", "0", env=env)
    assert manager.next(skip=None) == "READY=1"
    command.wait_ready()
    command.send(signal.SIGTERM)
    assert manager.next(skip=None) == "STOPPING=1"
    assert command.wait() == 0
