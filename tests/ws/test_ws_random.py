"""Streams of frames broken at random: whatever comes, the server closes in good order and goes on serving."""

import random
import socket

import pytest
from support import Truncated
from support.websocket_client import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, Deflate, WebSocket, make_frame

OFFER = [("Sec-WebSocket-Extensions", "permessage-deflate; client_max_window_bits")]


def stream(dice: random.Random) -> bytes:
    """A few frames, some of them not as they should be, and then some bytes changed."""
    frames = []
    deflate = Deflate(12)
    for _ in range(dice.randrange(1, 12)):
        opcode = dice.choice([TEXT, TEXT, BINARY, BINARY, CONTINUATION, PING, PONG, CLOSE, dice.randrange(16)])
        payload = dice.randbytes(dice.choice([0, 1, 5, 100, 126, 3000]))
        if opcode == TEXT and dice.random() < 0.8:
            payload = "aé€𐍈".encode() * (len(payload) // 9)
        rsv = 0
        if dice.random() < 0.4:
            payload, rsv = deflate.compress(payload), 4
        options = {"fin": dice.random() < 0.7, "rsv": rsv}
        if dice.random() < 0.05:
            options["mask"] = None
        if dice.random() < 0.05:
            options["length"] = dice.randrange(126)
            options["length_size"] = 7
        frames.append(make_frame(opcode, payload, **options))
    data = bytearray(b"".join(frames))
    for _ in range(dice.choice([0, 0, 1, 3])):
        data[dice.randrange(len(data))] = dice.randrange(256)
    return bytes(data)


@pytest.mark.parametrize("seed", range(20))
def test_broken_streams(server, seed):
    dice = random.Random(seed)
    for _ in range(20):
        with WebSocket(server, "/ws-echo", OFFER if dice.random() < 0.7 else []) as ws:
            data = stream(dice)
            cuts = sorted(dice.randrange(len(data) + 1) for _ in range(dice.choice([0, 0, 2, 20])))
            try:
                for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
                    ws.send_raw(data[start:end])
                ws.connection.socket.shutdown(socket.SHUT_WR)
                while True:
                    ws.recv()
            except Truncated as exc:
                # The end of the stream, at a frame's boundary; a reset would lose the close frame.
                assert exc.args[0] == b""
    with WebSocket(server, "/ws-echo") as ws:
        ws.send_text("still here")
        assert ws.recv_text() == "still here"
