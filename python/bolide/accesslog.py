"""What the access log says of a response: the usual line, a line of a format with gunicorn's atoms, or JSON."""

import asyncio
import base64
import binascii
import logging
import os
import re
import time
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

from bolide import _core
from bolide.logging import PHRASES, AccessFormatter
from bolide.logqueue import QueuedHandler

__all__ = ["Access", "AccessLog", "check_format", "make_access_log"]

AccessLog: TypeAlias = Callable[..., None]
Fields: TypeAlias = Iterable[tuple[bytes, bytes]]

_CLIENT_GONE = 499
_UNSAFE = re.compile(r'["\\\x00-\x1f\x7f-\x9f]')


def _escape(match: re.Match[str]) -> str:
    char = match[0]
    return "\\" + char if char in '"\\' else f"\\x{ord(char):02x}"


def _find(fields: Any, name: str) -> str | None:
    """The values of a header, joined by commas; None if it is not there."""
    wanted = name.lower().encode("latin-1", "replace")
    if not isinstance(fields, list | tuple):
        return None
    found = [bytes(value) for key, value in fields if bytes(key).lower() == wanted]
    return b", ".join(found).decode("latin-1") if found else None


class Access:
    """A request and its response, for the log; as a mapping: gunicorn's atoms, computed as they are asked for.

    Args:
        client: (address, port), or None.
        method, target, http_version: of the request line; `target` with the query.
        status: of the response; 0: the client was gone before there was one, which is logged as 499.
        seconds: from the head of the request to the end of the response.
        sent: bytes of the response's body.
        headers, response_headers: pairs of bytes; None or what is no list: there are none.
    """

    def __init__(
        self,
        client: tuple[str, int] | None,
        method: str,
        target: str,
        http_version: str,
        status: int,
        seconds: float,
        sent: int,
        headers: Fields | None,
        response_headers: Fields | None,
    ) -> None:
        self.client = client
        self.method = method
        self.target = target
        self.http_version = http_version
        self.status = status or _CLIENT_GONE
        self.seconds = seconds
        self.sent = sent
        self.headers = headers
        self.response_headers = response_headers

    def __getitem__(self, name: str) -> Any:
        value = self._atom(name)
        if value is None:
            return "-"
        return _UNSAFE.sub(_escape, value) if isinstance(value, str) else value

    def _atom(self, name: str) -> Any:
        if name.startswith("{") and name[-2:] in ("}i", "}o", "}e"):
            return self._variable(name[1:-2], name[-1])
        atom = _ATOMS.get(name)
        return atom(self) if atom is not None else None

    def _variable(self, name: str, kind: str) -> str | None:
        if kind == "e":
            return os.environ.get(name)
        return _find(self.headers if kind == "i" else self.response_headers, name)

    def user(self) -> str | None:
        """The user's name of basic authentication, which nobody has verified."""
        kind, _, credentials = (_find(self.headers, "authorization") or "").partition(" ")
        if kind.lower() != "basic":
            return None
        try:
            name, colon, _ = base64.b64decode(credentials.strip(), validate=True).partition(b":")
        except binascii.Error:
            return None
        return name.decode("utf-8", "replace") if colon else None

    def fields(self) -> dict[str, Any]:
        """For JSON: client, method, path, query, http_version, status, duration (s), bytes, user_agent, referer."""
        path, _, query = self.target.partition("?")
        return {
            "client": f"{self.client[0]}:{self.client[1]}" if self.client else "",
            "method": self.method,
            "path": path,
            "query": query,
            "http_version": self.http_version,
            "status": self.status,
            "duration": round(self.seconds, 6),
            "bytes": self.sent,
            "user_agent": _find(self.headers, "user-agent"),
            "referer": _find(self.headers, "referer"),
        }


_ATOMS: dict[str, Callable[[Access], Any]] = {
    "h": lambda a: a.client[0] if a.client else None,
    "l": lambda a: None,
    "u": Access.user,
    "t": lambda a: time.strftime("[%d/%b/%Y:%H:%M:%S %z]"),
    "r": lambda a: f"{a.method} {a.target} HTTP/{a.http_version}",
    "m": lambda a: a.method,
    "U": lambda a: a.target.partition("?")[0],
    "q": lambda a: a.target.partition("?")[2],
    "H": lambda a: f"HTTP/{a.http_version}",
    "s": lambda a: a.status,
    "B": lambda a: a.sent,
    "b": lambda a: a.sent or None,
    "f": lambda a: _find(a.headers, "referer"),
    "a": lambda a: _find(a.headers, "user-agent"),
    "T": lambda a: int(a.seconds),
    "M": lambda a: int(a.seconds * 1_000),
    "D": lambda a: int(a.seconds * 1_000_000),
    "L": lambda a: "{}.{:06}".format(*divmod(int(a.seconds * 1_000_000), 1_000_000)),
    "p": lambda a: f"<{os.getpid()}>",
}


