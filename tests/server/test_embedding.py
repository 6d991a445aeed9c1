"""bolide.Server inside a program: in a thread, in a running loop, next to other tasks."""

import asyncio
import contextlib
import logging
import signal
import socket
import subprocess
import sys
import threading
import time

import httpx
import pytest
from support.process import Process

import bolide

DEADLINE = 20.0


async def app(scope, receive, send):
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


def config(application=app, **options):
    return bolide.Config(application, **{"port": 0, "log_config": None, **options})


def url_of(server):
    host, port = server.servers[0].sockets[0].getsockname()[:2]
    return f"http://{host}:{port}/"


async def started(server):
    async with asyncio.timeout(DEADLINE):
        while not server.started:
            await asyncio.sleep(0.001)


async def fetch(url):
    async with httpx.AsyncClient(trust_env=False) as client:
        return (await client.get(url)).text


def run(main):
    with asyncio.Runner(loop_factory=bolide.new_event_loop) as runner:
        return runner.run(main)


@contextlib.contextmanager
def in_thread(server):
    """`server` running in a thread, started."""
    thread = threading.Thread(target=server.run)
    thread.start()
    deadline = time.monotonic() + DEADLINE
    while not server.started:
        assert thread.is_alive() and time.monotonic() < deadline
        time.sleep(0.001)
    try:
        yield
    finally:
        server.should_exit = True
        thread.join(DEADLINE)
        assert not thread.is_alive()


def test_a_server_serves_once_and_its_configuration_more_often():
    first = bolide.Server(config())
    with in_thread(first):
        pass
    with pytest.raises(RuntimeError, match="serves once"):
        first.run()
    second = bolide.Server(first.config)
    with in_thread(second):
        assert httpx.get(url_of(second), trust_env=False, verify=False).text == "ok"


def test_in_a_thread_until_should_exit():
    server = bolide.Server(config())
    with in_thread(server):
        assert httpx.get(url_of(server), trust_env=False, verify=False).text == "ok"
        url = url_of(server)
    with pytest.raises(httpx.ConnectError):
        httpx.get(url, trust_env=False, verify=False)


def test_in_place_of_another_server(tmp_path):
    """A program that was written for uvicorn, with one line changed."""
    (tmp_path / "program.py").write_text(
        "import bolide as uvicorn\n\n"
        "async def app(scope, receive, send):\n"
        '    await send({"type": "http.response.start", "status": 204})\n'
        '    await send({"type": "http.response.body"})\n\n'
        'if __name__ == "__main__":\n'
        '    log_config = uvicorn.config.LOGGING_CONFIG | {"disable_existing_loggers": True}\n'
        '    log_config["formatters"]["default"]["fmt"] = "LOG %(message)s"\n'
        '    uvicorn.run("program:app", port=0, lifespan="off", log_config=log_config)\n'
        '    print("ended")\n'
    )
    process = Process([sys.executable, "program.py"], tmp_path)
    try:
        url = process.wait_for(r"LOG Bolide running on (\S+)")[1]
        assert httpx.get(url, trust_env=False, timeout=DEADLINE).status_code == 204
        assert process.stop(signal.SIGINT) == 0
        assert process.text.endswith("ended\n")
    finally:
        process.kill()


def test_run_takes_options_for_an_application_only():
    async def main():
        raise AssertionError("not run")

    with pytest.raises(TypeError, match="port"):
        bolide.run(main(), port=0)


def test_two_servers_in_two_threads():
    servers = [bolide.Server(config()) for _ in range(2)]
    with in_thread(servers[0]), in_thread(servers[1]):
        for server in servers:
            assert httpx.get(url_of(server), trust_env=False, verify=False).text == "ok"
    assert [server.total_requests for server in servers] == [1, 1]


