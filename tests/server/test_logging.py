"""The logs: their look, their levels, their configuration."""

import json
import logging
import os
import pty
import re
import sys

import httpx
import pytest

from bolide.logging import TRACE, AccessFormatter, DefaultFormatter


def record(level, message, *args, **extra):
    made = logging.LogRecord("bolide", level, "file", 1, message, args, None)
    made.__dict__.update(extra)
    made.levelname = logging.getLevelName(level)
    return made


ACCESS = ("127.0.0.1:5000", "GET", "/a%20b?c=d", "1.1", 404)
MESSAGE = '%s - "%s %s HTTP/%s" %d'


def test_plain_line():
    line = DefaultFormatter("%(levelprefix)s %(message)s", use_colors=False).format(record(logging.INFO, "a %s", "b"))
    assert line == "INFO:     a b"


def test_coloured_line_shows_the_coloured_message():
    formatter = DefaultFormatter("%(levelprefix)s %(message)s", use_colors=True)
    line = formatter.format(record(logging.WARNING, "a %s", "b", color_message="A \x1b[1m%s\x1b[0m"))
    assert line == "\x1b[33mWARNING\x1b[0m:  A \x1b[1mb\x1b[0m"


@pytest.mark.parametrize(
    ("level", "code"),
    [
        (TRACE, 34),
        (logging.DEBUG, 36),
        (logging.INFO, 32),
        (logging.WARNING, 33),
        (logging.ERROR, 31),
        (logging.CRITICAL, 91),
    ],
)
def test_colours_of_the_levels(level, code):
    line = DefaultFormatter("%(levelprefix)s", use_colors=True).format(record(level, "x"))
    assert line.startswith(f"\x1b[{code}m")


def test_a_record_is_the_same_for_the_next_handler():
    made = record(logging.INFO, "plain", color_message="coloured")
    DefaultFormatter("%(levelprefix)s %(message)s", use_colors=True).format(made)
    assert logging.Formatter("%(message)s").format(made) == "plain"


ACCESS_FORMAT = '%(levelprefix)s %(client_addr)s - "%(request_line)s" %(status_code)s'


def test_access_line():
    line = AccessFormatter(ACCESS_FORMAT, use_colors=False).format(record(logging.INFO, MESSAGE, *ACCESS))
    assert line == 'INFO:     127.0.0.1:5000 - "GET /a%20b?c=d HTTP/1.1" 404 Not Found'


@pytest.mark.parametrize(("status", "code"), [(100, 97), (200, 32), (302, 33), (404, 31), (500, 91)])
def test_coloured_access_line(status, code):
    line = AccessFormatter(ACCESS_FORMAT, use_colors=True).format(record(logging.INFO, MESSAGE, *ACCESS[:4], status))
    assert '"\x1b[1mGET /a%20b?c=d HTTP/1.1\x1b[0m"' in line
    assert re.search(rf"\x1b\[{code}m{status} [A-Z][A-Za-z ]+\x1b\[0m$", line)


def test_access_line_of_an_unknown_status():
    line = AccessFormatter("%(status_code)s", use_colors=True).format(record(logging.INFO, MESSAGE, *ACCESS[:4], 799))
    assert line == "799 "


def test_access_log_goes_to_stdout(serve, client):
    command, url = serve("main:app")
    client.get(f"{url}/a%20b?c=d")
    assert command.stop() == 0
    assert re.fullmatch(r'INFO:     127\.0\.0\.1:\d+ - "GET /a%20b\?c=d HTTP/1\.1" 200 OK\n', command.stdout)


@pytest.mark.parametrize("arguments", [["--no-access-log"], ["--log-level", "warning"]], ids=" ".join)
def test_access_log_is_off(serve, client, bolide, arguments, tmp_path):
    path = tmp_path / "s"
    command = bolide("main:app", "--uds", str(path), *arguments)
    import httpx

    with httpx.Client(transport=httpx.HTTPTransport(uds=str(path), retries=0)) as unix:
        while True:
            try:
                assert unix.get("http://x/").status_code == 200
                break
            except httpx.ConnectError:
                assert command.process.poll() is None
    assert command.stop() == 0
    assert command.stdout == ""


def test_log_level_silences_the_server(serve, bolide, write):
    command = bolide("nowhere:app", "--log-level", "critical")
    assert command.wait() == 1
    assert command.stderr == ""


