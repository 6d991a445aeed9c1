"""Ways in which an application can pull the ground from under its own receive() and send().

In processes of their own, because a failure may be a crash.
"""

import textwrap
from pathlib import Path

import pytest
from support.asgi_script import RUN_TLS, run_server
from support.loops import run_monkey


def test_receive_is_awaited_by_two():
    """The second one learns of it; the first one waits on, and is not disturbed by other misuse."""
    run_server(
        """
        async def app(scope, receive, send):
            waiting = receive()
            async def wait():
                return await waiting
            first = loop.create_task(wait())
            await asyncio.sleep(0)
            for misuse in (
                lambda: waiting.send(None),
                lambda: waiting.add_done_callback(print),
                lambda: loop.run_until_complete(wait()),
                lambda: delattr(waiting, "_asyncio_future_blocking"),
                waiting.result,
            ):
                try:
                    misuse()
                except (RuntimeError, AttributeError) as error:
                    errors.append(error)
            try:
                await wait()
            except RuntimeError as error:
                errors.append(error)
            assert not waiting.done() and not first.done()
            asking.set()
            assert (await first)["body"] == b"hello"
            assert waiting.done() and not waiting.cancel()
            await finish(send)
        asking = asyncio.Event()
        async def main():
            await post_once(asking)
            assert len(errors) == 6, errors
        """
    )


