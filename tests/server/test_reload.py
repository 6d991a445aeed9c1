"""Restarting when files change."""

import importlib.util
import os
import signal
import socket
import threading
from pathlib import Path

import httpx
import pytest

from bolide import Config
from bolide.reload import FileFilter

DEADLINE = 20.0


def application(answer, on_import="pass", on_request="pass"):
    return f"""
        import asyncio, pathlib, time
        {on_import}
        async def app(scope, receive, send):
            assert scope["type"] == "http"
            {on_request}
            body = {answer!r}.encode()
            headers = [(b"content-length", b"%d" % len(body))]
            await send({{"type": "http.response.start", "status": 200, "headers": headers}})
            await send({{"type": "http.response.body", "body": body}})
    """


def get(url):
    return httpx.get(url, trust_env=False, verify=False, timeout=DEADLINE).text


@pytest.fixture(params=["watchfiles", "polling"])
def reloading(request, serve, write, tmp_path_factory):
    """Start `edited:app` of the folder with --reload, and wait until it has answered."""
    env = {}
    if request.param == "polling":
        folder = tmp_path_factory.mktemp("site")
        (folder / "sitecustomize.py").write_text("import sys\nsys.modules['watchfiles'] = None\n")
        env["PYTHONPATH"] = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))
    elif importlib.util.find_spec("watchfiles") is None:
        pytest.skip("watchfiles is not installed")

    def start(*arguments):
        write("edited.py", application("first"))
        arguments = ("edited:app", "--reload", "--reload-delay", "0.05", "--no-access-log", *arguments)
        command, url = serve(*arguments, env=env)
        command.wait_for(f"using {request.param}")
        command.wait_for("startup complete")
        assert get(url) == "first"
        return command, url

    return start


def test_a_change_is_served(reloading, write):
    command, url = reloading()
    for answer in ("second", "third"):
        write("edited.py", application(answer))
        command.wait_for(r"detected changes in 'edited\.py'\. Reloading\.\.\.")
        command.wait_for("Finished server process")
        assert get(url) == answer
    assert command.stop() == 0
    assert f"Stopping reloader process [{command.process.pid}]" in command.stderr


def test_a_request_waits_for_the_new_server(reloading, write, tmp_path):
    command, url = reloading()
    wait = "while not pathlib.Path('go').exists(): time.sleep(0.005)"
    write("edited.py", application("second", on_import=f"print('importing', flush=True)\n        {wait}"))
    command.wait_for("importing")
    answers = []
    thread = threading.Thread(target=lambda: answers.append(get(url)))
    thread.start()
    (tmp_path / "go").touch()
    thread.join(DEADLINE)
    assert answers == ["second"]


@pytest.mark.parametrize("keep_alive", [False, True], ids=["connections", "keep-alive"])
def test_no_request_fails_over_restarts(reloading, write, keep_alive):
    command, url = reloading()
    answered, over = threading.Event(), threading.Event()
    answers, failures = set(), []

    def ask():
        with httpx.Client(trust_env=False, timeout=DEADLINE) as client:
            while not over.is_set():
                try:
                    answers.add(client.get(url).text if keep_alive else get(url))
                    answered.set()
                except Exception as exc:
                    failures.append(exc)

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    assert answered.wait(DEADLINE)
    for answer in ("second", "third"):
        write("edited.py", application(answer))
        command.wait_for("Finished server process")
        assert get(url) == answer
    over.set()
    for thread in threads:
        thread.join(DEADLINE)
    assert failures == []
    assert answers >= {"first", "second"}


def test_a_server_that_could_not_start_leaves_no_port_behind(reloading, write):
    command, url = reloading()
    write("edited.py", "def broken(:\n")
    command.wait_for("The server has ended: waiting for changes")
    assert command.stop() == 0
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.0.0.1", int(url.rpartition(":")[2])))
        sock.listen()


def test_an_error_is_shown_and_the_next_change_tried(reloading, write):
    command, url = reloading()
    write("edited.py", "def broken(:\n")
    command.wait_for("SyntaxError")
    command.wait_for("The server has ended: waiting for changes")
    write("edited.py", application("mended"))
    command.wait_for("detected changes")
    assert get(url) == "mended"
    assert command.stop() == 0