def test_trace_logs_the_messages_without_their_content(serve, client):
    command, url = serve("main:app", "--log-level", "trace")
    client.get(url)
    assert command.stop() == 0
    assert re.search(r"TRACE:    127\.0\.0\.1:\d+ - ASGI \[\d+\] Started scope=\{'type': 'http'", command.stderr)
    assert re.search(r"ASGI \[\d+\] Send \{'type': 'http.response.body', 'body': '<\d+ bytes>'\}", command.stderr)
    assert re.search(r"ASGI \[\d+\] Completed", command.stderr)


@pytest.mark.parametrize(
    ("arguments", "coloured"), [(["--use-colors"], True), (["--no-use-colors"], False), ([], False)], ids=str
)
def test_colours_of_the_command(serve, client, arguments, coloured):
    command, url = serve("main:app", *arguments)
    client.get(re.sub(r"\x1b\[\d+m", "", url))
    assert command.stop() == 0
    assert ("\x1b[32mINFO\x1b[0m:     " in command.stderr) == coloured
    assert ("\x1b[32mINFO\x1b[0m:     " in command.stdout) == coloured


def test_a_terminal_gets_colours(bolide):
    ours, terminal = pty.openpty()
    try:
        command = bolide("nowhere:app", stdin=terminal)
        assert command.wait() == 1
        assert "\x1b" not in command.stderr
        import subprocess

        process = subprocess.run([sys.executable, "-m", "bolide", "nowhere:app"], stderr=terminal, timeout=20)
        assert process.returncode == 1
        assert os.read(ours, 4096).startswith(b"\x1b[31mERROR\x1b[0m:    Error loading ASGI app.")
    finally:
        os.close(ours)
        os.close(terminal)


CONFIGURATION = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"own": {"format": "own %(name)s %(message)s"}},
    "handlers": {"own": {"class": "logging.StreamHandler", "formatter": "own", "stream": "ext://sys.stdout"}},
    "loggers": {"bolide": {"handlers": ["own"], "level": "INFO"}},
}
TOML = """
    version = 1
    disable_existing_loggers = false
    formatters.own.format = "own %(name)s %(message)s"
    handlers.own = { class = "logging.StreamHandler", formatter = "own", stream = "ext://sys.stdout" }
    loggers.bolide = { handlers = ["own"], level = "INFO" }
"""
INI = """
    [loggers]
    keys = root, bolide

    [handlers]
    keys = own

    [formatters]
    keys = own

    [logger_root]
    level = WARNING
    handlers =

    [logger_bolide]
    level = INFO
    handlers = own
    qualname = bolide

    [handler_own]
    class = StreamHandler
    formatter = own
    args = (sys.stdout,)

    [formatter_own]
    format = own %(name)s %(message)s
"""


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("log.json", json.dumps(CONFIGURATION)),
        ("log.yaml", json.dumps(CONFIGURATION)),
        ("log.toml", TOML),
        ("log.ini", INI),
    ],
    ids=["json", "yaml", "toml", "ini"],
)
def test_log_config_files(bolide, write, client, name, content):
    if name.endswith(".yaml"):
        pytest.importorskip("yaml")
    write(name, content)
    command = bolide("main:app", "--port", "0", "--log-config", name)
    url = command.wait_for(r"own bolide\.error Bolide running on (\S+) ")[1]
    client.get(url)
    assert command.stop() == 0
    assert re.search(r'own bolide\.access 127\.0\.0\.1:\d+ - "GET / HTTP/1\.1" 200\n', command.stdout)
    assert command.stderr == ""


def test_a_broken_log_config_is_one_line_and_exit_code_2(bolide, write):
    write("log.json", "{")
    command = bolide("main:app", "--log-config", "log.json")
    assert command.wait() == 2
    assert len(command.stderr.splitlines()) == 1


CONTEXT_APP = """
import asyncio
import contextvars
import logging

seen = contextvars.ContextVar("seen", default="-")


class Filter(logging.Filter):
    def filter(self, record):
        print(f"[{seen.get()}] {record.getMessage()}", flush=True)
        return True


for name in ("bolide.error", "bolide.access"):
    logging.getLogger(name).addFilter(Filter())


async def app(scope, receive, send):
    seen.set(scope["path"])
    if scope["path"].startswith("/late"):
        await asyncio.sleep(0)
    if scope["path"].endswith("/raise"):
        raise LookupError
    await send({"type": "http.response.start", "status": 200, "headers": []})
    if not scope["path"].endswith("/cut"):
        await send({"type": "http.response.body"})
"""


