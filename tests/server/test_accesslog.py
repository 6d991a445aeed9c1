"""The access log in other forms: gunicorn's atoms, JSON; and logs that nobody reads."""

import asyncio
import contextlib
import errno
import fcntl
import gc
import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import weakref

import httpx
import pytest

from bolide import new_event_loop
from bolide._core import AccessLog
from bolide.accesslog import Access, check_format
from bolide.logqueue import QueuedHandler, queued_logs

DEADLINE = 20.0

APP = """
    import asyncio, os

    async def app(scope, receive, send):
        if scope["type"] != "http":
            return
        if scope["path"] == "/broken":
            raise ValueError("broken on purpose")
        if scope["path"] == "/slow":
            await asyncio.sleep(0.05)
        if scope["path"] == "/left":
            print("asked", flush=True)
            while (await receive())["type"] != "http.disconnect":
                pass
            return
        headers = [(b"X-Kind", b"test"), (b"content-type", b"text/plain")]
        await send({"type": "http.response.start", "status": 203, "headers": headers})
        for _ in range(3):
            await send({"type": "http.response.body", "body": b"12345", "more_body": True})
        await send({"type": "http.response.body", "body": memoryview(b"end")})
"""
FORMAT = '%(h)s %(l)s %(u)s "%(r)s" %(m)s %(U)s %(q)s %(H)s %(s)s %(b)s %(B)s "%(f)s" "%(a)s" '
FORMAT += "%({x-one}i)s %({X-Kind}o)s"


@pytest.fixture
def served(serve, write):
    write("logged.py", APP)

    def start(*arguments, **options):
        return serve("logged:app", *arguments, **options)

    return start


def line_of(text, **changes):
    given = {
        "client": ("10.0.0.1", 5000),
        "method": "GET",
        "target": "/a?b=c",
        "http_version": "1.1",
        "status": 200,
        "seconds": 1.234567,
        "sent": 12,
        "headers": [],
        "response_headers": None,
    }
    return text % Access(**(given | changes))


def test_atoms_of_a_request(served, client):
    command, url = served("--access-log-format", FORMAT)
    headers = {"Referer": 'http://x/"q"', "User-Agent": "tester/1", "X-One": "first"}
    client.get(f"{url}/a%20b?c=d", headers=headers, auth=("ann", "secret"))
    assert command.stop() == 0
    assert command.stdout == (
        '127.0.0.1 - ann "GET /a%20b?c=d HTTP/1.1" GET /a%20b c=d HTTP/1.1 203 18 18 "http://x/\\"q\\"" "tester/1"'
        " first test\n"
    )


def test_atoms_of_a_failure_and_of_nothing(served, client):
    command, url = served("--access-log-format", '%(s)s %(b)s "%(f)s" %({x-none}i)s %({x-none}o)s %({NONE_SUCH}e)s')
    assert client.get(f"{url}/broken", headers={"User-Agent": ""}).status_code == 500
    assert command.stop() == 0
    assert command.stdout == '500 - "-" - - -\n'


def test_the_time_is_that_of_the_whole_response(served, client):
    command, url = served("--access-log-format", "%(T)s %(M)s %(D)s %(L)s %(p)s %(t)s")
    client.get(f"{url}/slow")
    assert command.stop() == 0
    seconds, milli, micro, decimal, pid, time = command.stdout.rstrip("\n").split(" ", 5)
    assert seconds == "0"
    assert 50 <= int(milli) < 20_000
    assert 50_000 <= int(micro) < 20_000_000
    assert int(decimal.replace(".", "")) == int(micro)
    assert pid == f"<{command.process.pid}>"
    assert re.fullmatch(r"\[\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}\]", time)


def test_a_client_that_leaves_is_logged_once(served):
    command, url = served("--access-log-format", "%(U)s %(s)s")
    with socket.create_connection((httpx.URL(url).host, httpx.URL(url).port)) as leaver:
        leaver.sendall(b"GET /left HTTP/1.1\r\nHost: x\r\n\r\n")
        command.wait_for("asked")
    command.wait_for("/left 499")
    assert command.stop() == 0
    assert command.stdout == "asked\n/left 499\n"


