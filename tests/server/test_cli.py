"""The command: what it prints, how it ends, where its options come from."""

import argparse
import inspect
import re
import socket
import subprocess
import sys

import httpx
import pytest
from support.server import REPOSITORY

from bolide import cli
from bolide.config import Config
from bolide.options import ServeOptions

OPTIONS = [option for group in cli.OPTIONS.values() for option in group]

# The command line of uvicorn 0.54, besides --help and --version.
UVICORN_FLAGS = [
    "--host",
    "--port",
    "--uds",
    "--fd",
    "--reload",
    "--reload-dir",
    "--reload-include",
    "--reload-exclude",
    "--reload-delay",
    "--workers",
    "--loop",
    "--http",
    "--http2",
    "--ws",
    "--ws-max-size",
    "--ws-max-queue",
    "--ws-ping-interval",
    "--ws-ping-timeout",
    "--ws-per-message-deflate",
    "--lifespan",
    "--interface",
    "--env-file",
    "--log-config",
    "--log-level",
    "--access-log",
    "--no-access-log",
    "--use-colors",
    "--no-use-colors",
    "--proxy-headers",
    "--no-proxy-headers",
    "--server-header",
    "--no-server-header",
    "--date-header",
    "--no-date-header",
    "--forwarded-allow-ips",
    "--root-path",
    "--limit-concurrency",
    "--backlog",
    "--limit-max-requests",
    "--limit-max-requests-jitter",
    "--timeout-keep-alive",
    "--timeout-graceful-shutdown",
    "--timeout-worker-healthcheck",
    "--ssl-keyfile",
    "--ssl-certfile",
    "--ssl-keyfile-password",
    "--ssl-version",
    "--ssl-cert-reqs",
    "--ssl-ca-certs",
    "--ssl-ciphers",
    "--ssl-sni",
    "--header",
    "--app-dir",
    "--h11-max-incomplete-event-size",
    "--reset-contextvars",
    "--factory",
]


def test_without_arguments_prints_a_short_help(bolide):
    command = bolide()
    assert command.wait() == 0
    assert "Usage: bolide [OPTIONS] MODULE:ATTRIBUTE" in command.stdout
    assert len(command.stdout.splitlines()) < 20
    assert command.stderr == ""


def test_options_without_an_application_are_an_error(bolide):
    command = bolide("--port", "0")
    assert command.wait() == 2
    assert command.stdout == ""
    assert len(command.stderr.splitlines()) == 1
    assert "MODULE:ATTRIBUTE" in command.stderr


def test_version(bolide):
    command = bolide("--version")
    assert command.wait() == 0
    assert re.fullmatch(r"Running bolide \d+\.\d+\.\S+ with CPython 3\.\d+\.\S+ on \w+\n", command.stdout)


def test_help_is_grouped_and_fits_80_columns(bolide):
    command = bolide("--help", env={"COLUMNS": "200"})
    assert command.wait() == 0
    assert max(len(line) for line in command.stdout.splitlines()) <= 80
    assert not re.search(r"-\n", command.stdout), "an option is broken over two lines"
    for heading in cli.OPTIONS:
        assert f"\n{heading}:\n" in command.stdout
    for flag in UVICORN_FLAGS:
        assert re.search(rf"{flag}\b", command.stdout), flag


def test_knows_every_option_of_uvicorn():
    parser = cli.make_parser()
    assert set(UVICORN_FLAGS) <= set(parser._option_string_actions)


@pytest.mark.parametrize(
    "option", [option for option in OPTIONS if option.name not in ("app_dir", "log_config")], ids=lambda o: o.name
)
def test_defaults_in_the_help_are_those_of_config(option):
    default = inspect.signature(Config).parameters[option.name].default
    assert option.default == default
    assert type(option.default) is type(default) or isinstance(default, int)


def test_the_guide_names_every_option():
    text = (REPOSITORY / "docs" / "guide.md").read_text()
    assert [option.flag for option in OPTIONS if option.flag not in text] == []


def test_options_of_serve_are_those_of_config():
    assert set(ServeOptions.__annotations__) == set(inspect.signature(Config).parameters) - {"app"} | {"app_dir"}


def test_help_does_not_import_asyncio(bolide):
    code = "import sys\nfrom bolide.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
    code += "print('asyncio' in sys.modules or 'bolide.config' in sys.modules)"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.splitlines()[-1] == "False"


