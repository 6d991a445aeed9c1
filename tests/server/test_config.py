"""bolide.Config: the application it loads, the interface it finds, the sockets it binds."""

import functools
import inspect
import socket

import pytest

from bolide import Config
from bolide.config import LOGGING_CONFIG, UnsupportedOptionError, resolve_interface


async def asgi3(scope, receive, send):
    pass


def asgi2(scope):
    async def instance(receive, send):
        pass

    return instance


def returns_awaitable(scope, receive, send):
    return asgi3(scope, receive, send)


def wsgi(environ, start_response):
    return []


class Asgi3Object:
    async def __call__(self, scope, receive, send):
        pass


class Asgi3Class:
    def __init__(self, scope, receive, send):
        pass

    def __await__(self):
        yield


class Asgi2Class:
    def __init__(self, scope):
        pass

    async def __call__(self, receive, send):
        pass


class Decorated:
    def __init__(self, app):
        self.app = app

    def __call__(self, *args, **kwargs):
        return self.app(*args, **kwargs)


@pytest.mark.parametrize(
    ("app", "interface"),
    [
        (asgi3, "asgi3"),
        (returns_awaitable, "asgi3"),
        (Asgi3Object(), "asgi3"),
        (Asgi3Class, "asgi3"),
        (functools.partial(asgi3), "asgi3"),
        (Decorated(asgi3), "asgi3"),
        (asgi2, "asgi2"),
        (Asgi2Class, "asgi2"),
    ],
    ids=lambda value: getattr(value, "__name__", type(value).__name__),
)
def test_interface_is_found_by_how_the_application_is_called(app, interface):
    assert resolve_interface(app) == interface
    config = Config(app, log_config=None)
    config.load()
    assert config.interface == interface
    assert config.asgi_version == {"asgi3": "3.0", "asgi2": "2.0"}[interface]
    assert config.loaded


def test_an_application_of_no_interface_is_refused(caplog):
    config = Config(wsgi, log_config=None)
    with pytest.raises(SystemExit) as caught:
        config.load()
    assert caught.value.code == 1
    assert "use the interface `wsgi`" in caplog.text


def test_factory_is_called_once():
    calls = []

    def make_app():
        calls.append(1)
        return asgi3

    config = Config(make_app, factory=True, proxy_headers=False, log_config=None)
    config.load()
    config.load()
    assert calls == [1]
    assert config.loaded_app is asgi3


def test_what_a_factory_raises_is_raised():
    def make_app():
        raise TypeError("inside")

    with pytest.raises(TypeError, match="inside"):
        Config(make_app, factory=True, log_config=None).load()


def test_an_import_string_is_loaded():
    config = Config("asyncio:sleep", log_config=None)
    assert inspect.iscoroutinefunction(config.load_app())


def test_headers_are_encoded():
    config = Config(asgi3, headers=[("X-Name", " Value "), ("Set-Cookie", "é=1")], log_config=None)
    config.load()
    assert config.encoded_headers == [(b"x-name", b"Value"), (b"set-cookie", b"\xe9=1")]


@pytest.mark.parametrize(
    "header", [("x", "a\r\nb: c"), ("x\n", "\0"), ("x y", "1"), ("", "1"), ("x:", "1"), ("x", "\N{EURO SIGN}")]
)
def test_headers_that_would_break_the_response_are_refused(header):
    with pytest.raises(ValueError):
        Config(asgi3, headers=[header], log_config=None)


@pytest.mark.parametrize(
    "options",
    [
        {"http2": True},
    ],
    ids=lambda options: next(iter(options)),
)
def test_options_that_do_not_work_yet_are_refused(options):
    with pytest.raises(UnsupportedOptionError) as caught:
        Config(asgi3, log_config=None, **options)
    assert caught.value.options == list(options)


@pytest.mark.parametrize(
    "options",
    [
        {"workers": -1},
        {"port": -1},
        {"port": 65536},
        {"lifespan": "maybe"},
        {"interface": "asgi4"},
        {"log_level": "loud"},
        {"ssl_keyfile": "key.pem"},
        {"ssl_sni": ["example.org=cert.pem"]},
        {"ssl_sni": ["example.org"], "ssl_certfile": "cert.pem"},
        {"ssl_sni": ["*=cert.pem"], "ssl_certfile": "cert.pem"},
    ],
    ids=lambda options: next(iter(options)),
)
def test_values_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        Config(asgi3, log_config=None, **options)


def test_web_concurrency_is_the_default_of_workers(monkeypatch):
    monkeypatch.setenv("WEB_CONCURRENCY", "1")
    assert Config(asgi3, log_config=None).workers == 1
    monkeypatch.setenv("WEB_CONCURRENCY", "4")
    assert Config(asgi3, workers=1, log_config=None).workers == 1


def test_forwarded_allow_ips_default(monkeypatch):
    monkeypatch.delenv("FORWARDED_ALLOW_IPS", raising=False)
    assert Config(asgi3, log_config=None).forwarded_allow_ips == "127.0.0.1,::1"
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "10.0.0.1")
    assert Config(asgi3, log_config=None).forwarded_allow_ips == "10.0.0.1"
    assert Config(asgi3, forwarded_allow_ips="*", log_config=None).forwarded_allow_ips == "*"


def test_env_file_variables_already_set_win(monkeypatch, tmp_path):
    path = tmp_path / "x.env"
    path.write_text("BOLIDE_TEST_A=file\nBOLIDE_TEST_B=file\n")
    monkeypatch.setenv("BOLIDE_TEST_A", "set")
    monkeypatch.setenv("BOLIDE_TEST_B", "")
    monkeypatch.delenv("BOLIDE_TEST_B")
    Config(asgi3, env_file=path, log_config=None)
    import os

    assert (os.environ["BOLIDE_TEST_A"], os.environ["BOLIDE_TEST_B"]) == ("set", "file")


def test_bind_socket_over_tcp():
    with Config(asgi3, port=0, log_config=None).bind_socket() as sock:
        assert sock.getsockname()[0] == "127.0.0.1"
        assert sock.get_inheritable()
        sock.listen()
        socket.create_connection(sock.getsockname()).close()


def test_bind_socket_on_a_unix_path(tmp_path):
    path = str(tmp_path / "s")
    with Config(asgi3, uds=path, log_config=None).bind_socket() as sock:
        assert sock.family == socket.AF_UNIX
        assert sock.getsockname() == path


def test_bind_socket_of_a_file_descriptor():
    with (
        socket.create_server(("127.0.0.1", 0)) as given,
        Config(asgi3, fd=given.fileno(), log_config=None).bind_socket() as sock,
    ):
        assert sock.family == socket.AF_INET
        assert sock.getsockname() == given.getsockname()
        assert sock.fileno() != given.fileno()


def test_bind_socket_says_why_it_cannot(caplog):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        config = Config(asgi3, port=taken.getsockname()[1], log_config=None)
        with pytest.raises(SystemExit) as caught:
            config.bind_socket()
    assert caught.value.code == 1
    assert "address already in use" in caplog.text


def test_a_unix_path_that_is_a_file_is_not_removed(tmp_path, caplog):
    path = tmp_path / "precious"
    path.write_text("data")
    with pytest.raises(SystemExit):
        Config(asgi3, uds=str(path), log_config=None).bind_socket()
    assert path.read_text() == "data"


def test_colours_do_not_leak_into_the_default_log_config():
    Config(asgi3, use_colors=True)
    assert LOGGING_CONFIG["formatters"]["default"]["use_colors"] is None
    Config(asgi3)
