"""bolide: an asyncio event loop on libuv and an ASGI server on llhttp, both in C."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._core import Handle, StreamTransport, TimerHandle
    from ._loop import EventLoopPolicy, Loop, install, new_event_loop, run
    from .cli import main
    from .config import Config
    from .server import Server, serve

__version__ = "0.1.0"

__all__ = [
    "Config",
    "EventLoopPolicy",
    "Handle",
    "Loop",
    "Server",
    "StreamTransport",
    "TimerHandle",
    "install",
    "main",
    "new_event_loop",
    "run",
    "serve",
]

# Imported when first asked for: who wants the loop alone does not pay for the server, and `bolide --help` for neither.
_LAZY = {
    "Config": "bolide.config",
    "EventLoopPolicy": "bolide._loop",
    "Handle": "bolide._core",
    "Loop": "bolide._loop",
    "Server": "bolide.server",
    "StreamTransport": "bolide._core",
    "TimerHandle": "bolide._core",
    "install": "bolide._loop",
    "main": "bolide.cli",
    "new_event_loop": "bolide._loop",
    "run": "bolide._loop",
    "serve": "bolide.server",
}


_SUBMODULES = ("config", "importer", "logging", "server")


def __getattr__(name: str) -> Any:
    if name in _SUBMODULES:
        return importlib.import_module(f"{__name__}.{name}")
    module = _LAZY.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(module), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY, *_SUBMODULES})