def test_cancelling_what_waits_in_receive():
    run_server(
        """
        async def app(scope, receive, send):
            task = loop.create_task(receive())
            await asyncio.sleep(0)
            task.cancel("enough")
            try:
                await task
            except asyncio.CancelledError as error:
                errors.append(error)
            waiting = receive()
            assert not asyncio.isfuture(waiting)
            async def wait():
                return await waiting
            first = loop.create_task(wait())
            await asyncio.sleep(0)
            assert asyncio.isfuture(waiting) and waiting.get_loop() is loop
            assert waiting.cancel("by hand") and waiting.cancelled() and not waiting.cancel()
            try:
                await first
            except asyncio.CancelledError as error:
                errors.append(error)
            try:
                await asyncio.wait_for(receive(), 0.001)
            except TimeoutError as error:
                errors.append(error)
            last = asyncio.ensure_future(receive())
            await asyncio.sleep(0)
            asking.set()
            assert (await last)["body"] == b"hello"
            await finish(send)
        asking = asyncio.Event()
        async def main():
            await post_once(asking)
            assert [type(error).__name__ for error in errors] == ["CancelledError"] * 2 + ["TimeoutError"], errors
            assert errors[1].args == ("by hand",)
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
    run_server(
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
    run_server(
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
    run_server(
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
    run_server(
        f"""
        async def app(scope, receive, send):
            while True:
                await receive()
                await asyncio.sleep(9)
        server = Server(loop, app)
        server.listen(listening, 100)
        async def main():
            clients = [await connect(GET + b"GET /half") for _ in range(5)]
            while server.requests_running < 5:
                await asyncio.sleep(0.01)
            return clients
        clients = loop.run_until_complete(main())
        {how}
        for method in ("shutdown", "close_listeners", "wait_closed"):
            with contextlib.suppress(RuntimeError):
                getattr(server, method)()
        del server
        gc.collect()
        loop.close()
        gc.collect()
        """,
        run="",
    )


def test_receive_takes_no_futures():
    """The task that runs the application tells its end by calling receive(): nobody else can."""
    run_server(
        """
        async def app(scope, receive, send):
            done = loop.create_future()
            done.set_result(None)
            for argument in (done, asyncio.current_task(), 5):
                try:
                    receive(argument)
                except TypeError as error:
                    errors.append(error)
            await asyncio.sleep(0)
            try:
                receive(done)
            except TypeError as error:
                errors.append(error)
            await finish(send)
        async def main():
            assert (await ask(GET)).endswith(b"ok")
            assert len(errors) == 4, errors
        """
    )


def test_a_task_whose_end_another_thread_tells():
    run_server(
        """
        async def app(scope, receive, send):
            def tell():
                try:
                    receive(task)
                except (RuntimeError, TypeError) as error:  # TypeError: without eager tasks the loop was told before
                    errors.append(error)
            def tell_by_another(task):
                thread = threading.Thread(target=tell)
                thread.start()
                thread.join()
            task = asyncio.current_task()
            task.add_done_callback(tell_by_another)
            await asyncio.sleep(0)
            await finish(send)
        async def main():
            for _ in range(3):
                assert (await ask(GET)).endswith(b"ok")
            assert len(errors) == 3, errors
        """
    )


def test_a_file_for_a_client_that_has_left_is_closed():
    """Whatever the application does after that."""
    run_server(
        """
        import tempfile
        def is_open(path):
            def target(number):
                with contextlib.suppress(OSError):
                    return os.readlink("/proc/self/fd/" + number)
            return any(target(number) == path for number in os.listdir("/proc/self/fd"))
        async def app(scope, receive, send):
            with tempfile.TemporaryDirectory() as folder:
                path = os.path.join(folder, "file")
                with open(path, "wb") as file:
                    file.truncate(1 << 28)
                await receive()
                await send({**HEAD, "headers": []})
                sending = send({"type": "http.response.pathsend", "path": path})
                assert is_open(path)
                begun.set()
                assert (await receive())["type"] == "http.disconnect"
                assert not is_open(path)
                sending.close()
            left.set()
        begun = asyncio.Event()
        left = asyncio.Event()
        async def main():
            client = await connect(GET)
            await begun.wait()
            client.close()
            await left.wait()
        """
    )


KINDS_OF_LOOP = """
class Closing(type(loop)):
    closing = False
    def call_soon(self, *args, **kwargs):
        if self.closing:
            self.closing = False
            try:
                self.close()
            except RuntimeError as error:
                errors.append(error)
        return super().call_soon(*args, **kwargs)
loop = Closing()
"""


@pytest.mark.parametrize("call", ["server.abort()", "server.shutdown()", "server.drop_connections()"])
def test_a_loop_that_is_closed_by_what_the_end_of_its_server_wakes(call):
    """Outside of a run of the loop, close() is allowed: but not while the server goes through its connections."""
    run_server(
        KINDS_OF_LOOP
        + textwrap.dedent(
            f"""
            async def app(scope, receive, send):
                if scope["type"] == "websocket":
                    await receive()
                while True:
                    await receive()
            server = Server(loop, app)
            server.listen(listening, 100)
            async def main():
                clients = [await connect(request) for request in (GET, UPGRADE) * 5]
                while server.requests_running < 10:
                    await asyncio.sleep(0.01)
                return clients
            clients = loop.run_until_complete(main())
            loop.closing = True
            try:
                {call}
            except RuntimeError as error:
                errors.append(error)
            assert errors or loop.closing, (errors, loop.closing)
            loop.closing = False
            loop.close()
            """
        ),
        run="",
    )


def test_a_loop_that_is_closed_while_a_message_is_read_outside_of_its_run():
    run_server(
        """
        kept = []
        async def app(scope, receive, send):
            kept.append(send)
            await asyncio.sleep(99)
        class Headers(list):
            def __iter__(self):
                yield b"x", b"1"
                try:
                    loop.close()
                except RuntimeError as error:
                    errors.append(error)
                gc.collect()
                yield b"content-length", b"2"
        server = Server(loop, app)
        server.listen(listening, 100)
        async def main():
            client = await connect(GET)
            while not kept:
                await asyncio.sleep(0.01)
            return client
        client = loop.run_until_complete(main())
        try:
            kept[0]({**HEAD, "headers": Headers()})
            kept[0](END)
        except OSError as error:
            errors.append(error)
        assert errors
        loop.close()
        """,
        run="",
    )


def test_a_context_of_tls_whose_end_closes_the_loop():
    run_server(
        """
        from support.certificates import authority
        import ssl
        async def app(scope, receive, send):
            await finish(send)
        class Context(ssl.SSLContext):
            def __del__(self):
                try:
                    loop.close()
                except RuntimeError as error:
                    errors.append(error)
        server = Server(loop, app)
        for _ in range(3):
            server.listen(socket.create_server(("127.0.0.1", 0)), ssl_context=Context(ssl.PROTOCOL_TLS_SERVER))
        server.replace_ssl_context(authority().server())
        assert errors or loop.is_closed()
        loop.close()
        """,
        run="",
    )


def test_a_result_of_tls_extension_that_closes_the_connection():
    run_server(
        """
        async def app(scope, receive, send):
            await finish(send)
        def extension(ssl_object):
            server.abort()
            gc.collect()
            return {"version": ssl_object.version()}
        async def main():
            with contextlib.suppress(OSError):
                reader, writer = await open_tls()
                writer.write(GET)
                assert await reader.read() == b""
        """,
        run=RUN_TLS,
    )


@pytest.mark.parametrize("request_name", ["GET", "UPGRADE"])
def test_a_task_in_receive_that_nobody_refers_to(request_name):
    """It goes on until it is told of the disconnect, as if a future of asyncio's were in between."""
    run_server(
        f"""
        async def app(scope, receive, send):
            async def listen():
                while not (await receive())["type"].endswith("disconnect"):
                    pass
                told.set()
            if scope["type"] == "websocket":
                await receive()
                await send({{"type": "websocket.accept"}})
            asyncio.create_task(listen())
            for _ in range(3):
                await asyncio.sleep(0)
                gc.collect()
            if scope["type"] == "http":
                await finish(send)
            else:
                await told.wait()
        told = asyncio.Event()
        async def main():
            await ask({request_name}, until=b"ok" if {request_name!r} == "GET" else b"\\r\\n\\r\\n")
            await told.wait()
            assert not reports
        """
    )


@pytest.mark.parametrize("call", ["shutdown()", "wait_closed()", "abort()", "listen(listening)"])
def test_a_server_is_not_found_before_it_is_made(call):
    """By way of the garbage collector, of all that refers to its loop."""
    run_server(
        f"""
        async def app(scope, receive, send):
            await finish(send)
        class Limit:
            def __index__(self):
                for found in gc.get_referrers(loop):
                    if isinstance(found, Server):
                        found.{call}
                return 5
        def headers():
            Limit().__index__()
            yield b"x", b"y"
        server = Server(loop, app, limit_concurrency=Limit(), limit_max_body=Limit(), headers=headers())
        assert server in gc.get_referrers(loop)
        loop.close()
        """,
        run="",
    )


@pytest.mark.parametrize("request_name", ["GET", "UPGRADE"])
def test_a_request_is_not_found_before_its_head_is_complete(request_name):
    run_server(
        f"""
        async def app(scope, receive, send):
            if scope["type"] == "websocket":
                await receive()
                await send({{"type": "websocket.close"}})
            else:
                await finish(send)
        def extension(ssl_object):
            for found in gc.get_objects():
                if type(found).__name__ == "Send":
                    found({{"type": "websocket.accept"}} if {request_name!r} == "UPGRADE" else HEAD)
            return {{}}
        async def main():
            reader, writer = await open_tls()
            writer.write({request_name})
            expected = b"403" if {request_name!r} == "UPGRADE" else b"200"
            assert expected in await reader.readline()
            writer.close()
        """,
        run=RUN_TLS,
    )


@pytest.mark.parametrize("seed", range(2))
def test_a_monkey_as_the_application(seed, tmp_path):
    assert run_monkey(Path(__file__).with_name("monkey.py"), seed, tmp_path) > 50