@pytest.mark.parametrize(
    ("app", "message"),
    [
        ("nowhere:app", 'Could not import module "nowhere".'),
        ("main.inner:app", 'Could not import module "main.inner".'),
        ("main:nothing", 'Attribute "nothing" not found in module "main".'),
        ("main:app.nothing", 'Attribute "app.nothing" not found in module "main".'),
        ("main", '"main" is not of the form "<module>:<attribute>".'),
        ("main:", '"main:" is not of the form "<module>:<attribute>".'),
    ],
)
def test_an_application_that_does_not_exist_is_one_line_and_exit_code_1(bolide, app, message):
    command = bolide(app, "--port", "0")
    assert command.wait() == 1
    assert command.stderr == f"ERROR:    Error loading ASGI app. {message}\n"
    assert command.stdout == ""


def test_an_error_inside_the_application_keeps_its_traceback(bolide, write):
    write("broken.py", "import surely_missing_module\napp = None\n")
    command = bolide("broken:app")
    assert command.wait() == 1
    assert 'File "' in command.stderr
    assert "broken.py" in command.stderr
    assert "No module named 'surely_missing_module'" in command.stderr


def test_an_attribute_that_is_not_callable_is_one_line_and_exit_code_1(bolide, write):
    write("broken.py", "app = 3\n")
    command = bolide("broken:app")
    assert command.wait() == 1
    assert command.stderr.splitlines()[-1] == 'ERROR:    Error loading ASGI app. "broken:app" is not callable.'
    assert "Traceback" not in command.stderr


def test_a_port_in_use_is_one_line_and_exit_code_1(bolide):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        command = bolide("main:app", "--port", str(port), "--log-level", "warning")
        assert command.wait() == 1
    assert command.stderr == f"ERROR:    Cannot listen on 127.0.0.1:{port}: address already in use\n"


def test_a_host_that_does_not_resolve_is_one_line_and_exit_code_1(bolide):
    command = bolide("main:app", "--host", "surely.missing.invalid", "--log-level", "warning")
    assert command.wait() == 1
    assert len(command.stderr.splitlines()) == 1
    assert "Cannot listen on surely.missing.invalid:8000: " in command.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["--port", "http"],
        ["--port", "70000"],
        ["--lifespan", "maybe"],
        ["--log-level", "loud"],
        ["--nonsense"],
        ["--header", "nocolon"],
        ["--header", "bad name:1"],
        ["--env-file", "missing.env"],
        ["--ws-per-message-deflate", "perhaps"],
        ["--uds-permissions", "999"],
    ],
)
def test_wrong_options_end_with_exit_code_2_and_name_the_fault(bolide, arguments):
    command = bolide("main:app", *arguments)
    assert command.wait() == 2
    assert "Traceback" not in command.stderr
    assert arguments[-1].lstrip("-").split(":")[0] in command.stderr


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--port", "http"), "argument --port: 'http' is no whole number"),
        (("--reload-delay", "soon"), "argument --reload-delay: 'soon' is no number"),
        (("--wrokers", "2"), "unrecognized arguments: --wrokers 2 (did you mean --workers?)"),
        (("--accesslog",), "unrecognized arguments: --accesslog (did you mean --access-log?)"),
        (("--zzz=1",), "unrecognized arguments: --zzz=1"),
    ],
)
def test_wrong_options_are_explained(bolide, arguments, text):
    command = bolide("main:app", *arguments)
    assert command.wait() == 2
    assert command.stderr.endswith(f"bolide: error: {text}\n")


@pytest.mark.parametrize(("flag", "value"), [("--http2", None)])
def test_unsupported_options_are_one_line_and_exit_code_2(bolide, flag, value):
    command = bolide("main:app", flag, *([value] if value else []))
    assert command.wait() == 2
    assert command.stderr == f"bolide: not supported yet: {flag}\n"


def test_serves(serve, client):
    command, url = serve("main:app")
    assert re.fullmatch(r"http://127\.0\.0\.1:[1-9]\d*", url)
    response = client.get(f"{url}/path")
    assert response.status_code == 200
    assert "'path': '/path'" in response.text
    assert command.stop() == 0


def test_app_dir(serve, client, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "main.py").rename(tmp_path / "elsewhere" / "other.py")
    _, url = serve("other:app", "--app-dir", "elsewhere")
    assert client.get(url).status_code == 200


@pytest.mark.parametrize("arguments", [["--factory"], []], ids=["told", "detected"])
def test_factory(serve, client, write, arguments):
    write("factory.py", "from main import app\ndef make_app():\n    return app\n")
    command, url = serve("factory:make_app", *arguments)
    assert client.get(url).status_code == 200
    assert ("factory detected" in "\n".join(command.lines)) == (not arguments)


