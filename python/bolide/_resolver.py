"""Address resolution beside the loop: in threads of its own, and without any where no resolver is asked."""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor
from typing import Any

__all__ = ["new_pool", "resolve_numeric"]

# Threads that wait for name servers. As many lookups may hang before the next one has to wait.
MAX_LOOKUPS = 64


def new_pool() -> ThreadPoolExecutor:
    """Threads for lookups alone: a slow name server holds up neither run_in_executor() nor is held up by it."""
    return ThreadPoolExecutor(max_workers=MAX_LOOKUPS, thread_name_prefix="bolide-resolver")


def _is_numeric(host: Any, port: Any) -> bool:
    if isinstance(host, bytes):
        host = host.decode("latin-1")
    if isinstance(port, bytes):
        port = port.decode("latin-1")
    return (host is None or (isinstance(host, str) and (host[:1].isdecimal() or ":" in host))) and (
        port is None or isinstance(port, int) or (isinstance(port, str) and port.isdecimal())
    )


def resolve_numeric(host: Any, port: Any, family: int, type_: int, proto: int, flags: int) -> list[Any] | None:
    """What socket.getaddrinfo() returns when that takes no resolver: for a numeric host, or none, and a numeric port.

    Returns:
        None when it takes one, or when the arguments are wrong: then the lookup tells what is.
    """
    if not _is_numeric(host, port):
        return None
    try:
        return socket.getaddrinfo(host, port, family, type_, proto, flags | socket.AI_NUMERICHOST)
    except (OSError, ValueError, TypeError, OverflowError):
        return None
