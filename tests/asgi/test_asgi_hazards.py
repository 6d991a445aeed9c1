"""Ways in which an application can pull the ground from under its own receive() and send().

In processes of their own, because a failure may be a crash.
"""

import textwrap

import pytest
from support.loops import run_script

PRELUDE = """
from bolide._core import Server

signal.alarm(40)
HEAD = {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]}
END = {"type": "http.response.body", "body": b"ok"}
reports = []
errors = []
loop = new_event_loop()
loop.set_exception_handler(lambda loop, context: reports.append(context))
listening = socket.create_server(("127.0.0.1", 0))
listening.setblocking(False)

async def ask(request, until=b"ok"):
    client = socket.socket()
    client.setblocking(False)
    await loop.sock_connect(client, listening.getsockname())
    await loop.sock_sendall(client, request)
    got = b""
    while until not in got:
        data = await loop.sock_recv(client, 100_000)
        if not data:
            break
        got += data
    client.close()
    return got

async def finish(send):
    await send(HEAD)
    await send(END)

GET = b"GET / HTTP/1.1\\r\\nHost: localhost\\r\\n\\r\\n"
"""


def serve(source: str) -> None:
    """Run an application `app` and a coroutine `main` against each other."""
    run_script(
        PRELUDE
        + textwrap.dedent(source)
        + """
server = Server(loop, app)
server.listen(listening, 100)
loop.run_until_complete(asyncio.wait_for(main(), 30))
server.shutdown()
loop.run_until_complete(server.wait_closed())
loop.close()
"""
    )


def test_receive_is_awaited_while_its_future_is_made():
    """A subclass of the loop is asked by each new Future whether it debugs."""
    serve(
        """
        class Odd(type(loop)):
            prank = None
            def get_debug(self):
                prank, self.prank = self.prank, None
                if prank is not None:
                    try:
                        prank()
                    except StopIteration:
                        pass
                return super().get_debug()
        loop = Odd()
        loop.set_exception_handler(lambda loop, context: reports.append(context))
        async def app(scope, receive, send):
            waiting = receive()
            loop.prank = lambda: waiting.send(None)
            try:
                await waiting
            except RuntimeError as error:
                errors.append(error)
            await finish(send)
        async def main():
            request = b"POST / HTTP/1.1\\r\\nHost: localhost\\r\\nContent-Length: 5\\r\\n\\r\\n"
            assert (await ask(request)).endswith(b"ok")
            assert len(errors) == 1, errors
        """
    )


@pytest.mark.parametrize(
    "message",
    [
        '{"type": "http.response.body", "body": b"ok", "more_body": Prank()}',
        'Message(type="http.response.body", body=b"ok", more_body=False)',
        'Message(type="http.response.body", body=memoryview(b"ok"), more_body=Prank())',
    ],
)
def test_a_body_that_sends_a_body_while_it_is_read(message):
    serve(
        f"""
        prank = None
        def play():
            global prank
            play, prank = prank, None
            if play is not None:
                play()
        class Prank:
            def __bool__(self):
                play()
                return False
        class Message(dict):
            def __getitem__(self, key):
                if key == "more_body":
                    play()
                return super().__getitem__(key)
        async def app(scope, receive, send):
            global prank
            await send(HEAD)
            prank = lambda: send(END)
            try:
                await send({message})
            except RuntimeError as error:
                errors.append(error)
        async def main():
            for _ in range(3):
                assert (await ask(GET)).endswith(b"ok")
            assert len(errors) == 3, errors
        """
    )


def test_a_socket_operation_in_the_first_step_of_a_request():
    """What is being parsed stands in the loop's buffer: that is not the one to receive into."""
    serve(
        """
        left, right = socket.socketpair()
        left.setblocking(False)
        seen = []
        async def app(scope, receive, send):
            right.send(b"GET /wrong HTTP/1.1\\r\\nHost: localhost\\r\\n\\r\\n" * 100)
            await loop.sock_recv(left, 100_000)
            seen.append(scope["path"])
            await finish(send)
        async def main():
            requests = b"".join(GET.replace(b"/ ", b"/%d " % i) for i in range(20))
            last = GET.replace(b"/ ", b"/last ").replace(b"\\r\\n\\r\\n", b"\\r\\nConnection: close\\r\\n\\r\\n")
            assert (await ask(requests + last, until=b"never")).count(b"\\r\\n\\r\\nok") == 21
            assert seen == [f"/{i}" for i in range(20)] + ["/last"], seen
        """
    )


def test_the_end_of_a_request_before_asks_for_the_connection():
    """The state of the request before dies with it, and its finalizer uses what the next one has."""
    serve(
        """
        class Last:
            def __init__(self, *calls): self.calls = calls
            def __del__(self):
                for call in self.calls:
                    try:
                        call()
                    except Exception as error:
                        errors.append(error)
        async def app(scope, receive, send):
            await finish(send)
            asyncio.current_task().last = Last(receive, lambda: send(END), lambda: send(HEAD))
            scope["last"] = Last(receive, lambda: send(END))
        async def main():
            for _ in range(5):
                last = GET.replace(b"\\r\\n\\r\\n", b"\\r\\nConnection: close\\r\\n\\r\\n")
                got = await ask(GET * 20 + last, until=b"never")
                assert got.count(b"\\r\\n\\r\\nok") == 21, got
            gc.collect()
        """
    )


@pytest.mark.parametrize("how", ["loop.close()", "server.shutdown(); loop.close()", "server.close_listeners()"])
def test_a_server_taken_down_from_outside_its_loop(how):
    run_script(
        PRELUDE
        + textwrap.dedent(
            f"""
        async def app(scope, receive, send):
            while True:
                await receive()
                await asyncio.sleep(9)
        server = Server(loop, app)
        server.listen(listening, 100)
        async def main():
            clients = []
            for _ in range(5):
                client = socket.socket()
                client.setblocking(False)
                await loop.sock_connect(client, listening.getsockname())
                await loop.sock_sendall(client, GET + b"GET /half")
                clients.append(client)
            await asyncio.sleep(0.05)
            return clients
        clients = loop.run_until_complete(main())
        {how}
        for method in ("shutdown", "close_listeners", "wait_closed"):
            try:
                getattr(server, method)()
            except RuntimeError:
                pass
        del server
        gc.collect()
        if not loop.is_closed():
            loop.close()
        gc.collect()
        """
        ),
        options=("-W", "ignore"),
    )