def test_values_of_clients_cannot_make_lines():
    line = line_of('"%(a)s"', headers=[(b"user-agent", b'a"b\\c\x85\xe9')])
    assert line == '"a\\"b\\\\c\\x85\xe9"'


@pytest.mark.parametrize("wrong", ["%(unknown)s", "%(h)", "%(h)d", "%s %d", "%({x}q)s"])
def test_a_wrong_format_is_refused(wrong, bolide):
    with pytest.raises(ValueError, match="access_log_format"):
        check_format(wrong)
    command = bolide("main:app", "--access-log-format", wrong)
    assert command.wait() == 2
    assert len(command.stderr.splitlines()) == 1


def test_basic_authentication_that_is_none():
    for value in (b"Basic", b"Basic !!!", b"Bearer eHg6eQ==", b"Basic eHg"):
        assert line_of("%(u)s", headers=[(b"authorization", value)]) == "-"
    assert line_of("%(u)s", headers=[(b"authorization", b"basic eHg6eQ==")]) == "xx"


def test_json(served, client):
    command, url = served("--log-format", "json")
    client.get(f"{url}/a%20b?c=d", headers={"User-Agent": "tester/1"})
    client.get(f"{url}/broken")
    assert command.stop() == 0
    first, second = map(json.loads, command.stdout.splitlines())
    assert first.pop("client").startswith("127.0.0.1:")
    assert 0 < first.pop("duration") < 20
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", first.pop("time"))
    assert first == {
        "level": "INFO",
        "logger": "bolide.access",
        "message": "GET /a%20b?c=d 203",
        "method": "GET",
        "path": "/a%20b",
        "query": "c=d",
        "http_version": "1.1",
        "status": 203,
        "bytes": 18,
        "user_agent": "tester/1",
        "referer": None,
    }
    assert second["status"] == 500
    errors = [json.loads(line) for line in command.stderr.splitlines()]
    assert {error["logger"] for error in errors} == {"bolide.error"}
    failure = next(error for error in errors if error["level"] == "ERROR")
    assert failure["message"] == "Exception in ASGI application"
    assert failure["exception"].endswith("ValueError: broken on purpose")


def test_json_with_a_format(served, client):
    command, url = served("--log-format", "json", "--access-log-format", "%(m)s!")
    client.get(url)
    assert command.stop() == 0
    assert json.loads(command.stdout)["message"] == "GET!"


def test_json_with_a_configuration_of_ones_own_is_refused(bolide, write):
    write("log.json", '{"version": 1}')
    command = bolide("main:app", "--log-format", "json", "--log-config", "log.json")
    assert command.wait() == 2
    assert "log_format" in command.stderr


# --- logs that nobody reads -------------------------------------------------------------------------------------------