def test_force_exit_from_another_thread_ends_a_request_that_hangs():
    running = threading.Event()

    async def hang(scope, receive, send):
        assert scope["type"] == "http"
        running.set()
        await asyncio.Event().wait()

    server = bolide.Server(config(hang))
    with (
        in_thread(server),
        socket.create_connection(("127.0.0.1", int(url_of(server).split(":")[2].strip("/")))) as sock,
    ):
        sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert running.wait(DEADLINE)
        server.should_exit = True
        server.force_exit = True
        sock.settimeout(DEADLINE)
        with contextlib.suppress(ConnectionResetError):
            assert b"200" not in sock.recv(1000)


def test_in_a_running_loop_next_to_other_tasks():
    async def main():
        server = bolide.Server(config())
        ticks = []

        async def tick():
            while not server.should_exit:
                ticks.append(1)
                await asyncio.sleep(0.001)

        async with asyncio.TaskGroup() as group:
            serving = group.create_task(server.serve())
            group.create_task(tick())
            await started(server)
            assert await fetch(url_of(server)) == "ok"
            server.should_exit = True
        assert serving.done()
        return ticks

    assert run(main())


def test_should_exit_before_serve():
    async def main():
        server = bolide.Server(config())
        server.should_exit = True
        async with asyncio.timeout(DEADLINE):
            await server.serve()
        assert server.started

    run(main())


def test_given_sockets_are_served_and_closed():
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    addresses = [sock.getsockname() for sock in sockets]

    async def main():
        server = bolide.Server(config())
        serving = asyncio.create_task(server.serve(sockets=sockets))
        await started(server)
        for host, port in addresses:
            assert await fetch(f"http://{host}:{port}/") == "ok"
        server.should_exit = True
        await serving

    run(main())
    assert [sock.fileno() for sock in sockets] == [-1, -1]


def test_startup_main_loop_and_shutdown_can_be_overridden():
    calls = []

    class Own(bolide.Server):
        async def startup(self, sockets=None):
            await super().startup(sockets=sockets)
            calls.append("startup")

        async def main_loop(self):
            calls.append("main_loop")

        async def shutdown(self, sockets=None):
            calls.append("shutdown")
            await super().shutdown(sockets=sockets)

    run(Own(config()).serve())
    assert calls == ["startup", "main_loop", "shutdown"]