def test_factory_that_needs_arguments_is_one_line_and_exit_code_1(bolide, write):
    write("factory.py", "def make_app(settings):\n    pass\n")
    command = bolide("factory:make_app", "--factory", "--log-level", "warning")
    assert command.wait() == 1
    assert command.stderr == (
        'ERROR:    Error loading ASGI app factory: "factory:make_app" cannot be called without arguments.\n'
    )


def test_root_path(serve, client):
    _, url = serve("main:app", "--root-path", "/api")
    assert "'path': '/api/x', 'root_path': '/api'" in client.get(f"{url}/x").text


def test_headers(serve, client):
    _, url = serve(
        "main:app", "--header", "X-One:1", "--header", "X-Two: a:b c", "--no-server-header", "--no-date-header"
    )
    headers = client.get(url).headers
    assert headers["x-one"] == "1"
    assert headers["x-two"] == "a:b c"
    assert "server" not in headers
    assert "date" not in headers


FILE_APP = """
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import FileResponse
from starlette.routing import Route

app = Starlette(
    routes=[Route("/", lambda request: FileResponse("large.txt"))], middleware=[Middleware(GZipMiddleware)]
)
"""


@pytest.mark.parametrize(("option", "encoding"), [("--pathsend", None), ("--no-pathsend", "gzip")])
def test_pathsend(serve, write, client, option, encoding):
    pytest.importorskip("starlette")
    write("files.py", FILE_APP)
    write("large.txt", "x" * 100_000)
    _, url = serve("files:app", option)
    response = client.get(url)
    assert response.text == "x" * 100_000
    assert response.headers.get("content-encoding") == encoding


def test_default_headers(serve, client):
    _, url = serve("main:app")
    headers = client.get(url).headers
    assert headers["server"] == "bolide"
    assert headers["date"].endswith(" GMT")


def test_options_from_the_environment(bolide, client):
    env = {"BOLIDE_APP": "main:app", "BOLIDE_PORT": "0", "BOLIDE_ROOT_PATH": "/env", "BOLIDE_ACCESS_LOG": "no"}
    command = bolide(env=env | {"BOLIDE_HEADERS": "X-One:1 'X-Two:a b'", "BOLIDE_LOG_LEVEL": ""})
    response = client.get(command.wait_ready())
    assert "'root_path': '/env'" in response.text
    assert (response.headers["x-one"], response.headers["x-two"]) == ("1", "a b")
    assert command.stop() == 0
    assert command.stdout == ""


def test_a_wrong_environment_variable_is_named(bolide):
    command = bolide("main:app", env={"BOLIDE_PORT": "http"})
    assert command.wait() == 2
    assert command.stderr.startswith("bolide: environment variable BOLIDE_PORT: ")


def test_options_from_pyproject(bolide, client, write):
    write("pyproject.toml", '[tool.bolide]\napp = "main:app"\nport = 0\nroot-path = "/file"\nheader = ["X-One:1"]\n')
    response = client.get(bolide().wait_ready())
    assert "'root_path': '/file'" in response.text
    assert response.headers["x-one"] == "1"


def test_the_command_line_wins_over_the_environment_over_pyproject(bolide, client, write):
    write("pyproject.toml", '[tool.bolide]\nroot-path = "/file"\nlifespan = "on"\ninterface = "asgi2"\n')
    command = bolide("main:app", "--port", "0", "--lifespan", "off", "--interface", "asgi3",
                     env={"BOLIDE_ROOT_PATH": "/env", "BOLIDE_LIFESPAN": "on"})  # fmt: skip
    assert "'root_path': '/env'" in client.get(command.wait_ready()).text


def test_an_unknown_option_in_pyproject_is_an_error(bolide, write):
    write("pyproject.toml", "[tool.bolide]\nprot = 80\n")
    command = bolide("main:app")
    assert command.wait() == 2
    assert command.stderr == "bolide: pyproject.toml: no such option: prot\n"


def test_env_file_is_loaded_before_the_application(serve, client, write):
    write("settings.env", "GREETING='hello ${USER}'\nALREADY=file\n")
    write(
        "greet.py",
        """
        import os
        TEXT = f"{os.environ['GREETING']}|{os.environ['ALREADY']}".encode()
        async def app(scope, receive, send):
            assert scope["type"] == "http"
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": TEXT})
        """,
    )
    _, url = serve("greet:app", "--env-file", "settings.env", env={"ALREADY": "set"})
    assert client.get(url).text == "hello ${USER}|set"