@contextlib.contextmanager
def serving(folder, stdout, stderr, *arguments):
    """A server of main:app, whatever becomes of its output; (process, address)."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        command = [sys.executable, "-m", "bolide", "main:app", "--fd", str(sock.fileno()), *arguments]
        process = subprocess.Popen(command, cwd=folder, stdout=stdout, stderr=stderr, pass_fds=[sock.fileno()])
        try:
            yield process, f"http://127.0.0.1:{sock.getsockname()[1]}"
        finally:
            process.kill()
            process.wait()


@pytest.mark.skipif(not hasattr(fcntl, "F_SETPIPE_SZ"), reason="needs pipes of a chosen size")
@pytest.mark.parametrize("arguments", [[], ["--workers", "2"], ["--access-log-format", "%(r)s"]], ids=" ".join)
def test_a_full_pipe_does_not_stop_the_server(write, tmp_path, client, arguments):
    """One for both logs, as under a supervisor that has stopped to read."""
    write("main.py")
    ours, theirs = os.pipe()
    fcntl.fcntl(ours, fcntl.F_SETPIPE_SZ, 4096)
    with open(ours, "rb", 0) as pipe, open(theirs, "wb", 0) as end:
        with serving(tmp_path, end, end, *arguments) as (process, url):
            target = "/" + "x" * 1000
            for _ in range(100):
                assert client.get(url + target).status_code == 200
            process.send_signal(signal.SIGTERM)
            assert process.wait(DEADLINE) == 0
        assert b"Started" in pipe.read(65536)


def read_until(fd, end):
    """What comes out of a pipe, up to a text that it ends with."""
    text = ""
    while not text.endswith(end):
        text += os.read(fd, 65536).decode()
    return text


@pytest.mark.skipif(not hasattr(fcntl, "F_SETPIPE_SZ"), reason="needs pipes of a chosen size")
def test_what_is_dropped_is_counted_and_told(monkeypatch, caplog):
    monkeypatch.setattr("bolide.logqueue._CAPACITY", 20_000)
    ours, theirs = os.pipe()
    fcntl.fcntl(ours, fcntl.F_SETPIPE_SZ, 4096)
    lines = 1000
    with open(theirs, "w") as stream, queued_logs():
        handler = QueuedHandler(stream)
        logger = logging.getLogger("test.dropped")
        logger.propagate = False
        logger.addHandler(handler)
        told = threading.Event()
        error_log = logging.getLogger("bolide.error")
        tell = logging.Handler()
        tell.emit = lambda record: told.set()
        error_log.addHandler(tell)
        try:
            for number in range(lines):
                logger.warning("%050d", number)
            dropped = handler.dropped
            # What stands in the pipe, in the write that hangs, and in the queue is bounded.
            assert lines - dropped < (20_000 + 2 * 65536) / 51
            text = read_until(ours, f"{lines - dropped - 1:050d}\n")
            assert told.wait(DEADLINE)
            assert handler.dropped == dropped
            logger.warning("the last")
            text += read_until(ours, "the last\n")
            assert [int(line) for line in text.splitlines()[:-1]] == list(range(lines - dropped))
            assert f"{dropped} line(s) of the log were dropped: nobody reads it fast enough" in caplog.messages
        finally:
            logger.removeHandler(handler)
            error_log.removeHandler(tell)
    os.close(ours)


def test_the_queue_keeps_the_order_over_its_start_and_end(tmp_path):
    path = tmp_path / "log"
    with open(path, "w") as stream:
        handler = QueuedHandler(stream)
        handler.write("0\n")
        with queued_logs(), queued_logs():
            for number in range(1, 500):
                handler.write(f"{number}\n")
        handler.write("500\n")
    assert path.read_text().split() == [str(number) for number in range(501)]


def test_a_reader_that_is_gone_harms_nobody():
    ours, theirs = os.pipe()
    with open(theirs, "w") as stream, queued_logs():
        handler = QueuedHandler(stream)
        for _ in range(100):
            handler.write("x" * 50 + "\n")
        os.close(ours)
        for _ in range(100):
            handler.write("x" * 50 + "\n")
        handler.flush()
        assert handler.dropped >= 100


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
@pytest.mark.parametrize("stderr_too", [False, True])
def test_a_full_disk_does_not_stop_the_server(write, tmp_path, client, stderr_too):
    write("main.py")
    with open("/dev/full", "w") as full, open(tmp_path / "errors", "w+") as errors:
        with serving(tmp_path, full, full if stderr_too else errors) as (process, url):
            for _ in range(100):
                assert client.get(url).status_code == 200
            process.send_signal(signal.SIGTERM)
            assert process.wait(DEADLINE) == 0
        errors.seek(0)
        assert [line for line in errors if not line.startswith("INFO: ")] == []


def test_a_disk_that_is_full_for_a_while(monkeypatch, tmp_path, caplog):
    """What was written until then is whole, and how many lines are missing is told."""
    path = tmp_path / "log"
    write = os.write
    room = 25

    def write_with_little_room(fd, data):
        nonlocal room
        if fd != stream.fileno():
            return write(fd, data)
        if not room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        size = min(room, len(data))
        room -= size
        return write(fd, data[:size])

    monkeypatch.setattr(logging.getLogger("bolide.error"), "propagate", True)
    with open(path, "w") as stream, queued_logs():
        monkeypatch.setattr("os.write", write_with_little_room)
        handler = QueuedHandler(stream)
        for number in range(5):
            handler.write(f"line {number:04d}\n")
        handler.flush()
        assert handler.dropped == 3
        room = 1000
        handler.write("again\n")
        handler.flush()
        handler.flush()
        assert handler.dropped == 3
    assert path.read_text() == "line 0000\nline 0001\nline \nagain\n"
    assert "3 line(s) of the log were dropped: No space left on device" in caplog.messages


def test_what_the_encoding_lacks_is_escaped(served, client):
    command, url = served("--access-log-format", "%(a)s", env={"PYTHONIOENCODING": "ascii"})
    for _ in range(100):
        client.get(url, headers={"User-Agent": b"caf\xe9"})
    assert command.stop() == 0
    assert command.stdout == "caf\\xe9\n" * 100
    assert "Traceback" not in command.stderr


def test_a_stream_without_a_descriptor_is_written_at_once():
    import io

    stream = io.StringIO()
    with queued_logs():
        handler = QueuedHandler(stream)
        handler.write("line\n")
        assert stream.getvalue() == "line\n"


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_after_a_fork_the_child_has_a_writer_of_its_own():
    ours, theirs = os.pipe()
    with open(theirs, "w") as stream, queued_logs():
        handler = QueuedHandler(stream)
        for _ in range(100):
            handler.write("parent\n")
        pid = os.fork()
        if pid == 0:
            for _ in range(100):
                handler.write("child\n")
            handler.flush()
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        handler.flush()
        text = os.read(ours, 65536).decode()
        assert text.count("parent\n") == 100
        assert text.count("child\n") == 100
    os.close(ours)


def test_a_handler_of_ones_own_gets_the_usual_records(monkeypatch):
    """The short cut for the usual log is not taken when someone else listens."""
    from bolide.accesslog import make_access_log

    records = []
    mine = logging.Handler()
    mine.emit = records.append
    logger = logging.getLogger("bolide.access")
    monkeypatch.setattr(logger, "handlers", [mine])
    monkeypatch.setattr(logger, "propagate", False)
    monkeypatch.setattr(logger, "level", logging.INFO)
    logger.manager._clear_cache()
    new_loop = new_event_loop()
    log, details = make_access_log(new_loop, True, "text", None)
    assert not details
    log(("127.0.0.1", 5), "GET", "/%41", "1.1", 204)
    log(None, "GET", "/", "1.0", 599)
    assert [record.getMessage() for record in records] == [
        '127.0.0.1:5 - "GET /%41 HTTP/1.1" 204',
        ' - "GET / HTTP/1.0" 599',
    ]
    new_loop.close()
    logger.manager._clear_cache()


# --- lines formatted in C ---------------------------------------------------------------------------------------------

ENDINGS = {200: b"200 OK\n", 404: b"404 Not Found\n"}


class Portions:
    """Takes what an AccessLog hands over."""

    def __init__(self):
        self.loop = new_event_loop()
        self.lines = []
        self.log = AccessLog(self.loop, self.lines.append, ENDINGS)


@pytest.fixture
def portions():
    made = Portions()
    yield made
    made.loop.close()


def test_lines_look_as_ever(portions):
    log = portions.log
    log(("127.0.0.1", 5), "GET", "/%41?b=c", "1.1", 200)
    log(("::1", 65535), "POST", "/", "1.0", 404)
    log(None, "HEAD", "*", "1.1", 299)
    log(("h\xf6st", 0), "GET", "/\u20ac", "1.1", 0)
    log.flush()
    log.flush()
    assert b"".join(portions.lines).decode().splitlines() == [
        'INFO:     127.0.0.1:5 - "GET /%41?b=c HTTP/1.1" 200 OK',
        'INFO:     ::1:65535 - "POST / HTTP/1.0" 404 Not Found',
        'INFO:      - "HEAD * HTTP/1.1" 299 ',
        'INFO:     h\xf6st:0 - "GET /\u20ac HTTP/1.1" 0 ',
    ]
    assert len(portions.lines) == 1


def test_lines_are_handed_over_soon_and_together(portions):
    done = portions.loop.create_future()
    log = AccessLog(portions.loop, done.set_result, ENDINGS)

    async def main():
        for number in range(100):
            log(None, "GET", f"/{number}", "1.1", 200)
        assert not done.done()
        return await asyncio.wait_for(done, DEADLINE)

    lines = portions.loop.run_until_complete(main()).decode().splitlines()
    assert lines == [f'INFO:      - "GET /{number} HTTP/1.1" 200 OK' for number in range(100)]


def test_many_lines_and_long_ones_are_handed_over_at_once(portions):
    for _ in range(2000):
        portions.log(None, "GET", "/" + "x" * 100, "1.1", 200)
    assert portions.lines
    assert max(map(len, portions.lines)) < 70_000
    portions.log(None, "GET", "/" + "x" * 1_000_000, "1.1", 200)
    assert len(portions.lines[-1]) > 1_000_000
    portions.log(None, "GET", "/last", "1.1", 200)
    portions.log.flush()
    assert b"".join(portions.lines).count(b"\n") == 2002
    assert portions.lines[-1].endswith(b'"GET /last HTTP/1.1" 200 OK\n')


def test_a_loop_that_is_closed_loses_no_line(portions):
    portions.loop.close()
    portions.log(None, "GET", "/", "1.1", 200)
    assert len(portions.lines) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        (None, "GET", "/", "1.1"),
        (None, "GET", "/", "1.1", "200"),
        (None, "GET", "/", "1.1", 1000),
        (None, "GET", "/", "1.1", -1),
        (None, "GET", "/", "1.1", 1 << 70),
        (None, b"GET", "/", "1.1", 200),
        (None, "GET", None, "1.1", 200),
        (None, "GET", "/\ud800", "1.1", 200),
        ((), "GET", "/", "1.1", 200),
        (("h", "1"), "GET", "/", "1.1", 200),
        (("h", 70_000), "GET", "/", "1.1", 200),
        ((5, 5), "GET", "/", "1.1", 200),
    ],
)
def test_wrong_arguments_of_a_line(portions, arguments):
    with pytest.raises((TypeError, ValueError, OverflowError)):
        portions.log(*arguments)
    portions.log.flush()
    assert portions.lines == []


def test_wrong_arguments_of_the_log(portions):
    for endings in ([], {"200": b"x"}, {200: "x"}):
        with pytest.raises(TypeError):
            AccessLog(portions.loop, print, endings)


def test_what_the_writer_raises_and_does(portions):
    def write(lines):
        log(None, "GET", "/again", "1.1", 200)
        raise ValueError("on purpose")

    log = AccessLog(portions.loop, write, ENDINGS)
    log(None, "GET", "/", "1.1", 200)
    for _ in range(2):
        with pytest.raises(ValueError, match="on purpose"):
            log.flush()


def test_an_access_log_is_garbage_with_its_loop():
    loop = new_event_loop()
    kept = []
    kept.append(AccessLog(loop, kept.append, ENDINGS))
    kept[0](None, "GET", "/", "1.1", 200)
    loop.close()
    found = weakref.ref(loop)
    del loop, kept
    gc.collect()
    assert found() is None


def test_a_handler_that_comes_later_gets_records(monkeypatch):
    """The log was as it is by default when the server began, and is not any more."""
    from bolide.accesslog import UsualLog

    records = []
    mine = logging.Handler()
    mine.emit = records.append
    logger = logging.Logger("later", logging.INFO)
    logger.addHandler(mine)
    UsualLog(logger).write(b'INFO:     1.2.3.4:5 - "GET /a"b HTTP/1.1" 200 OK\nINFO:      - "GET / HTTP/1.0" 299 \n')
    assert [record.getMessage() for record in records] == [
        '1.2.3.4:5 - "GET /a"b HTTP/1.1" 200',
        ' - "GET / HTTP/1.0" 299',
    ]


def test_no_line_is_lost_at_the_stop(serve, client):
    command, url = serve("main:app")
    for number in range(500):
        client.get(f"{url}/{number}")
    assert command.stop() == 0
    found = re.findall(r'"GET /(\d+) HTTP/1.1" 200 OK$', command.stdout, re.MULTILINE)
    assert found == [str(number) for number in range(500)]
