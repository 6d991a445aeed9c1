"""No misuse from Python may crash the process: wrong types, wrong times, re-entrancy, threads, odd objects."""

import asyncio
import contextlib
import gc
import socket
import subprocess
import threading
from pathlib import Path

import pytest
from support.loops import LOOP, new_event_loop, only_bolide, run_monkey, run_script
from support.protocols import Recorder, connected

MONKEY = Path(__file__).with_name("monkey.py")


@pytest.mark.parametrize("seed", range(4))
def test_a_monkey_at_the_keyboard(seed, tmp_path):
    """Thousands of random calls."""
    assert run_monkey(MONKEY, seed, tmp_path, LOOP) > 0


@only_bolide
def test_a_callback_that_runs_its_own_handle(loop):
    handles = []
    handles.append(loop.call_soon(lambda: getattr(handles[0], "_run", lambda: None)()))
    loop.call_soon(loop.stop)
    loop.run_forever()


@only_bolide
def test_scheduling_from_a_comparison_or_repr(loop):
    class Odd:
        def __call__(self):
            raise ValueError

        def __repr__(self):
            loop.call_later(0, int)
            raise KeyError("repr")

    loop.set_exception_handler(None)
    handle = loop.call_soon(Odd())
    with pytest.raises(KeyError):
        repr(handle)
    loop.call_later(0.001, loop.stop)
    loop.run_forever()


def test_arguments_whose_finalizers_schedule(loop):
    class Late:
        def __del__(self):
            loop.call_soon(int)
            loop.call_later(0, int).cancel()

    for _ in range(200):
        loop.call_soon(lambda late: None, Late())
        loop.call_later(5, lambda late: None, Late()).cancel()
    loop.call_later(0.001, loop.stop)
    loop.run_forever()


def test_garbage_collection_in_every_callback(loop):
    threshold = gc.get_threshold()
    gc.set_threshold(1, 1, 1)
    try:

        async def main():
            protocol, peer = await connected()
            for _ in range(20):
                protocol.transport.write(b"x" * 1000)
                loop.call_soon(list)
                loop.call_later(0.001, dict).cancel()
                await asyncio.sleep(0)
            peer.close()
            await protocol.until_event("lost")

        loop.run_until_complete(main())
    finally:
        gc.set_threshold(*threshold)


def test_very_many_arguments(loop):
    seen = []
    loop.call_soon(lambda *arguments: seen.append(len(arguments)), *range(10_000))
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert seen == [10_000]


def test_the_descriptor_of_a_transport_is_not_for_add_reader(loop):
    async def main():
        protocol, peer = await connected()
        descriptor = protocol.transport.get_extra_info("socket").fileno()
        for method in ("add_reader", "add_writer"):
            with pytest.raises(RuntimeError):
                getattr(loop, method)(descriptor, print)
        for method in ("remove_reader", "remove_writer"):
            with pytest.raises(RuntimeError):
                getattr(loop, method)(descriptor)
        peer.close()
        await protocol.until_event("lost")

    loop.run_until_complete(main())


def test_a_socket_closed_under_its_transport(loop, reports):
    async def main():
        for _ in range(30):
            left, right = socket.socketpair()
            _, protocol = await loop.create_connection(Recorder, sock=left)
            left.close()
            others = [socket.socketpair() for _ in range(3)]  # may get the same descriptor
            protocol.transport.write(b"x" * 100)
            await asyncio.sleep(0)
            protocol.transport.close()
            await protocol.until_event("lost")
            right.close()
            for pair in others:
                for end in pair:
                    end.send(b"still mine")
                for end in pair:
                    end.close()

    loop.run_until_complete(main())
    reports.clear()


def test_a_listening_socket_closed_under_its_server(loop, reports):
    async def main():
        sock = socket.create_server(("127.0.0.1", 0))
        server = await loop.create_server(Recorder, sock=sock)
        sock.close()
        await asyncio.sleep(0.01)
        with contextlib.suppress(ValueError):  # as asyncio says of a descriptor of -1
            server.close()
        await asyncio.sleep(0.01)

    loop.run_until_complete(main())
    reports.clear()