def test_unix_socket(bolide, tmp_path):
    path = tmp_path / "server.sock"
    command = bolide("main:app", "--uds", str(path), "--uds-permissions", "600")
    assert command.wait_ready() == f"unix socket {path}"
    assert path.stat().st_mode & 0o777 == 0o600
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(path))) as client:
        assert client.get("http://localhost/").status_code == 200
    assert command.stop() == 0
    assert not path.exists()


def test_unix_socket_left_behind_is_replaced_and_keeps_its_mode(bolide, tmp_path):
    path = tmp_path / "server.sock"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    path.chmod(0o640)
    bolide("main:app", "--uds", str(path)).wait_ready()
    assert path.stat().st_mode & 0o777 == 0o640


def test_unix_socket_in_use_is_one_line_and_exit_code_1(bolide, tmp_path):
    path = tmp_path / "server.sock"
    first = bolide("main:app", "--uds", str(path))
    first.wait_ready()
    second = bolide("main:app", "--uds", str(path), "--log-level", "warning")
    assert second.wait() == 1
    assert second.stderr == f"ERROR:    Cannot listen on unix socket {path}: address already in use\n"
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(path))) as client:
        assert client.get("http://localhost/").status_code == 200
    assert first.stop() == 0


def test_file_descriptor(bolide, client):
    with socket.create_server(("127.0.0.1", 0)) as sock:
        command = bolide("main:app", "--fd", str(sock.fileno()), pass_fds=[sock.fileno()])
        host, port = sock.getsockname()
        assert command.wait_ready() == f"socket ('{host}', {port})"
        assert client.get(f"http://{host}:{port}").status_code == 200


def test_a_file_descriptor_that_is_no_socket_is_one_line_and_exit_code_1(bolide):
    command = bolide("main:app", "--fd", "99", "--log-level", "warning")
    assert command.wait() == 1
    assert command.stderr == "ERROR:    Cannot listen on file descriptor 99: bad file descriptor\n"


def test_localhost_listens_on_every_address_of_the_name(serve, client):
    _, url = serve("main:app", "--host", "localhost")
    port = int(url.rpartition(":")[2])
    for family, *_, address in set(socket.getaddrinfo("localhost", port, type=socket.SOCK_STREAM)):
        host = f"[{address[0]}]" if family == socket.AF_INET6 else address[0]
        assert client.get(f"http://{host}:{port}/").status_code == 200


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6")
def test_ipv6(serve, client):
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("no address ::1")
    _, url = serve("main:app", "--host", "::1")
    assert url.startswith("http://[::1]:")
    assert client.get(url).status_code == 200


def test_names_of_others_implementations_are_ignored_with_a_note(serve, client):
    command, url = serve("main:app", "--loop", "uvloop", "--http", "httptools", "--ws", "wsproto")
    assert client.get(url).status_code == 200
    output = "\n".join(command.lines)
    for name in ("loop=uvloop", "http=httptools", "ws=wsproto"):
        assert f"The option {name} is ignored" in output


def test_own_loop_factory(serve, client, write):
    write("loops.py", "import bolide\ndef make():\n    print('made', flush=True)\n    return bolide.new_event_loop()\n")
    command, url = serve("main:app", "--loop", "loops:make")
    assert client.get(url).status_code == 200
    assert command.stop() == 0
    assert "made" in command.stdout


def test_a_loop_factory_that_does_not_exist_is_one_line_and_exit_code_1(bolide):
    command = bolide("main:app", "--loop", "nowhere:make")
    assert command.wait() == 1
    assert command.stderr == 'ERROR:    Error loading event loop factory. Could not import module "nowhere".\n'


def test_limit_max_requests_stops_the_server(serve, client):
    command, url = serve("main:app", "--limit-max-requests", "3")
    for _ in range(3):
        assert client.get(url).status_code == 200
    assert command.wait() == 0
    assert "Maximum request limit of 3 exceeded. Terminating process." in command.stderr


def test_an_unsupported_option_error_names_the_fields():
    with pytest.raises(NotImplementedError, match="not supported yet: http2") as caught:
        Config("main:app", http2=True)
    assert caught.value.options == ["http2"]


def test_parser_rejects_abbreviations():
    with pytest.raises(SystemExit):
        cli.make_parser().parse_args(["main:app", "--por", "1"])
    assert isinstance(cli.make_parser(), argparse.ArgumentParser)


def test_threads_need_a_free_threaded_python(bolide):
    command = bolide("main:app", "--threads", "2")
    assert command.wait() == 2
    if "t" in sys.abiflags:
        assert command.stderr == "bolide: not supported yet: --threads\n"
    else:
        assert command.stderr.startswith("bolide: error: threads needs a free-threaded build of CPython")
        assert len(command.stderr.splitlines()) == 1