def test_cancelling_serve_drops_what_runs_and_tells_the_application():
    events = []

    async def application(scope, receive, send):
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            events.append("shutdown")
            await send({"type": "lifespan.shutdown.complete"})
            return
        events.append("request")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            events.append("cancelled")
            raise

    async def main():
        server = bolide.Server(config(application))
        serving = asyncio.create_task(server.serve())
        await started(server)
        reader, writer = await asyncio.open_connection(*server.servers[0].sockets[0].getsockname())
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        async with asyncio.timeout(DEADLINE):
            while not events:
                await asyncio.sleep(0.001)
            serving.cancel()
            with pytest.raises(asyncio.CancelledError):
                await serving
            with contextlib.suppress(ConnectionResetError):
                assert await reader.read() == b""
        writer.close()

    run(main())
    assert events == ["request", "cancelled", "shutdown"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_a_signal_stops_serve_and_reaches_the_handler_before(number):
    received = []
    original = signal.signal(number, lambda got, frame: received.append(got))
    try:

        async def main():
            server = bolide.Server(config())

            async def interrupt():
                await started(server)
                signal.raise_signal(number)

            async with asyncio.timeout(DEADLINE), asyncio.TaskGroup() as group:
                group.create_task(interrupt())
                group.create_task(server.serve())
            assert server.should_exit

        loop = bolide.new_event_loop()
        try:
            loop.run_until_complete(main())
        finally:
            loop.close()
    finally:
        signal.signal(number, original)
    assert received == [number]


def test_signals_are_left_alone_without_install_signal_handlers():
    class Own(bolide.Server):
        def install_signal_handlers(self):
            pass

    async def main():
        server = Own(config())
        before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
        serving = asyncio.create_task(server.serve())
        await started(server)
        assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
        server.should_exit = True
        await serving

    run(main())


def test_run_raises_keyboard_interrupt_after_ctrl_c():
    code = """
import bolide, signal, threading, time
async def app(scope, receive, send):
    assert scope["type"] == "http"
server = bolide.Server(bolide.Config(app, port=0))
def interrupt():
    while not server.started:
        time.sleep(0.001)
    signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
threading.Thread(target=interrupt).start()
try:
    server.run()
except KeyboardInterrupt:
    print("interrupted")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=DEADLINE)
    assert done.stdout == "interrupted\n", done.stderr
    assert "Finished server process" in done.stderr


def test_serve_function_serves_an_object_and_returns_after_a_signal():
    code = """
import bolide
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        print("stopped")
        return
bolide.serve(app, port=0, log_level="info")
print("returned")
"""
    process = subprocess.Popen(
        [sys.executable, "-u", "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    with process:
        for line in process.stderr:
            if "running on" in line:
                break
        process.terminate()
        assert process.stdout.read() == "stopped\nreturned\n"
        assert process.wait(DEADLINE) == 0


def test_serve_function_inside_a_running_loop_is_an_error():
    async def main():
        with pytest.raises(RuntimeError, match=r"await .*Server.*serve\(\)"):
            bolide.serve(app, log_config=None)

    run(main())


def test_another_loop_is_a_clear_error():
    async def main():
        with pytest.raises(RuntimeError, match=r"bolide's event loop only.*new_event_loop"):
            await bolide.Server(config()).serve()

    loop = asyncio.SelectorEventLoop()
    try:
        loop.run_until_complete(main())
    finally:
        loop.close()


def test_a_failed_startup_raises_system_exit(caplog):
    async def failing(scope, receive, send):
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no"})

    with pytest.raises(SystemExit) as caught:
        bolide.Server(config(failing)).run()
    assert caught.value.code == 3


def test_a_port_in_use_ends_before_the_application_has_started():
    told = []

    async def application(scope, receive, send):
        told.append(scope["type"])

    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(SystemExit) as caught:
        bolide.Server(config(application, port=taken.getsockname()[1])).run()
    assert caught.value.code == 1
    assert told == []


def test_limit_max_requests_with_jitter(caplog):
    caplog.set_level(logging.INFO, logger="bolide.error")
    server = bolide.Server(config(limit_max_requests=2, limit_max_requests_jitter=2))
    limit = server.limit_max_requests
    assert 2 <= limit <= 4
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.001)
    url = url_of(server)
    for _ in range(limit):
        assert httpx.get(url, trust_env=False, verify=False).text == "ok"
    thread.join(DEADLINE)
    assert not thread.is_alive()
    assert f"Maximum request limit of {limit} exceeded" in caplog.text


def test_callback_notify_is_called():
    async def main():
        called = asyncio.Event()

        async def notify():
            count.append(1)
            if len(count) == 3:
                called.set()

        count = []
        server = bolide.Server(config(callback_notify=notify, timeout_notify=0.001))
        serving = asyncio.create_task(server.serve())
        async with asyncio.timeout(DEADLINE):
            await called.wait()
        server.should_exit = True
        await serving

    run(main())


def test_context_variables_reach_the_application_unless_reset():
    import contextvars

    variable = contextvars.ContextVar("variable")

    async def application(scope, receive, send):
        assert scope["type"] == "http"
        body = variable.get("unset").encode()
        variable.set("changed")
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
        await send({"type": "http.response.body", "body": body})

    async def main(**options):
        variable.set("outer")
        server = bolide.Server(config(application, **options))
        serving = asyncio.create_task(server.serve())
        await started(server)
        texts = [await fetch(url_of(server)) for _ in range(2)]
        server.should_exit = True
        await serving
        return texts

    assert run(main()) == ["outer", "outer"]
    assert run(main(reset_contextvars=True)) == ["unset", "unset"]


def test_importing_bolide_does_not_import_the_server():
    code = "import bolide, sys; print([name for name in sys.modules if name in ('bolide.server', 'bolide.config')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=DEADLINE)
    assert done.stdout == "[]\n"
