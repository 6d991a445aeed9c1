"""A pytest plugin that puts bolide's parts in the place of uvicorn's: configuration, lifespan, middleware, server.

uvicorn's tests import them by their names and look at loggers by theirs: the modules of these names become bolide's, as
far as they have the same things in them, and a logger "uvicorn..." is bolide's. What is asynchronous runs on bolide's
loop.
"""

import asyncio
import contextlib
import importlib
import logging
import sys
import types

import pytest
from outcomes import Outcomes


def share_loggers() -> None:
    """Have loggers of bolide's names be those of uvicorn's, also where bolide names itself in a message."""
    find = logging.Logger.manager.getLogger
    make = logging.getLogRecordFactory()

    def find_shared(name):
        return find(name.replace("bolide", "uvicorn", 1) if name.startswith("bolide") else name)

    def make_record(*args, **kwargs):
        record = make(*args, **kwargs)
        if isinstance(record.msg, str):
            record.msg = record.msg.replace("Bolide running", "Uvicorn running")
        return record

    logging.Logger.manager.getLogger = find_shared
    logging.setLogRecordFactory(make_record)


def module(name: str, base: types.ModuleType | None = None, **attributes: object) -> types.ModuleType:
    """Put a module into uvicorn's place: `base` itself, with more in it."""
    made = base if base is not None else types.ModuleType(name)
    for attribute, value in attributes.items():
        setattr(made, attribute, value)
    package, _, last = name.rpartition(".")
    sys.modules[name] = made
    setattr(importlib.import_module(package), last, made)
    return made


def replace_config() -> None:
    """uvicorn.config."""
    import uvicorn.config as theirs

    import bolide.config as ours

    loggers = ours.LOGGING_CONFIG["loggers"]
    for name in list(loggers):
        loggers[name.replace("bolide", "uvicorn")] = loggers.pop(name)
    names = ("UvicornDeprecationWarning", "LoopFactoryType", "WS_PROTOCOLS")
    module("uvicorn.config", ours, **{name: getattr(theirs, name) for name in names})


def replace_lifespan() -> None:
    """uvicorn.lifespan.on and .off."""
    import bolide.lifespan as ours

    class LifespanOn(ours.Lifespan):
        error_occurred = property(lambda self: self._raised)
        startup_failed = property(lambda self: self._startup_failed)
        shutdown_failed = property(lambda self: self._shutdown_failed)

    module("uvicorn.lifespan.on", LifespanOn=LifespanOn)
    module("uvicorn.lifespan.off", LifespanOff=ours.LifespanOff)


def replace_middleware() -> None:
    """uvicorn.middleware.proxy_headers, .message_logger and .wsgi."""
    import bolide.middleware.message_logger as message_logger
    import bolide.middleware.proxy_headers as proxy_headers
    import bolide.middleware.wsgi as wsgi

    module("uvicorn.middleware.proxy_headers", proxy_headers, _TrustedHosts=proxy_headers.TrustedHosts)
    module("uvicorn.middleware.message_logger", message_logger)
    module(
        "uvicorn.middleware.wsgi",
        wsgi,
        _WSGIMiddleware=wsgi.WSGIMiddleware,
        build_environ=lambda scope, message, body: wsgi.make_environ(scope, body),
    )


def replace_server() -> None:
    """uvicorn.server, uvicorn.importer and the package's own names."""
    import uvicorn
    from uvicorn.server import ServerState

    import bolide
    import bolide.importer
    import bolide.server

    module("uvicorn.server", bolide.server, ServerState=ServerState)
    module("uvicorn.importer", bolide.importer)
    uvicorn.Config, uvicorn.Server = bolide.Config, bolide.Server


@contextlib.asynccontextmanager
async def run_server(config, sockets=None):
    """In the place of the tests' function of this name."""
    import bolide.server

    server = bolide.server.Server(config=config)
    task = asyncio.create_task(server.serve(sockets=sockets))
    while not server.started:
        assert not task.done(), "the server ended"
        await asyncio.sleep(0.01)
    try:
        yield server
    finally:
        server.should_exit = True
        with contextlib.suppress(asyncio.CancelledError):
            await task


@pytest.fixture
def anyio_backend():
    import bolide

    return "asyncio", {"loop_factory": bolide.new_event_loop}


@pytest.fixture
def http_protocol_cls():
    return "auto"


@pytest.fixture
def ws_protocol_cls():
    return "auto"


def install() -> None:
    """Before a conftest of theirs is imported."""
    # What the tests import of the real ones goes on to use the real ones.
    for name in ("main", "supervisors", "protocols.http.h11_impl", "protocols.http.httptools_impl"):
        importlib.import_module(f"uvicorn.{name}")

    share_loggers()
    replace_config()
    replace_lifespan()
    replace_middleware()
    replace_server()

    import tests.utils

    import tests.conftest as theirs

    tests.utils.run_server = run_server
    for fixture in (http_protocol_cls, ws_protocol_cls, anyio_backend):
        setattr(theirs, fixture.__name__, fixture)


install()


def pytest_configure(config):
    config.pluginmanager.register(Outcomes())