def test_transports_used_from_other_threads(loop, reports):
    """Not allowed, and not always an error, but never a crash."""

    async def main():
        for _ in range(20):
            protocol, peer = await connected()
            transport = protocol.transport

            def meddle(transport=transport):
                for _ in range(50):
                    try:
                        transport.write(b"x" * 5000)
                        transport.pause_reading()
                        transport.resume_reading()
                        transport.get_extra_info("socket")
                        repr(transport)
                    except Exception:
                        pass
                transport.abort()

            threads = [threading.Thread(target=meddle) for _ in range(2)]
            for thread in threads:
                thread.start()
            peer.setblocking(False)
            for _ in range(20):
                await asyncio.sleep(0.0005)
                try:
                    peer.recv(1 << 20)
                    peer.send(b"y" * 100)
                except OSError:
                    pass
            await asyncio.to_thread(lambda threads=threads: [thread.join() for thread in threads])
            peer.close()
            transport.abort()
            loop.call_soon_threadsafe(int)
            await protocol.until_event("lost")

    loop.run_until_complete(main())
    reports.clear()


def test_one_loop_closed_within_a_callback_of_another(loop):
    other = new_event_loop()
    other.call_soon(print)

    async def main():
        other.close()
        with pytest.raises(RuntimeError):
            other.call_soon(print)

    loop.run_until_complete(main())


def test_a_loop_closed_by_another_thread_while_it_runs(loop):
    errors = []

    def close():
        try:
            loop.close()
        except RuntimeError as error:
            errors.append(error)
        loop.call_soon_threadsafe(loop.stop)

    threading.Timer(0.01, close).start()
    loop.run_forever()
    assert len(errors) == 1 and not loop.is_closed()


@only_bolide
def test_types_that_cannot_be_made_or_changed():
    import bolide

    for kind in (bolide.Handle, bolide.TimerHandle, bolide.StreamTransport):
        with pytest.raises(TypeError):
            kind()
        with pytest.raises(TypeError):
            kind.__new__(kind)
    with pytest.raises(TypeError):
        bolide.Handle.cancel = None
    for call in (bolide.Handle.cancel, bolide.Handle.cancelled, bolide.TimerHandle.when):
        with pytest.raises(TypeError):
            call(5)


@only_bolide
def test_deleting_attributes(loop):
    for name in ("slow_callback_duration", "_debug", "_task_factory", "_closed", "_thread_id"):
        try:
            delattr(loop, name)
        except (AttributeError, TypeError):
            continue
    loop.set_debug(False)
    loop.set_task_factory(None)
    loop.run_until_complete(asyncio.sleep(0))


def test_the_end_of_the_interpreter_with_everything_open():
    """Loops, transports and handles that are still alive as Python ends, in a cycle, a global and a daemon thread."""
    run_script(
        """
        import atexit
        loops = []
        async def serve(loop):
            server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
            pair = await loop.create_connection(asyncio.Protocol, *server.sockets[0].getsockname())
            loop.kept = server, pair
            loop.add_reader(0, print)
        for _ in range(3):
            loop = new_event_loop()
            loop.run_until_complete(serve(loop))
            loop.call_later(1000, print, loop)
            loop.call_soon(print)
            loop.mine = loop
            loops.append(loop)
        sys.kept = loops
        running = new_event_loop()
        threading.Thread(target=running.run_forever, daemon=True).start()
        time.sleep(0.05)
        atexit.register(lambda: running.call_soon_threadsafe(int))
        """,
        options=("-W", "ignore"),
        stdin=subprocess.PIPE,
    )


def test_a_running_loop_in_a_daemon_thread_at_the_end():
    for _ in range(3):
        run_script(
            """
            def work():
                loop = new_event_loop()
                async def main():
                    while True:
                        await asyncio.sleep(0)
                loop.run_until_complete(main())
            for _ in range(3):
                threading.Thread(target=work, daemon=True).start()
            time.sleep(0.05)
            """
        )


def test_deep_recursion_in_callbacks(loop, reports):
    def recurse():
        recurse()

    loop.call_soon(recurse)
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert isinstance(reports.pop()["exception"], RecursionError)


def test_running_out_of_memory_while_scheduling():
    """_testcapi makes allocations fail one after another: MemoryError comes out, nothing crashes."""
    pytest.importorskip("_testcapi")
    run_script(
        """
        import _testcapi
        loop = new_event_loop()
        failed = 0
        for after in range(40):
            handles = []
            for schedule in (lambda: loop.call_soon(int, 1, 2, 3, 4, 5), lambda: loop.call_later(9, int, 5, 6, 7, 8),
                             lambda: loop.create_future(), lambda: loop.call_soon_threadsafe(int)):
                _testcapi.set_nomemory(after, after + 1)
                try:
                    handles.append(schedule())
                except MemoryError:
                    failed += 1
                finally:
                    _testcapi.remove_mem_hooks()
            handles.clear()
        assert failed
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
        """
    )
