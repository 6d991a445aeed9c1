"""bolide as gunicorn's worker: the real package."""

import contextlib
import os
import signal
import textwrap
import threading
import time

import httpx
import pytest
from support.process import DEADLINE, launching

APP = """
    import asyncio, os, pathlib, time

    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            while True:
                message = await receive()
                if message["type"] == "lifespan.startup" and pathlib.Path("broken").exists():
                    await send({"type": "lifespan.startup.failed", "message": "broken"})
                    return
                await send({"type": message["type"] + ".complete"})
                if message["type"] == "lifespan.shutdown":
                    return
        path = scope["path"]
        if path == "/slow":
            print("slow", flush=True)
            while not pathlib.Path("go").exists():
                await asyncio.sleep(0.005)
        elif path == "/block":
            time.sleep(60)
        loop = type(asyncio.get_running_loop()).__module__
        body = f"{os.getpid()} {loop} {scope['scheme']} {scope['client'][0] if scope['client'] else None}".encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
        await send({"type": "http.response.body", "body": body})
"""


@pytest.fixture
def launch(tmp_path):
    """launch(module, *arguments): start a server in a folder that holds hosted.py."""
    (tmp_path / "hosted.py").write_text(textwrap.dedent(APP))
    with launching(tmp_path) as start:
        yield start


@pytest.fixture
def gunicorn(launch):
    """gunicorn(*arguments): start it with BolideWorker on a free port; (process, address)."""
    pytest.importorskip("gunicorn")

    def start(*arguments, workers=1):
        command = ("gunicorn", "-k", "bolide.workers.BolideWorker", "-b", "127.0.0.1:0", "-w", str(workers))
        process = launch(*command, "--no-control-socket", *arguments, "hosted:app")
        url = process.wait_for(r"Listening at: (https?://\S+)")[1]
        process.wait_for("Application startup complete", workers)
        return process, url.rstrip(",")

    return start


def get(url, **options):
    return httpx.get(url, trust_env=False, timeout=DEADLINE, **options).text.split()


def test_gunicorn_serves_and_stops(gunicorn):
    process, url = gunicorn(workers=2)
    pid, loop, scheme, client = get(url)
    assert int(pid) != process.process.pid
    assert (loop, scheme, client) == ("bolide._loop", "http", "127.0.0.1")
    assert process.stop() == 0
    assert process.text.count("Application shutdown complete") == 2
    assert "Traceback" not in process.text


def test_gunicorn_stops_gracefully(gunicorn, tmp_path):
    process, url = gunicorn()
    answers = []
    thread = threading.Thread(target=lambda: answers.append(get(f"{url}/slow")))
    thread.start()
    process.wait_for("slow")
    process.process.send_signal(signal.SIGTERM)
    process.wait_for("Shutting down")
    (tmp_path / "go").touch()
    thread.join(DEADLINE)
    assert answers
    assert process.process.wait(DEADLINE) == 0


def test_gunicorn_quits_at_once(gunicorn):
    process, url = gunicorn()
    failures = []

    def fail():
        with pytest.raises(httpx.HTTPError) as info:
            get(f"{url}/slow")
        failures.append(info.value)

    thread = threading.Thread(target=fail)
    thread.start()
    process.wait_for("slow")
    assert process.stop(signal.SIGQUIT) == 0
    thread.join(DEADLINE)
    assert failures


def test_gunicorn_reloads_on_sighup(gunicorn):
    process, url = gunicorn()
    (pid, *_) = get(url)
    process.process.send_signal(signal.SIGHUP)
    process.wait_for("Application startup complete", 2)
    process.wait_for(rf"Worker exiting \(pid: {pid}\)")
    assert get(url)[0] != pid
    assert process.stop() == 0


def test_gunicorn_replaces_a_worker_at_its_limit(gunicorn):
    process, url = gunicorn("--max-requests", "3")
    seen = [get(url)[0] for _ in range(3)]
    assert len(set(seen)) == 1
    process.wait_for("Maximum request limit of 3 exceeded")
    process.wait_for("Application startup complete", 2)
    assert get(url)[0] not in seen
    assert process.stop() == 0


def test_gunicorn_replaces_a_worker_that_is_blocked(gunicorn, monkeypatch):
    # gunicorn ends it by SIGABRT, which AddressSanitizer would report.
    monkeypatch.setenv("ASAN_OPTIONS", os.environ.get("ASAN_OPTIONS", "") + ":handle_abort=0")
    process, url = gunicorn("--timeout", "2")
    (pid, *_) = get(url)
    with contextlib.suppress(httpx.HTTPError):
        assert httpx.get(f"{url}/block", trust_env=False, timeout=DEADLINE).status_code == 500
    process.wait_for("WORKER TIMEOUT")
    process.wait_for("Application startup complete", 2)
    assert get(url)[0] != pid


def test_gunicorn_does_not_kill_a_worker_that_is_idle(gunicorn):
    process, url = gunicorn("--timeout", "1")
    (pid, *_) = get(url)
    time.sleep(3)  # nothing happens: that is the event
    assert get(url)[0] == pid
    assert "TIMEOUT" not in process.text


def test_gunicorn_s_settings(gunicorn):
    process, url = gunicorn(
        "--access-logfile", "-", "--access-logformat", "%(m)s %(U)s %(s)s %(B)s", "--keep-alive", "0",
        "--forwarded-allow-ips", "127.0.0.1", "--limit-request-fields", "20",
    )  # fmt: skip
    with httpx.Client(trust_env=False, timeout=DEADLINE) as client:
        answer = client.get(f"{url}/x", headers={"X-Forwarded-Proto": "https", "X-Forwarded-For": "1.2.3.4"})
        assert answer.text.split()[2:] == ["https", "1.2.3.4"]
        assert answer.headers["connection"] == "close"
        assert client.get(url, headers={f"x-{n}": "1" for n in range(30)}).status_code == 431
    process.wait_for(rf"GET /x 200 {len(answer.content)}\n")
    assert process.stop() == 0


def test_gunicorn_on_a_unix_socket(launch, tmp_path):
    pytest.importorskip("gunicorn")
    path = tmp_path / "s"
    process = launch("gunicorn", "-k", "bolide.workers.BolideWorker", "-b", f"unix:{path}", "--no-control-socket",
                     "hosted:app")  # fmt: skip
    process.wait_for("Application startup complete")
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(path))) as client:
        assert client.get("http://x/").text.split()[1] == "bolide._loop"
    assert process.stop() == 0


def test_gunicorn_with_certificates(gunicorn, tmp_path):
    trustme = pytest.importorskip("trustme")
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    process, url = gunicorn("--certfile", "cert.pem", "--keyfile", "key.pem")
    assert url.startswith("https://")
    import ssl

    assert get(url, verify=ssl.create_default_context(cafile=tmp_path / "ca.pem"))[2] == "https"
    assert process.stop() == 0


def test_gunicorn_hears_of_a_failed_startup(launch, tmp_path):
    pytest.importorskip("gunicorn")
    (tmp_path / "broken").touch()
    process = launch("gunicorn", "-k", "bolide.workers.BolideWorker", "-b", "127.0.0.1:0", "--no-control-socket",
                     "hosted:app")  # fmt: skip
    assert process.process.wait(DEADLINE) == 3
    process.wait_for("Worker failed to boot")