def check_format(text: str) -> None:
    """Whether `text` is a format of the access log.

    Raises:
        ValueError: it is not.
    """
    names = re.findall(r"%\(([^)]*)\)", text)
    unknown = [name for name in names if name not in _ATOMS and not re.fullmatch(r"\{[^}]+\}[ioe]", name)]
    if unknown:
        raise ValueError(f"access_log_format has unknown atoms: {', '.join(unknown)}")
    sample = Access(("127.0.0.1", 1), "GET", "/", "1.1", 200, 0.0, 0, [], [])
    try:
        text % sample
    except (TypeError, ValueError) as exc:
        raise ValueError(f"access_log_format cannot be used: {exc}") from None


def _plain_handler(logger: logging.Logger) -> QueuedHandler | None:
    """The only handler of `logger`, if lines may be written to it without making records."""
    if len(logger.handlers) != 1 or logger.propagate or logger.filters:
        return None
    handler = logger.handlers[0]
    if type(handler) is not QueuedHandler or handler.filters or handler.level > logging.INFO:
        return None
    return handler


_ENDINGS = {status: f"{status} {phrase}\n".encode() for status, phrase in PHRASES.items()}
_LINE = re.compile(rb'INFO:     (.*?) - "(\S+) (.*) HTTP/(\S+)" ([0-9]+) .*')


class UsualLog:
    """The usual line. Where the log is as it is by default, and without colours, no records are made for it."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger

    def is_plain(self) -> bool:
        """Whether lines may be written without making records."""
        handler = _plain_handler(self._logger)
        return handler is not None and _has_usual_look(handler.formatter)

    def write(self, lines: bytes) -> None:
        """Write lines that _core.AccessLog has formatted; as records, if somebody has configured the log since."""
        handler = _plain_handler(self._logger)
        if not self._logger.isEnabledFor(logging.INFO):
            return
        if handler is not None and _has_usual_look(handler.formatter):
            handler.write(lines.decode())
            return
        for line in lines.splitlines():
            if match := _LINE.fullmatch(line):
                client, method, target, http_version, status = (group.decode() for group in match.groups())
                self._record(client, method, target, http_version, int(status))

    def __call__(
        self, client: tuple[str, int] | None, method: str, target: str, http_version: str, status: int
    ) -> None:
        """Make a record."""
        if self._logger.isEnabledFor(logging.INFO):
            address = f"{client[0]}:{client[1]}" if client else ""
            self._record(address, method, target, http_version, status)

    def _record(self, *arguments: str | int) -> None:
        self._logger.info('%s - "%s %s HTTP/%s" %d', *arguments)


def _has_usual_look(formatter: logging.Formatter | None) -> bool:
    return type(formatter) is AccessFormatter and formatter.is_usual


def _json_log(logger: logging.Logger, text: str | None) -> AccessLog:
    def log(*details: Any) -> None:
        if logger.isEnabledFor(logging.INFO):
            access = Access(*details)
            line = text % access if text else f"{access.method} {access.target} {access.status}"
            # Without arguments: what a client sent is not to be taken for a format.
            logger.info("%s", line, extra={"access": access.fields()})

    return log


def _format_log(logger: logging.Logger, text: str) -> AccessLog:
    def log(*details: Any) -> None:
        if logger.isEnabledFor(logging.INFO):
            line = text % Access(*details)
            handler = _plain_handler(logger)
            if handler is not None and type(handler.formatter) is AccessFormatter:
                handler.write(line + "\n")
            else:
                logger.info(line)

    return log


def make_access_log(
    loop: asyncio.AbstractEventLoop, enabled: bool, log_format: str, access_log_format: str | None
) -> tuple[AccessLog | None, bool]:
    """What a server's core calls for each response, and whether with details; (None, False) when nobody would hear it.

    Args:
        loop: the server's.
        enabled: whether there is an access log at all.
        log_format: "text" or "json".
        access_log_format: a format with gunicorn's atoms, or None.
    """
    logger = logging.getLogger("bolide.access")
    if not enabled or not logger.hasHandlers():
        return None, False
    if log_format == "json":
        return _json_log(logger, access_log_format), True
    if access_log_format is not None:
        return _format_log(logger, access_log_format), True
    usual = UsualLog(logger)
    return (_core.AccessLog(loop, usual.write, _ENDINGS) if usual.is_plain() else usual), False
