"""bolide: an asyncio event loop on libuv and an ASGI server on llhttp, both in C."""

import importlib
from typing import TYPE_CHECKING, Any

from ._core import Handle, StreamTransport, TimerHandle
from ._loop import EventLoopPolicy, Loop, install, new_event_loop, run

if TYPE_CHECKING:
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
    "new_event_loop",
    "run",
    "serve",
]

# The server is imported when it is first asked for: who wants the loop alone does not pay for it.
_LAZY = {"Config": "bolide.config", "Server": "bolide.server", "serve": "bolide.server"}


def __getattr__(name: str) -> Any:
    module = _LAZY.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(module), name)
    return value
