"""A WebSocket client for tests that sees every frame: what is sent is said frame by frame in the test."""

import base64
import hashlib
import os
import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from .http_client import Connection
from .server import ServerProcess

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
FLUSH = b"\x00\x00\xff\xff"


@dataclass(frozen=True)
class Frame:
    """A frame from the server."""

    opcode: int
    payload: bytes
    fin: bool = True
    rsv1: bool = False


def make_frame(
    opcode: int,
    payload: bytes = b"",
    *,
    fin: bool = True,
    rsv: int = 0,
    mask: bytes | None = b"\x12\x34\x56\x78",
    length: int | None = None,
    length_size: int | None = None,
) -> bytes:
    """The bytes of a frame from a client.

    mask None leaves the masking out. length says another length than the payload's, length_size (7, 16, 64) writes it
    in so many bits.
    """
    length = len(payload) if length is None else length
    length_size = length_size or (7 if length < 126 else 16 if length < 65536 else 64)
    head = bytes([fin << 7 | rsv << 4 | opcode])
    bit = 0x80 if mask is not None else 0
    if length_size == 7:
        head += bytes([bit | length])
    elif length_size == 16:
        head += struct.pack("!BH", bit | 126, length)
    else:
        head += struct.pack("!BQ", bit | 127, length)
    if mask is None:
        return head + payload
    key = (mask * (len(payload) // 4 + 1))[: len(payload)]
    masked = (int.from_bytes(payload) ^ int.from_bytes(key)).to_bytes(len(payload))
    return head + mask + masked


def close_payload(code: int, reason: bytes = b"") -> bytes:
    """The payload of a close frame."""
    return struct.pack("!H", code) + reason


def handshake_fields(**changes: str | None) -> list[tuple[str, str]]:
    """The fields of an opening handshake; changes by name with underscores, None to leave one out."""
    fields: dict[str, str | None] = {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Key": KEY,
        "Sec-WebSocket-Version": "13",
    }
    names = {name.lower().replace("-", "_"): name for name in fields}
    for name, value in changes.items():
        fields[names.get(name, name.replace("_", "-"))] = value
    return [(name, value) for name, value in fields.items() if value is not None]


class WebSocket:
    """A connection that asks for a WebSocket; `response` is the answer to the handshake."""

    def __init__(
        self,
        server: ServerProcess,
        target: str,
        fields: Iterable[tuple[str, str]] = (),
        *,
        extra: bytes = b"",
        expect: int = 101,
        **options,
    ) -> None:
        self.connection: Connection = server.connect(**options)
        self.key = base64.b64encode(os.urandom(16)).decode()
        lines = [f"GET {target} HTTP/1.1", "Host: test"]
        lines += [f"{name}: {value}" for name, value in [*handshake_fields(sec_websocket_key=self.key), *fields]]
        self.send_raw(("\r\n".join(lines) + "\r\n\r\n").encode() + extra)
        if expect != 101:
            self.response = self.connection.read_response()
            assert self.response.status == expect, self.response
            return
        self.response = self.connection.read_head()
        assert self.response.status == 101, self.response
        digest = hashlib.sha1(self.key.encode() + GUID).digest()
        assert self.response.header("sec-websocket-accept") == base64.b64encode(digest).decode()
        assert self.response.header("upgrade") == "websocket"
        assert self.response.header("connection").lower() == "upgrade"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.connection.close()

    def send_raw(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.connection.send(data)

    def send(self, opcode: int, payload: bytes = b"", **options) -> None:
        """Send one frame."""
        self.send_raw(make_frame(opcode, payload, **options))

    def send_text(self, text: str) -> None:
        """Send a text message."""
        self.send(TEXT, text.encode())

    def recv(self) -> Frame:
        """The next frame."""
        first, second = self.connection.read_exactly(2)
        assert first & 0x30 == 0 and second & 0x80 == 0, "reserved bits or a mask from the server"
        length = second & 0x7F
        if length == 126:
            (length,) = struct.unpack("!H", self.connection.read_exactly(2))
            assert length >= 126
        elif length == 127:
            (length,) = struct.unpack("!Q", self.connection.read_exactly(8))
            assert length >= 65536
        return Frame(first & 0xF, self.connection.read_exactly(length), bool(first & 0x80), bool(first & 0x40))

    def recv_text(self) -> str:
        """The next frame, which must be a whole text message."""
        frame = self.recv()
        assert (frame.opcode, frame.fin, frame.rsv1) == (TEXT, True, False), frame
        return frame.payload.decode()

    def recv_close(self) -> tuple[int | None, str]:
        """The next frame, which must be a close frame: its code and reason."""
        frame = self.recv()
        assert frame.opcode == CLOSE, frame
        if not frame.payload:
            return None, ""
        return struct.unpack("!H", frame.payload[:2])[0], frame.payload[2:].decode()

    def expect_close(self, code: int | None) -> str:
        """Receive a close frame with this code and then the end of the connection; returns the reason."""
        found, reason = self.recv_close()
        assert found == code, (found, reason)
        self.expect_eof()
        return reason

    def expect_eof(self) -> None:
        """Receive the end of the connection."""
        assert self.connection.read_to_eof() == b""

    def close(self, code: int = 1000, reason: bytes = b"") -> None:
        """Do the closing handshake."""
        self.send(CLOSE, close_payload(code, reason))
        self.expect_close(code)


class Deflate:
    """The client's side of permessage-deflate."""

    def __init__(self, bits: int = 15, *, takeover: bool = True) -> None:
        self.bits, self.takeover = bits, takeover
        self._out = zlib.compressobj(wbits=-bits)
        self._in = zlib.decompressobj(wbits=-15)

    def compress(self, data: bytes) -> bytes:
        """A message, compressed."""
        if not self.takeover:
            self._out = zlib.compressobj(wbits=-self.bits)
        packed = self._out.compress(data) + self._out.flush(zlib.Z_SYNC_FLUSH)
        assert packed.endswith(FLUSH)
        return packed[:-4]

    def decompress(self, data: bytes) -> bytes:
        """A message, decompressed."""
        return self._in.decompress(data + FLUSH)
