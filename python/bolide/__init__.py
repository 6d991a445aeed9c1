"""bolide: an asyncio event loop on libuv and an ASGI server on llhttp, both in C."""

__version__ = "0.1.0"
