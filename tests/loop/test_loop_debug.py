"""Debug mode: what asyncio reports there, and only then."""

import asyncio
import gc
import re
import threading
import time

import pytest
from support.loops import LOOP, new_event_loop, run_script


@pytest.fixture
def debug_loop(loop):
    loop.set_debug(True)
    return loop


def test_debug_mode_is_off_at_first(loop):
    assert loop.get_debug() is False
    loop.set_debug(True)
    assert loop.get_debug() is True
    assert "debug=True" in repr(loop)
    loop.set_debug(False)
    assert loop.get_debug() is False


@pytest.mark.parametrize(
    ("options", "environment"), [(("-X", "dev"), {}), ((), {"PYTHONASYNCIODEBUG": "1"})], ids=["-X dev", "environment"]
)
def test_debug_mode_from_outside(options, environment):
    result = run_script(
        "loop = new_event_loop(); print(loop.get_debug()); loop.close()", options=options, env=environment
    )
    assert result.stdout == "True\n"


@pytest.mark.parametrize("how", ["call_soon", "call_later"])
def test_slow_callbacks_are_reported(debug_loop, caplog, how):
    debug_loop.slow_callback_duration = 0.01

    def slow_one():
        time.sleep(0.02)
        debug_loop.stop()

    getattr(debug_loop, how)(*([0] if how == "call_later" else []), slow_one)
    debug_loop.run_forever()
    assert re.search(r"slow_one.* took \d+\.\d{3} seconds", caplog.text)


def test_slow_tasks_are_reported(debug_loop, caplog):
    debug_loop.slow_callback_duration = 0.01

    async def slow_task():
        time.sleep(0.02)

    debug_loop.run_until_complete(slow_task())
    assert "slow_task" in caplog.text


def test_fast_callbacks_are_not(debug_loop, caplog):
    assert debug_loop.slow_callback_duration == 0.1
    debug_loop.run_until_complete(asyncio.sleep(0))
    assert caplog.text == ""


def test_slow_callbacks_are_not_reported_otherwise(loop, caplog):
    loop.slow_callback_duration = 0.001
    loop.call_soon(time.sleep, 0.005)
    loop.run_until_complete(asyncio.sleep(0.01))
    assert caplog.text == ""


@pytest.mark.parametrize("how", ["call_soon", "call_later", "call_at"])
def test_calls_from_another_thread_are_refused(debug_loop, how):
    errors = []

    def work():
        try:
            getattr(debug_loop, how)(*([] if how == "call_soon" else [0]), print)
        except RuntimeError as error:
            errors.append(error)
        debug_loop.call_soon_threadsafe(debug_loop.stop)

    thread = threading.Thread(target=work)
    debug_loop.call_soon(thread.start)
    debug_loop.run_forever()
    thread.join()
    assert len(errors) == 1 and "Non-thread-safe operation" in str(errors[0])


@pytest.mark.parametrize("how", ["call_soon", "call_later", "call_at", "call_soon_threadsafe"])
def test_coroutine_functions_are_refused(debug_loop, how):
    async def coroutine():
        pass

    made = coroutine()
    for wrong in (coroutine, made, 5):
        with pytest.raises(TypeError):
            getattr(debug_loop, how)(*([0] if how in ("call_later", "call_at") else []), wrong)
    made.close()


def test_reports_say_where_a_callback_was_scheduled(debug_loop, reports):
    debug_loop.call_soon(lambda: 1 / 0)
    debug_loop.call_soon(debug_loop.stop)
    debug_loop.run_forever()
    context = reports.pop()
    assert any("test_loop_debug.py" in str(frame) for frame in context["source_traceback"])


def test_handles_tell_where_they_were_made(debug_loop):
    handle = debug_loop.call_soon(print)
    assert "test_loop_debug.py" in repr(handle) and "created at" in repr(handle)
    before = repr(handle).split("print")[0]
    handle.cancel()
    assert "cancelled" in repr(handle) and "print" in repr(handle), before


