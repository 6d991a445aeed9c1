"""An HTTP/1.1 client for tests: what is sent is written byte by byte in the test, what comes back is parsed strictly.

Its time limits only bound a failure: no test passes because time passed.
"""

import re
import select
import socket
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Self

TIMEOUT = 20.0
STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9]{2}) ([\t\x20-\x7e\x80-\xff]*)")
HEADER_LINE = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*([^\x00-\x08\x0a-\x1f\x7f]*?)[ \t]*")
CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]+)[ \t]*(;.*)?")


class Truncated(Exception):
    """The connection ended before the response was complete; args[0] is what arrived of its body."""


class BadResponse(Exception):
    """What arrived is not an HTTP response."""


@dataclass
class Response:
    """A response, with header names in lower case and in the order of arrival."""

    status: int
    reason: str
    version: str
    headers: list[tuple[str, str]]
    body: bytes = b""
    trailers: list[tuple[str, str]] = field(default_factory=list)
    interim: list["Response"] = field(default_factory=list)
    chunks: list[bytes] = field(default_factory=list)

    def values(self, name: str) -> list[str]:
        """Return the value of every header line of this name."""
        return [value for key, value in self.headers if key == name.lower()]

    def header(self, name: str) -> str | None:
        """Return the value of a header that must not be repeated, or None when it is not there."""
        found = self.values(name)
        assert len(found) <= 1, f"{name} occurs {len(found)} times: {self.headers}"
        return found[0] if found else None

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode()


class Connection:
    """A connection to a server, over TCP (host, port) or a Unix socket (path)."""

    def __init__(
        self, address: tuple[str, int] | str, *, timeout: float = TIMEOUT, receive_buffer: int | None = None
    ) -> None:
        family = (
            socket.AF_UNIX if isinstance(address, str) else socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        )
        self.socket = socket.socket(family, socket.SOCK_STREAM)
        if receive_buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(timeout)
        self.timeout = timeout
        self._buffer = bytearray()
        try:
            self.socket.connect(address)
        except BaseException:
            self.socket.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection in good order (FIN)."""
        self.socket.close()

    def reset(self) -> None:
        """Close the connection with a reset (RST)."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        self.socket.close()

    def send(self, data: bytes) -> None:
        """Send all of these bytes."""
        self.socket.sendall(data)

    def send_request(
        self,
        method: str,
        target: str,
        headers: Iterable[tuple[str, str]] = (),
        body: bytes | None = None,
        version: str = "1.1",
    ) -> None:
        """Send a request with a Host header, and with a Content-Length when it has a body."""
        lines = [f"{method} {target} HTTP/{version}", "Host: test"]
        lines += [f"{name}: {value}" for name, value in headers]
        if body is not None:
            lines.append(f"Content-Length: {len(body)}")
        self.send("\r\n".join([*lines, "", ""]).encode("latin-1") + (body or b""))

    def request(
        self,
        method: str,
        target: str,
        headers: Iterable[tuple[str, str]] = (),
        body: bytes | None = None,
        version: str = "1.1",
    ) -> Response:
        """Send a request and read its response."""
        self.send_request(method, target, headers, body, version)
        return self.read_response(head=method == "HEAD")

    def get(self, target: str) -> Response:
        """Send a plain GET and read its response."""
        return self.request("GET", target)

    def read_response(self, *, head: bool = False) -> Response:
        """Read one response, with the interim (1xx) ones before it; head: it answers a HEAD, so has no body."""
        interim = []
        while True:
            response = self.read_head()
            if response.status >= 200:
                break
            interim.append(response)
        response.interim = interim
        self._read_body(response, head)
        return response

    def read_head(self) -> Response:
        """Read a status line and headers; raises Truncated at EOF."""
        found = STATUS_LINE.fullmatch(line := self.read_line())
        if found is None:
            raise BadResponse(f"status line {line!r}")
        minor, status, reason = found.groups()
        return Response(int(status), reason.decode("latin-1"), f"1.{minor.decode()}", self._read_header_lines())

    def read_chunk(self) -> bytes:
        """Read one chunk of a chunked body; the last one is empty (its trailers are left unread)."""
        found = CHUNK_LINE.fullmatch(line := self.read_line())
        if found is None:
            raise BadResponse(f"chunk line {line!r}")
        size = int(found[1], 16)
        if size == 0:
            return b""
        data = self.read_exactly(size)
        if (end := self.read_exactly(2)) != b"\r\n":
            raise BadResponse(f"chunk ends in {end!r}")
        return data

    def read_line(self) -> bytes:
        """Read up to CRLF, which is not returned."""
        while (end := self._buffer.find(b"\r\n")) < 0:
            self._fill()
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 2]
        return line

    def read_exactly(self, size: int) -> bytes:
        """Read this many bytes."""
        while len(self._buffer) < size:
            self._fill()
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        return data

    def read_to_eof(self) -> bytes:
        """Read what still comes until the peer closes in good order; a reset raises ConnectionResetError."""
        try:
            while True:
                self._fill()
        except Truncated:
            data = bytes(self._buffer)
            self._buffer.clear()
            return data

    def closed_by_peer(self) -> bool:
        """Wait until the peer closes, and tell whether it did so without sending any further byte."""
        try:
            return self.read_to_eof() == b""
        except ConnectionError:
            return not self._buffer

    def is_quiet(self) -> bool:
        """Tell whether nothing is there to read at this moment: neither bytes nor EOF."""
        return not self._buffer and not select.select([self.socket], [], [], 0)[0]

    def _fill(self) -> None:
        data = self.socket.recv(262144)
        if not data:
            raise Truncated(bytes(self._buffer))
        self._buffer += data

    def _read_header_lines(self) -> list[tuple[str, str]]:
        headers = []
        while line := self.read_line():
            found = HEADER_LINE.fullmatch(line)
            if found is None:
                raise BadResponse(f"header line {line!r}")
            headers.append((found[1].decode().lower(), found[2].decode("latin-1")))
        return headers

    def _read_body(self, response: Response, head: bool) -> None:
        length, coding = response.header("content-length"), response.header("transfer-encoding")
        assert length is None or coding is None, f"both Content-Length and Transfer-Encoding: {response.headers}"
        if head or response.status in (204, 304):
            return
        if coding is not None:
            assert coding.lower() == "chunked"
            self._read_chunks(response)
        elif length is not None:
            response.body = self._read_counted(int(length))
        else:
            response.body = self.read_to_eof()

    def _read_counted(self, size: int) -> bytes:
        try:
            return self.read_exactly(size)
        except (Truncated, ConnectionError):
            raise Truncated(bytes(self._buffer)) from None

    def _read_chunks(self, response: Response) -> None:
        try:
            while chunk := self.read_chunk():
                response.chunks.append(chunk)
            response.trailers = self._read_header_lines()
        except (Truncated, ConnectionError):
            raise Truncated(b"".join(response.chunks)) from None
        response.body = b"".join(response.chunks)


def wait_until(condition, what: str, timeout: float = TIMEOUT) -> None:
    """Poll a condition of another process that has no event to wait for, such as a file in /proc."""
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, f"not so within {timeout} s: {what}"
        time.sleep(0.005)