@pytest.mark.parametrize("path", ["/early", "/late"])
def test_what_is_logged_of_a_request_sees_its_context_variables(write, serve, client, path):
    """As a trace's id, or what a collector of errors needs to know one that it has got already."""
    write("context.py", CONTEXT_APP)
    command, url = serve("context:app", "--lifespan", "off")
    client.get(url + path)
    command.wait_for(rf'\[{path}\] \S+ - "GET {path} HTTP/1.1" 200')
    assert client.get(f"{url}{path}/raise").status_code == 500
    command.wait_for(rf"\[{path}/raise\] Exception in ASGI application")
    command.wait_for(rf'\[{path}/raise\] \S+ - "GET {path}/raise HTTP/1.1" 500')
    with pytest.raises(httpx.RemoteProtocolError):
        client.get(f"{url}{path}/cut")
    command.wait_for(rf"\[{path}/cut\] ASGI callable returned without completing response.")


FOR_UVICORN = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "one": {"()": "uvicorn.logging.DefaultFormatter", "fmt": "one %(message)s"},
        "two": {"()": "uvicorn.logging.AccessFormatter", "fmt": "two %(request_line)s %(status_code)s"},
    },
    "handlers": {
        "one": {"class": "logging.StreamHandler", "formatter": "one"},
        "two": {"class": "logging.StreamHandler", "formatter": "two"},
    },
    "loggers": {
        "uvicorn": {"handlers": ["one"], "level": "INFO"},
        "uvicorn.access": {"handlers": ["two"], "level": "INFO", "propagate": False},
    },
}
FOR_UVICORN_INI = """\
[loggers]
keys = root, one, two
[handlers]
keys = one, two
[formatters]
keys = one, two
[logger_root]
handlers =
[logger_one]
qualname = uvicorn
handlers = one
level = INFO
[logger_two]
qualname = uvicorn.access
handlers = two
level = INFO
propagate = 0
[handler_one]
class = StreamHandler
formatter = one
args = ()
[handler_two]
class = StreamHandler
formatter = two
args = ()
[formatter_one]
class = uvicorn.logging.DefaultFormatter
format = one %(message)s
[formatter_two]
class = uvicorn.logging.AccessFormatter
format = two %(request_line)s %(status_code)s
"""


@pytest.mark.parametrize(("name", "text"), [("log.json", json.dumps(FOR_UVICORN)), ("log.ini", FOR_UVICORN_INI)])
def test_a_configuration_of_uvicorns_loggers_is_taken_as_ours(write, serve, client, name, text):
    write(name, text)
    command, url = serve("main:app", "--log-config", name)
    client.get(f"{url}/path")
    command.wait_for("two GET /path HTTP/1.1 200 OK")
    assert command.stop() == 0
    assert "one Finished server process" in command.stderr


STRAY_APP = """
import logging
from main import app

handler = logging.StreamHandler()
for name in {names}:
    logging.getLogger(name).addFilter(lambda record: True)
    logging.getLogger(name).addHandler(handler)
"""


@pytest.mark.parametrize("both", [False, True])
def test_code_that_configures_uvicorns_loggers_is_told_of_ours(write, serve, both):
    write("stray.py", STRAY_APP.format(names=["uvicorn.access", *(["bolide.access"] if both else [])]))
    command, _ = serve("stray:app")
    assert command.stop() == 0
    told = "The application configures the log uvicorn.access: bolide logs to bolide.access."
    assert (told in command.stderr) is not both


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("log.json", "{"),
        ("log.json", "[]"),
        ("log.yaml", "a: b: c"),
        ("log.yaml", ""),
        ("log.toml", "a"),
        ("log.ini", ""),
        ("log.ini", "text"),
        ("log.ini", "[loggers]\nkeys=root\n"),
    ],
)
def test_what_is_no_configuration_is_one_line(write, bolide, name, text):
    if name.endswith("yaml"):
        pytest.importorskip("yaml")
    write(name, text)
    command = bolide("main:app", "--log-config", name)
    assert command.wait() == 2
    assert command.stderr.startswith("bolide: error: ") and "Traceback" not in command.stderr
