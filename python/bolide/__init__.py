"""bolide: an asyncio event loop on libuv and an ASGI server on llhttp, both in C."""

from ._core import Handle, StreamTransport, TimerHandle
from ._loop import EventLoopPolicy, Loop, install, new_event_loop, run

__version__ = "0.1.0"

__all__ = ["EventLoopPolicy", "Handle", "Loop", "StreamTransport", "TimerHandle", "install", "new_event_loop", "run"]