def test_a_response_that_never_ends_does_not_hold_up_a_reload(reloading, write):
    command, url = reloading()
    write("edited.py", application("second", on_request="print('asked', flush=True); await asyncio.Event().wait()"))
    command.wait_for("Finished server process")
    failures = []

    def fail():
        try:
            get(url)
        except httpx.HTTPError as exc:
            failures.append(exc)

    thread = threading.Thread(target=fail)
    thread.start()
    command.wait_for("asked")
    write("edited.py", application("third"))
    command.wait_for("detected changes")
    thread.join(DEADLINE)
    assert len(failures) == 1
    assert get(url) == "third"


def test_included_and_excluded_files(reloading, write, tmp_path):
    (tmp_path / "generated").mkdir()
    options = ["--reload-include", "*.html", "--reload-exclude", "skip_*", "--reload-exclude", "generated"]
    command, _ = reloading(*options)
    write("skip_me.py", "x = 1\n")
    write("notes.txt", "x\n")
    write("generated/made.py", "x = 1\n")
    write("page.html", "<p>\n")
    assert command.wait_for(r"detected changes in (.*)\. Reloading")[1] == "'page.html'"
    write("other.py", "x = 1\n")
    assert command.wait_for(r"detected changes in (.*)\. Reloading")[1] == "'other.py'"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_a_stop_finishes_the_running_request(reloading, write, tmp_path, number):
    command, url = reloading()
    wait = "while not pathlib.Path('go').exists(): await asyncio.sleep(0.005)"
    write("edited.py", application("second", on_request=f"print('asked', flush=True)\n            {wait}"))
    command.wait_for("Finished server process")
    answers = []
    thread = threading.Thread(target=lambda: answers.append(get(url)))
    thread.start()
    command.wait_for("asked")
    command.send(number)
    command.wait_for("Waiting for connections to close")
    (tmp_path / "go").touch()
    thread.join(DEADLINE)
    assert answers == ["second"]
    assert command.wait() == 0


def test_a_module_that_does_not_exist_is_one_line_and_exit_code_1(bolide):
    command = bolide("nowhere:app", "--reload")
    assert command.wait() == 1
    assert command.stderr == 'ERROR:    Error loading ASGI app. Could not import module "nowhere".\n'


def test_reload_options_without_reload_are_noted(serve):
    command, _ = serve("main:app", "--reload-include", "*.html")
    assert "The reload options have no effect" in "\n".join(command.lines)


def filter_of(**options):
    return FileFilter(Config("main:app", reload=True, log_config=None, **options))


def test_folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("app", "app/inner", "lib", "lib/generated"):
        (tmp_path / name).mkdir()
    assert filter_of().folders == [tmp_path]
    assert filter_of(reload_dirs=["app", "app/inner", "lib"]).folders == [tmp_path / "app", tmp_path / "lib"]
    assert filter_of(reload_dirs="app").folders == [tmp_path / "app"]
    assert filter_of(reload_dirs=["app"], reload_includes=["li*"]).folders == [tmp_path / "app", tmp_path / "lib"]
    assert filter_of(reload_dirs=["app", "lib"], reload_excludes=["lib"]).folders == [tmp_path / "app"]
    matters = filter_of(reload_excludes=["lib/generated"])
    assert matters(tmp_path / "lib" / "x.py")
    assert not matters(tmp_path / "lib" / "generated" / "x.py")


@pytest.mark.parametrize(
    ("options", "name", "matters"),
    [
        ({}, "a.py", True),
        ({}, "a.pyc", False),
        ({}, ".a.py", False),
        ({}, "~a.py", False),
        ({}, "a.html", False),
        ({"reload_includes": ["*.html"]}, "a.html", True),
        ({"reload_includes": ["*.html"]}, "a.py", True),
        ({"reload_includes": [".*"]}, ".a.py", True),
        ({"reload_includes": [".*"]}, ".env", True),
        ({"reload_includes": [".env"]}, ".env", True),
        ({"reload_includes": [".env"]}, ".other", False),
        ({"reload_includes": ["x.py"], "reload_excludes": ["x*"]}, "x.py", True),
        ({"reload_excludes": ["*.py"]}, "a.py", False),
        ({"reload_excludes": ["test_*"]}, "test_a.py", False),
    ],
)
def test_patterns(options, name, matters):
    assert filter_of(**options)(Path("/somewhere") / name) == matters
