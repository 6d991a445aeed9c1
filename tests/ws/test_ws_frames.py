"""Frames: RFC 6455, sections 5 to 7, against a client that breaks the rules."""

import random
import zlib
from pathlib import Path

import pytest
from support.websocket_client import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    Deflate,
    Frame,
    WebSocket,
    close_payload,
    make_frame,
)

SIZES = [0, 1, 7, 8, 9, 31, 32, 33, 125, 126, 127, 1000, 2037, 2038, 2039, 4096, 65535, 65536, 70000, 300_000]
DEFLATE = [("Sec-WebSocket-Extensions", "permessage-deflate; client_max_window_bits")]


@pytest.fixture
def ws(server):
    with WebSocket(server, "/ws-echo") as opened:
        yield opened


def pattern(size: int) -> bytes:
    """Bytes that show a shift."""
    return bytes((7 * i + i // 251) % 256 for i in range(size))


@pytest.mark.parametrize("size", SIZES)
def test_binary_of_every_size(ws, size):
    ws.send(BINARY, pattern(size))
    assert ws.recv() == Frame(BINARY, pattern(size))
    ws.close()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("letter", ["a", "é", "€", "𐍈"])
def test_text_of_every_size(ws, size, letter):
    text = "x" * (size % 3) + letter * (size // len(letter.encode()))
    ws.send_text(text)
    assert ws.recv_text() == text


@pytest.mark.parametrize("mask", [b"\0\0\0\0", b"\xff\xff\xff\xff", b"\0\xff\1\2"])
def test_masks(ws, mask):
    for size in range(70):
        ws.send(BINARY, pattern(size), mask=mask)
        assert ws.recv().payload == pattern(size)


@pytest.mark.parametrize("step", [1, 2, 3, 13, 64, 1000])
def test_any_cut(ws, step):
    """Frames in pieces that end anywhere: in headers, lengths, masks, control frames."""
    payloads = [pattern(size) for size in (0, 3, 125, 126, 300)]
    data = b"".join(make_frame(BINARY, payload) + make_frame(PING, payload[:125]) for payload in payloads)
    data += make_frame(BINARY, pattern(70000)[:66000]) if step >= 64 else b""
    for start in range(0, len(data), step):
        ws.send_raw(data[start : start + step])
    frames = [ws.recv() for _ in range(11 if step >= 64 else 10)]
    assert [f.payload for f in frames if f.opcode == PONG] == [payload[:125] for payload in payloads]
    expected = payloads + ([pattern(70000)[:66000]] if step >= 64 else [])
    assert [f.payload for f in frames if f.opcode == BINARY] == expected


def test_many_messages_in_one_write(ws):
    ws.send_raw(b"".join(make_frame(TEXT, b"%d" % i) for i in range(1000)))
    assert [ws.recv_text() for _ in range(1000)] == [str(i) for i in range(1000)]


@pytest.mark.parametrize("sizes", [(0, 0), (1, 1), (0, 5, 0), (3, 2, 1), (1000, 70000, 5), (1,) * 300])
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_fragments(ws, sizes, opcode):
    total = b"".join(b"%c" % (97 + i % 26) * size for i, size in enumerate(sizes))
    position = 0
    for number, size in enumerate(sizes):
        last = number == len(sizes) - 1
        ws.send(opcode if number == 0 else CONTINUATION, total[position : position + size], fin=last)
        position += size
    assert ws.recv() == Frame(opcode, total)


def test_control_frames_between_fragments(ws):
    ws.send(TEXT, b"one ", fin=False)
    ws.send(PING, b"first")
    ws.send(CONTINUATION, b"two ", fin=False)
    ws.send(PONG, b"unasked")
    ws.send(PING, b"")
    ws.send(CONTINUATION, b"three")
    assert ws.recv() == Frame(PONG, b"first")
    assert ws.recv() == Frame(PONG, b"")
    assert ws.recv_text() == "one two three"


def test_a_character_across_fragments(ws):
    text = "a€𐍈é"
    data = text.encode()
    for i in range(len(data)):
        ws.send(TEXT if i == 0 else CONTINUATION, data[i : i + 1], fin=i == len(data) - 1)
    assert ws.recv_text() == text


BAD_UTF8 = [
    b"\x80",
    b"\xc0\x80",
    b"\xc1\xbf",
    b"\xe0\x80\x80",
    b"\xed\xa0\x80",
    b"\xf0\x80\x80\x80",
    b"\xf4\x90\x80\x80",
    b"\xf5\x80\x80\x80",
    b"\xff",
    b"\xc3(",
    b"\xe2\x82(",
    b"x" * 100 + b"\xfe",
]


@pytest.mark.parametrize("data", BAD_UTF8)
def test_bad_utf8(server, data):
    with WebSocket(server, "/ws-echo") as ws:
        ws.send(TEXT, data)
        ws.expect_close(1007)
    with WebSocket(server, "/ws-echo") as ws:
        ws.send(TEXT, b"prefix ", fin=False)
        ws.send(CONTINUATION, data)
        ws.expect_close(1007)
    with WebSocket(server, "/ws-echo", DEFLATE) as ws:
        ws.send(TEXT, Deflate().compress(data), rsv=4)
        ws.expect_close(1007)


@pytest.mark.parametrize("data", [b"\xc3", b"\xe2\x82", b"\xf0\x90\x8d"])
def test_text_that_ends_within_a_character(server, data):
    with WebSocket(server, "/ws-echo") as ws:
        ws.send(TEXT, data)
        ws.expect_close(1007)
    with WebSocket(server, "/ws-echo") as ws:
        ws.send(TEXT, data, fin=False)
        ws.send(CONTINUATION, b"")
        ws.expect_close(1007)


def test_bad_utf8_fails_before_the_message_ends(ws):
    """Neither the fragment nor the message is complete."""
    ws.send(TEXT, b"good ", fin=False)
    ws.send_raw(make_frame(CONTINUATION, b"\xf4\x90" + b"x" * 100)[:9])
    ws.expect_close(1007)


@pytest.mark.parametrize(
    "data",
    [
        make_frame(0x3, b"x"),
        make_frame(0x7, b"x"),
        make_frame(0xB),
        make_frame(0xF, b"x"),
        make_frame(TEXT, b"x", rsv=1),
        make_frame(TEXT, b"x", rsv=2),
        make_frame(TEXT, b"x", rsv=4),
        make_frame(PING, b"x", rsv=4),
        make_frame(CLOSE, b"", rsv=7),
        make_frame(TEXT, b"x", mask=None),
        make_frame(PING, mask=None),
        make_frame(PING, b"x" * 126),
        make_frame(CLOSE, close_payload(1000, b"x" * 124)),
        make_frame(PING, b"x", length_size=16),
        make_frame(PING, fin=False),
        make_frame(CLOSE, fin=False),
        make_frame(CONTINUATION, b"x"),
        make_frame(CONTINUATION, b"x", fin=False),
        make_frame(TEXT, b"x", fin=False) + make_frame(TEXT, b"y"),
        make_frame(TEXT, b"x", fin=False) + make_frame(BINARY, b"y", fin=False),
        make_frame(TEXT, b"x") + make_frame(CONTINUATION, b"x"),
        make_frame(TEXT, b"x", length_size=16),
        make_frame(TEXT, b"x", length_size=64),
        make_frame(TEXT, b"x" * 126, length_size=64),
        make_frame(TEXT, b"", length=1 << 63, length_size=64),
        make_frame(TEXT, b"", length=(1 << 64) - 1, length_size=64),
    ],
)
def test_malformed_frames(server, data):
    with WebSocket(server, "/ws-echo") as ws:
        ws.send_raw(data)
        frame = ws.recv()
        if frame.opcode == TEXT:
            frame = ws.recv()
        assert (frame.opcode, frame.payload[:2]) == (CLOSE, b"\x03\xea"), frame
        ws.expect_eof()
    # Byte by byte: as early as it is wrong.
    with WebSocket(server, "/ws-echo") as ws:
        try:
            for byte in data:
                ws.send_raw(bytes([byte]))
        except ConnectionError:
            pass
        frame = ws.recv()
        if frame.opcode == TEXT:
            frame = ws.recv()
        assert (frame.opcode, frame.payload[:2]) == (CLOSE, b"\x03\xea"), frame


@pytest.mark.parametrize("code", [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 4999])
def test_close_codes(server, apps, key, code):
    with WebSocket(server, f"/ws-echo?key={key}") as ws:
        ws.send(CLOSE, close_payload(code, "warum nicht é".encode()))
        ws.expect_close(code)
    assert apps.wait(key) == {"type": "websocket.disconnect", "code": code, "reason": "warum nicht é"}


def test_close_without_a_code(server, apps, key):
    with WebSocket(server, f"/ws-echo?key={key}") as ws:
        ws.send(CLOSE)
        ws.expect_close(None)
    assert apps.wait(key) == {"type": "websocket.disconnect", "code": 1005, "reason": ""}


@pytest.mark.parametrize("code", [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535])
def test_bad_close_codes(server, apps, key, code):
    with WebSocket(server, f"/ws-echo?key={key}") as ws:
        ws.send(CLOSE, close_payload(code))
        ws.expect_close(1002)
    assert apps.wait(key)["code"] == 1002


def test_other_bad_close_frames(server):
    with WebSocket(server, "/ws-echo") as ws:
        ws.send(CLOSE, b"x")
        ws.expect_close(1002)
    with WebSocket(server, "/ws-echo") as ws:
        ws.send(CLOSE, close_payload(1000, b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80"))
        ws.expect_close(1007)


def test_what_follows_a_close_frame_is_ignored(server, apps, key):
    with WebSocket(server, f"/ws-echo?key={key}") as ws:
        ws.send_raw(make_frame(CLOSE, close_payload(1000)) + make_frame(TEXT, b"x") + make_frame(PING))
        ws.expect_close(1000)
    assert apps.wait(key)["code"] == 1000


def test_close_within_a_message(ws):
    ws.send(TEXT, b"unfinished", fin=False)
    ws.close(1001)


def test_the_peer_vanishes(server, apps, key):
    with WebSocket(server, f"/ws-echo?key={key}") as ws:
        ws.send(TEXT, b"unfinished", fin=False)
    assert apps.wait(key) == {"type": "websocket.disconnect", "code": 1006}


def test_the_peer_resets(server, apps, key):
    ws = WebSocket(server, f"/ws-echo?key={key}")
    ws.send_text("x")
    assert ws.recv_text() == "x"
    ws.connection.reset()
    assert apps.wait(key) == {"type": "websocket.disconnect", "code": 1006}


# --- sizes --------------------------------------------------------------------------------------------------------


@pytest.fixture
def small(servers):
    """A server that takes messages of 1000 bytes at most."""
    with servers.lend("ws_apps:app", "--ws-max-size", "1000", app_dir=Path(__file__).parent) as running:
        yield running


def test_largest_message(small):
    with WebSocket(small, "/ws-echo") as ws:
        ws.send(BINARY, b"x" * 1000)
        assert len(ws.recv().payload) == 1000
        ws.send(BINARY, b"x" * 600, fin=False)
        ws.send(CONTINUATION, b"y" * 400)
        assert len(ws.recv().payload) == 1000
        ws.close()


def test_frame_too_large(small):
    with WebSocket(small, "/ws-echo") as ws:
        ws.send(BINARY, b"x" * 1001)
        ws.expect_close(1009)


def test_frame_too_large_by_its_header(small):
    with WebSocket(small, "/ws-echo") as ws:
        ws.send_raw(make_frame(BINARY, length=(1 << 63) - 1, length_size=64))
        ws.expect_close(1009)


def test_fragments_too_large(small):
    with WebSocket(small, "/ws-echo") as ws:
        for number in range(10):
            ws.send(TEXT if number == 0 else CONTINUATION, b"x" * 100, fin=False)
        ws.send(CONTINUATION, b"x", fin=False)
        ws.expect_close(1009)


def test_the_code_arrives_although_the_peer_still_sends(small):
    with WebSocket(small, "/ws-echo") as ws:
        ws.send_raw(make_frame(BINARY, b"x" * 500_000))
        ws.expect_close(1009)


# --- compression --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 100, 5000, 70000, 1_000_000])
@pytest.mark.parametrize("options", ["", "; server_no_context_takeover; client_no_context_takeover"])
def test_compressed_messages(server, size, options):
    offer = [("Sec-WebSocket-Extensions", "permessage-deflate" + options)]
    with WebSocket(server, "/ws-echo", offer) as ws:
        deflate = Deflate(takeover=not options)
        for payload in (pattern(size), b"hello " * (size // 6), pattern(size)):
            ws.send(BINARY, deflate.compress(payload), rsv=4)
            frame = ws.recv()
            found = deflate.decompress(frame.payload) if frame.rsv1 else frame.payload
            assert found == payload
            assert frame.rsv1 or size < 32
        ws.close()


def test_context_takeover_saves_bytes(server):
    with WebSocket(server, "/ws-echo", DEFLATE) as ws:
        deflate = Deflate(12)
        sizes = []
        for _ in range(3):
            ws.send(BINARY, deflate.compress(pattern(400)), rsv=4)
            frame = ws.recv()
            assert deflate.decompress(frame.payload) == pattern(400)
            sizes.append(len(frame.payload))
        assert sizes[1] < sizes[0] / 3


def test_compressed_fragments(server):
    with WebSocket(server, "/ws-echo", DEFLATE) as ws:
        data = Deflate(12).compress(pattern(3000))
        for i in range(0, len(data), 100):
            last = i + 100 >= len(data)
            ws.send(BINARY if i == 0 else CONTINUATION, data[i : i + 100], fin=last, rsv=4 if i == 0 else 0)
            ws.send(PING, b"between")
        frames = [ws.recv() for _ in range(len(range(0, len(data), 100)) + 1)]
        assert [Deflate().decompress(f.payload) for f in frames if f.opcode == BINARY] == [pattern(3000)]


def test_both_kinds_of_messages_on_one_connection(server):
    with WebSocket(server, "/ws-echo", DEFLATE) as ws:
        ws.send_text("short")
        assert ws.recv_text() == "short"
        ws.send(TEXT, Deflate(12).compress(b"also short"), rsv=4)
        assert ws.recv_text() == "also short"


def test_rsv1_on_a_continuation(server):
    with WebSocket(server, "/ws-echo", DEFLATE) as ws:
        ws.send(TEXT, b"", fin=False, rsv=4)
        ws.send(CONTINUATION, b"", rsv=4)
        ws.expect_close(1002)


@pytest.mark.parametrize("data", [b"\xff\xff\xff\xff", b"\x07", b"not deflate at all", b"\x04\xff\xff\x00"])
def test_corrupt_data(server, data):
    with WebSocket(server, "/ws-echo", DEFLATE) as ws:
        ws.send(BINARY, data, rsv=4)
        ws.expect_close(1007)


def test_final_block(server):
    """A peer may end the DEFLATE stream with each message (RFC 7692, section 7.2.3.4)."""
    with WebSocket(server, "/ws-echo", DEFLATE) as ws:
        for text in (b"one", b"two"):
            packer = zlib.compressobj(wbits=-12)
            data = packer.compress(text) + packer.flush(zlib.Z_FINISH) + b"\x00"
            ws.send(TEXT, data, rsv=4)
            assert ws.recv_text() == text.decode()


def test_decompression_bomb(server, small):
    bomb = Deflate(12).compress(bytes(100_000_000))
    before = server.memory("VmHWM")
    with WebSocket(server, "/ws-echo", DEFLATE) as ws:
        ws.send(BINARY, bomb, rsv=4)
        ws.expect_close(1009)
    assert server.memory("VmHWM") - before < 80 * 1024 * 1024  # of 100 MB
    with WebSocket(small, "/ws-echo", DEFLATE) as ws:
        ws.send(BINARY, Deflate(12).compress(bytes(1001)), rsv=4)
        ws.expect_close(1009)
    with WebSocket(small, "/ws-echo", DEFLATE) as ws:
        ws.send(BINARY, Deflate(12).compress(bytes(1000)), rsv=4)
        assert Deflate().decompress(ws.recv().payload) == bytes(1000)


def test_incompressible_message_of_the_largest_size(small):
    data = random.Random(1).randbytes(1000)
    with WebSocket(small, "/ws-echo", DEFLATE) as ws:
        ws.send(BINARY, Deflate(12).compress(data), rsv=4)
        assert Deflate().decompress(ws.recv().payload) == data


def test_broadcast_with_compression(server):
    """A message to many is compressed once; each peer's context stays what that peer has seen."""
    offers = [
        "permessage-deflate",
        "permessage-deflate; server_max_window_bits=9",
        "permessage-deflate; server_no_context_takeover",
        "permessage-deflate; client_max_window_bits",
        None,
    ]
    peers = [WebSocket(server, "/ws-broadcast", [("Sec-WebSocket-Extensions", o)] if o else []) for o in offers]
    inflaters = [Deflate(), Deflate(), Deflate(takeover=False), Deflate(), None]

    def read(index: int) -> bytes:
        frame = peers[index].recv()
        return inflaters[index].decompress(frame.payload) if frame.rsv1 else frame.payload

    for ws in peers:
        assert ws.recv_text() == "joined"
    for number in range(12):
        payload = b"%d " % number + pattern(3000) if number % 3 else b"again and again " * 40
        sender = peers[number % len(peers)]
        sender.send(BINARY, payload)
        for index in range(len(peers)):
            assert read(index) == payload, (number, index)
        if number % 4 == 3:
            peers.pop().close()
            inflaters.pop()
    for ws in peers:
        ws.close()


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_broadcast_of_all_sizes(server, opcode):
    """What goes to many is framed once, whatever each of them has agreed upon; equal messages count as one."""
    offers = [[], DEFLATE, [], [("Sec-WebSocket-Extensions", "permessage-deflate; server_max_window_bits=9")], []]
    peers = [WebSocket(server, "/ws-broadcast-copies", offer) for offer in offers]
    inflaters = [Deflate() for _ in peers]
    for ws in peers:
        assert ws.recv_text() == "joined"
    for size in (1, 31, 100, 125, 126, 1000, 1024, 1025, 2040, 5000, 16384, 16385, 70000):
        payload = ("\u00e9" * (size // 2) + "e" * (size % 2)).encode() if opcode == TEXT else pattern(size)
        peers[size % len(peers)].send(opcode, payload)
        for ws, inflater in zip(peers, inflaters, strict=True):
            for _ in range(20):
                frame = ws.recv()
                received = inflater.decompress(frame.payload) if frame.rsv1 else frame.payload
                assert (frame.opcode, received) == (opcode, payload)
    for ws in peers:
        ws.close()
