"""Helpers of the tests: a server as a process of its own, and an HTTP client that sees every byte."""

from .http_client import Connection, Response, Truncated
from .server import KIND, REPOSITORY, ServerProcess, control, uvicorn_differs

__all__ = [
    "KIND",
    "REPOSITORY",
    "Connection",
    "Response",
    "ServerProcess",
    "Truncated",
    "control",
    "uvicorn_differs",
]
