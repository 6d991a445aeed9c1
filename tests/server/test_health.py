"""The path that the server answers by itself."""

import re
import signal
import threading

import httpx
import pytest

APP = """
    import asyncio, pathlib

    async def app(scope, receive, send):
        if scope["path"] == "/slow":
            print("slow", flush=True)
            while not pathlib.Path("go").exists():
                await asyncio.sleep(0.005)
        body = b"application"
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
        await send({"type": "http.response.body", "body": body})
"""


@pytest.fixture
def served(serve, write):
    write("healthy.py", APP)

    def start(*arguments):
        return serve("healthy:app", "--lifespan", "off", "--health-path", "/healthz", *arguments)

    return start


def test_the_path_is_answered_without_the_application(served, client):
    command, url = served()
    for target in ("/healthz", "/healthz?full=1"):
        answer = client.get(url + target)
        assert (answer.status_code, answer.text) == (200, "ok\n")
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    head = client.head(f"{url}/healthz")
    assert (head.status_code, head.headers["content-length"], head.content) == (200, "3", b"")
    for target in ("/", "/healthz/", "/healthzz", "/health", "/%68ealthz"):
        assert client.get(url + target).text == "application"
    assert client.post(f"{url}/healthz", content=b"x").text == "application"
    assert command.stop() == 0
    assert re.findall(r'"(\S+) /healthz[ ?]', command.stdout) == ["GET", "POST"], "%68 is shown as h"


def test_a_body_and_more_requests_on_the_connection(served, client):
    _, url = served()
    for _ in range(3):
        assert client.request("GET", f"{url}/healthz", content=b"x" * 1000).text == "ok\n"
        assert client.get(url).text == "application"


def test_it_is_not_counted(served, client):
    command, url = served("--limit-max-requests", "2")
    for _ in range(10):
        assert client.get(f"{url}/healthz").status_code == 200
    assert client.get(url).status_code == 200
    assert client.get(f"{url}/healthz").status_code == 200
    assert client.get(url).status_code == 200
    assert command.wait() == 0


def test_it_is_not_limited(served, tmp_path):
    command, url = served("--limit-concurrency", "2")
    answers = []
    thread = threading.Thread(target=lambda: answers.append(httpx.get(f"{url}/slow", trust_env=False).text))
    thread.start()
    command.wait_for("slow")
    with httpx.Client(trust_env=False) as client:
        assert client.get(url).status_code == 503
        assert client.get(f"{url}/healthz").status_code == 200
    (tmp_path / "go").touch()
    thread.join()
    assert answers == ["application"]


def test_a_server_that_stops_says_so(served, client, tmp_path):
    """To who has a connection still: new ones are refused."""
    command, url = served()
    client.get(f"{url}/healthz")
    answers = []
    slow = httpx.Client(trust_env=False)
    thread = threading.Thread(target=lambda: answers.append(slow.get(f"{url}/slow").text))
    thread.start()
    command.wait_for("slow")
    command.send(signal.SIGTERM)
    command.wait_for("Waiting for")
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url}/healthz", trust_env=False)
    (tmp_path / "go").touch()
    thread.join()
    slow.close()
    assert answers == ["application"]
    assert command.wait() == 0


def test_a_wrong_path_is_refused(bolide):
    command = bolide("main:app", "--health-path", "healthz")
    assert command.wait() == 2
    assert "health_path" in command.stderr
