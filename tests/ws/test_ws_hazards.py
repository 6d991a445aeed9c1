"""Ways in which the application of a WebSocket can pull the ground from under its own send()."""

import pytest
from support.asgi_script import RUN_TLS, run_server


@pytest.mark.parametrize("kind", ["bytes", "bytearray"])
def test_a_length_of_a_denials_body_that_sends_another(kind):
    run_server(
        f"""
        class Body({kind}):
            def __len__(self):
                if play:
                    play.pop()()
                return super().__len__()
        play = []
        async def app(scope, receive, send):
            await receive()
            await send({{"type": "websocket.http.response.start", "status": 403, "headers": [(b"x", b"1")] * 50}})
            play.append(lambda: (send({{"type": "websocket.http.response.body", "body": b"other"}}), gc.collect()))
            try:
                await send({{"type": "websocket.http.response.body", "body": Body(b"the body")}})
            except RuntimeError as error:
                errors.append(error)
            play.clear()
        async def main():
            got = await ask(UPGRADE, until=b"never there")
            assert b" 403 " in got and got.endswith(b"other" if errors else b"the body")
        """
    )


@pytest.mark.parametrize("message", ["websocket.http.response.start", "websocket.accept"])
@pytest.mark.parametrize(
    "prank", ["server.abort()", 'send({"type": "websocket.accept"})', 'send({"type": "websocket.close"})']
)
def test_headers_that_act_while_they_are_read(message, prank):
    run_server(
        f"""
        class Pair:
            def __init__(self, send):
                self.send = send
            def __iter__(self):
                send = self.send
                try:
                    {prank}
                except Exception as error:
                    errors.append(error)
                return iter((b"x", b"1"))
        async def app(scope, receive, send):
            await receive()
            try:
                await send({{"type": {message!r}, "status": 403, "headers": [Pair(send), Pair(send)]}})
                await send({{"type": "websocket.http.response.body", "body": b"ok"}})
            except Exception as error:
                errors.append(error)
        async def main():
            for _ in range(1 if "abort" in {prank!r} else 3):
                await ask(UPGRADE, until=b"\\x88\\x02")
            assert errors
        """
    )


def test_a_close_that_closes_while_it_is_read():
    run_server(
        """
        class Message(dict):
            def __getitem__(self, key):
                if key == "reason":
                    try:
                        self["send"]({"type": "websocket.close", "code": 4000, "reason": "inner"})
                    except RuntimeError as error:
                        errors.append(error)
                return super().__getitem__(key)
        async def app(scope, receive, send):
            await receive()
            await send({"type": "websocket.accept"})
            try:
                await send(Message(type="websocket.close", code=4001, reason="outer", send=send))
            except RuntimeError as error:
                errors.append(error)
        async def main():
            got = await ask(UPGRADE, until=b"inner")
            assert b"inner" in got and b"outer" not in got
            assert len(errors) == 1, errors
        """
    )


def test_a_loop_that_sends_while_it_schedules():
    """What compresses a message has its space in common with all others of the server."""
    run_server(
        """
        class Odd(type(loop)):
            prank = None
            def call_soon(self, *args, **kwargs):
                if self.prank is not None and self.plays < 6:
                    self.plays += 1
                    self.prank()
                return super().call_soon(*args, **kwargs)
            plays = 0
        loop = Odd()
        loop.set_exception_handler(lambda loop, context: reports.append(context))
        sends = []
        async def app(scope, receive, send):
            await receive()
            await send({"type": "websocket.accept"})
            sends.append(send)
            def prank():
                for each in sends:
                    with contextlib.suppress(Exception):
                        each({"type": "websocket.send", "bytes": os.urandom(70_000)})
            loop.prank = prank
            for _ in range(3):
                await send({"type": "websocket.send", "bytes": os.urandom(100_000)})
            loop.prank = None
            ended.release()
        ended = asyncio.Semaphore(0)
        async def main():
            clients = [await connect(UPGRADE) for _ in range(2)]
            readers = [asyncio.ensure_future(read(client, until=b"never there")) for client in clients]
            for _ in clients:
                await ended.acquire()
            for reader, client in zip(readers, clients):
                reader.cancel()
                client.close()
        """
    )


@pytest.mark.parametrize("size", [50_000, 300_000])
@pytest.mark.parametrize("prank", ["server.abort()", 'send({"type": "websocket.send", "text": "y" * 100_000})'])
def test_a_text_that_acts_at_its_end(prank, size):
    """The last reference to it may be the one that keeps it until it has been sent."""
    run_server(
        f"""
        class Text(str):
            def __del__(self):
                if play:
                    play.pop()()
        play = []
        async def app(scope, receive, send):
            await receive()
            await send({{"type": "websocket.accept"}})
            play.append(lambda: {prank})
            with contextlib.suppress(OSError):
                for _ in range(20):
                    await send({{"type": "websocket.send", "text": Text("x" * {size})}})
        async def main():
            await ask(UPGRADE.replace(b"permessage-deflate", b"none"), until=b"\\x88\\x02")
            assert not play
        """
    )


@pytest.mark.parametrize("prank", ["shutdown", "drop_connections"])
def test_what_the_handshake_frees_ends_the_connection(prank):
    """The result of tls_extension is kept for further requests, of which an open WebSocket has none."""
    run_server(
        f"""
        class Extension(dict):
            def __del__(self):
                if play:
                    play.pop()()
        play = []
        async def app(scope, receive, send):
            if scope["type"] == "http":
                await finish(send)
                return
            await receive()
            play.append(server.{prank})
            with contextlib.suppress(OSError):
                await send({{"type": "websocket.accept"}})
                await send({{"type": "websocket.send", "text": "x" * 1000}})
        def extension(ssl_object):
            return Extension()
        async def main():
            opened = [await open_tls() for _ in range(4)]
            for (reader, writer), request in zip(opened, [UPGRADE, GET, GET, GET]):
                writer.write(request)
                with contextlib.suppress(OSError):
                    await reader.readline()
                writer.transport.abort()
            assert not play
        """,
        run=RUN_TLS,
    )
