"""The chat example, started as its README says: members over WebSocket, and two pages in a real Chromium."""

import json
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from support import REPOSITORY, ServerProcess
from support.chromium import Chromium, Page, find_chromium
from support.http_client import TIMEOUT
from support.server import Output, exit_status_of
from support.websocket_client import WebSocket

client = pytest.importorskip("websockets.sync.client")
exceptions = pytest.importorskip("websockets.exceptions")
needs_chromium = pytest.mark.skipif(find_chromium() is None, reason="there is no Chromium")


def start(*options: str, **env: str) -> ServerProcess:
    """Start it by its one line."""
    return ServerProcess("chat.main:app", *options, app_dir="examples", cwd=REPOSITORY, env=env)


@pytest.fixture
def redis_url() -> Iterator[str]:
    """A Redis of its own."""
    pytest.importorskip("redis")
    command = shutil.which("redis-server")
    if command is None:
        pytest.skip("there is no redis-server")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", "/tmp"]
    process = subprocess.Popen([command, *options], stdout=subprocess.PIPE, text=True)
    output = Output(process.stdout)
    try:
        output.wait_for("Ready to accept connections")
        yield f"redis://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()
        output.join()


def connect(server: ServerProcess, path: str):
    """A WebSocket of a client that others wrote."""
    return client.connect(server.url.replace("http", "ws") + path)


def read(connection) -> dict:
    """The next message."""
    return json.loads(connection.recv(TIMEOUT))


def read_until(connection, wanted) -> dict:
    """The first message that is as wanted."""
    while not wanted(message := read(connection)):
        pass
    return message


def test_rooms():
    with start() as server:
        with connect(server, "/rooms/tea?name=Ada") as ada:
            assert read(ada) == {"kind": "joined", "name": "Ada"}
            with connect(server, "/rooms/tea?name=Bob") as bob, connect(server, "/rooms/milk?name=Cy") as cy:
                assert read(ada) == read(bob) == {"kind": "joined", "name": "Bob"}
                assert read(cy) == {"kind": "joined", "name": "Cy"}
                ada.send("grüß dich")
                assert read(ada) == read(bob) == {"kind": "text", "name": "Ada", "text": "grüß dich"}
                cy.send("alone")
                assert read(cy)["text"] == "alone"
                with connect(server, "/dashboard") as dashboard:
                    overview = {"processes": 1, "rooms": {"tea": 2, "milk": 1}, "messages": 2}
                    read_until(dashboard, overview.__eq__)
            assert read(ada) == {"kind": "left", "name": "Bob"}
        with connect(server, "/rooms/tea?name=") as nobody, pytest.raises(exceptions.ConnectionClosed) as caught:
            nobody.recv(TIMEOUT)
        assert caught.value.rcvd.code == 1008
        assert server.stop() in exit_status_of(signal.SIGINT)
        assert "Traceback" not in server.log.text


def test_slow_member_is_closed_and_keeps_nobody_waiting():
    with start() as server, connect(server, "/rooms/r?name=fast") as fast:
        assert read(fast)["name"] == "fast"
        with WebSocket(server, "/rooms/r?name=slow", receive_buffer=4096):
            assert read(fast)["name"] == "slow"
            text = "x" * 2000
            for _ in range(20_000):
                fast.send(text)
                if (message := read(fast))["kind"] == "left":
                    break
                assert message["text"] == text
            assert message == {"kind": "left", "name": "slow"}


def test_broadcast_across_processes(redis_url):
    with ExitStack() as stack, start("--workers", "2", REDIS_URL=redis_url) as server:
        members = []
        dashboard = stack.enter_context(connect(server, "/dashboard"))
        read_until(dashboard, lambda overview: overview["processes"] == 2)
        # The kernel chooses the process of each connection.
        for number in range(12):
            members.append(stack.enter_context(connect(server, f"/rooms/big?name=m{number}")))
            read_until(members[-1], {"kind": "joined", "name": f"m{number}"}.__eq__)
        read_until(dashboard, lambda overview: overview["rooms"] == {"big": 12})
        for number, sender in enumerate(members):
            sender.send(f"message {number}")
            for member in members:
                read_until(member, {"kind": "text", "name": f"m{number}", "text": f"message {number}"}.__eq__)


def join(page: Page, room: str, name: str) -> None:
    """Join a room by the page's form."""
    page.fill_in("room", room)
    page.fill_in("name", name)
    page.submit("join")
    page.wait_for("document.getElementById('status').dataset.state === 'open'")


def say(page: Page, text: str) -> None:
    """Send a message by the page's form."""
    page.fill_in("text", text)
    page.submit("say")


def wait_for_line(page: Page, line: str) -> None:
    """Wait until the log of the page has this line."""
    page.wait_for(f"[...document.querySelectorAll('#log div')].some(line => line.textContent === {json.dumps(line)})")


@needs_chromium
@pytest.mark.slow
@pytest.mark.timeout(150)
def test_two_pages_talk_and_come_back_after_a_restart():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    with Chromium() as browser:
        with start("--port", port) as server:
            one, two = browser.open(server.url), browser.open(server.url)
            join(one, "tea", "Ada")
            join(two, "tea", "Bob")
            wait_for_line(one, "Bob joined")
            say(one, "hello <b>Bob</b>")
            wait_for_line(two, "Ada: hello <b>Bob</b>")
            say(two, "€ 𐍈")
            wait_for_line(one, "Bob: € 𐍈")
            for page in (one, two):
                page.wait_for("document.getElementById('rooms').innerText.trim() === 'tea\\t2'")
                page.wait_for("document.getElementById('messages').textContent === '2'")
            assert server.stop() in exit_status_of(signal.SIGINT)
        for page in (one, two):
            page.wait_for("document.getElementById('status').dataset.state === 'closed'")
        time.sleep(0.3)  # long enough for an attempt that fails
        with start("--port", port):
            for page in (one, two):
                page.wait_for("document.getElementById('status').dataset.state === 'open'")
            say(one, "back again")
            wait_for_line(two, "Ada: back again")