def test_coroutine_origins(debug_loop):
    import sys

    async def main():
        return sys.get_coroutine_origin_tracking_depth()

    assert sys.get_coroutine_origin_tracking_depth() == 0
    assert debug_loop.run_until_complete(main()) > 0
    assert sys.get_coroutine_origin_tracking_depth() == 0


def test_debug_mode_switched_on_while_running(loop):
    import sys

    async def main():
        loop.set_debug(True)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return sys.get_coroutine_origin_tracking_depth()

    assert loop.run_until_complete(main()) > 0


PROGRAM = """
    async def echo(reader, writer):
        writer.write(await reader.readline())
        await writer.drain()
        writer.close()
        await writer.wait_closed()
    async def main():
        loop = asyncio.get_running_loop()
        loop.slow_callback_duration = 60  # the machine may stall
        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        for _ in range(3):
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.write(b"line\\n")
            assert await reader.readline() == b"line\\n"
            writer.close()
            await writer.wait_closed()
        left, right = socket.socketpair()
        left.setblocking(False)
        right.setblocking(False)
        await loop.sock_sendall(left, b"x")
        assert await loop.sock_recv(right, 1) == b"x"
        left.close()
        right.close()
        await loop.run_in_executor(None, time.monotonic)
        process = await asyncio.create_subprocess_exec("true")
        assert await process.wait() == 0
        await loop.getaddrinfo("127.0.0.1", 80)
        transport, _ = await loop.create_datagram_endpoint(asyncio.DatagramProtocol, ("127.0.0.1", 0))
        transport.close()
        await asyncio.sleep(0.01)
        server.close()
        await server.wait_closed()
    with asyncio.Runner(loop_factory=new_event_loop, debug={debug}) as runner:
        runner.run(main())
    gc.collect()
"""


@pytest.mark.parametrize("debug", [True, False])
def test_no_false_warning(debug):
    """A correct program under -X dev with warnings as errors says nothing."""
    result = run_script(PROGRAM.format(debug=debug), options=("-X", "dev", "-W", "error"))
    assert result.stderr == ""


def test_what_is_not_closed_is_warned_of():
    result = run_script(
        """
        async def main():
            loop = asyncio.get_running_loop()
            server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
            await loop.create_connection(asyncio.Protocol, *server.sockets[0].getsockname())
            server.close()
        loop = new_event_loop()
        loop.run_until_complete(main())
        loop.close()
        gc.collect()
        """,
        options=("-X", "dev"),
    )
    assert "ResourceWarning: unclosed transport" in result.stderr


def test_coroutines_never_awaited_are_warned_of(loop):
    async def forgotten():
        pass

    async def main():
        forgotten()
        gc.collect()

    with pytest.warns(RuntimeWarning, match="forgotten' was never awaited"):
        loop.run_until_complete(main())


def test_a_task_whose_exception_nobody_reads(loop, reports):
    async def failing():
        raise KeyError("unread")

    async def main():
        task = asyncio.ensure_future(failing())
        await asyncio.sleep(0)
        del task
        gc.collect()

    loop.run_until_complete(main())
    assert isinstance(reports.pop()["exception"], KeyError)


def test_a_logger_that_fails_does_not_hurt(loop, reports, monkeypatch):
    if LOOP != "bolide":
        pytest.skip("the exception ends asyncio's run")
    import asyncio.log

    def fail(*_):
        raise OSError("no room left")

    loop.set_debug(True)
    loop.slow_callback_duration = 0
    monkeypatch.setattr(asyncio.log.logger, "warning", fail)
    other = new_event_loop()
    other.close()
    loop.call_soon(loop.stop)
    loop.run_forever()
    monkeypatch.undo()
    loop.slow_callback_duration = 1
    assert isinstance(reports.pop()["exception"], OSError)
    reports.clear()
