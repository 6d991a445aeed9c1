"""run_forever(), run_until_complete(), stop(), close(), and what ends or outlives them."""

import asyncio
import contextlib
import gc
import signal
import subprocess
import threading
import time
import weakref

import pytest
from support.loops import LOOP, new_event_loop, only_bolide, run_script, start_script
from support.server import Output

USES = {
    "call_soon": lambda loop: loop.call_soon(print),
    "call_soon_threadsafe": lambda loop: loop.call_soon_threadsafe(print),
    "call_later": lambda loop: loop.call_later(1, print),
    "call_at": lambda loop: loop.call_at(1, print),
    "run_forever": lambda loop: loop.run_forever(),
    "run_until_complete": lambda loop: loop.run_until_complete(loop.create_future()),
    "run_in_executor": lambda loop: loop.run_in_executor(None, print),
    "add_reader": lambda loop: loop.add_reader(0, print),
    "add_writer": lambda loop: loop.add_writer(0, print),
}


def test_stop_ends_the_run_after_the_turn(loop):
    seen = []

    def first():
        loop.stop()
        loop.call_soon(seen.append, "next turn")

    loop.call_soon(first)
    loop.call_soon(seen.append, "same turn")
    loop.run_forever()
    assert seen == ["same turn"] or LOOP == "uvloop"
    assert not loop.is_running() and not loop.is_closed()


def test_stop_before_the_run(loop):
    """One turn then: what is ready runs."""
    seen = []
    loop.call_soon(seen.append, 1)
    loop.stop()
    loop.run_forever()
    assert seen == [1]
    loop.call_soon(loop.stop)
    loop.run_forever()


def test_is_running(loop):
    states = []
    loop.call_soon(lambda: (states.append(loop.is_running()), loop.stop()))
    assert not loop.is_running()
    loop.run_forever()
    assert states == [True]


def test_the_running_loop_is_asyncios(loop):
    async def main():
        assert asyncio.get_running_loop() is loop
        return asyncio.get_event_loop()

    assert loop.run_until_complete(main()) is loop
    with pytest.raises(RuntimeError):
        asyncio.get_running_loop()


def test_run_until_complete(loop):
    async def value():
        await asyncio.sleep(0)
        return 5

    async def failing():
        raise KeyError("x")

    assert loop.run_until_complete(value()) == 5
    with pytest.raises(KeyError):
        loop.run_until_complete(failing())
    future = loop.create_future()
    loop.call_soon(future.set_result, 6)
    assert loop.run_until_complete(future) == 6
    assert loop.run_until_complete(future) == 6
    with pytest.raises(TypeError):
        loop.run_until_complete(5)


def test_run_until_complete_that_is_stopped(loop):
    future = loop.create_future()
    loop.call_soon(loop.stop)
    with pytest.raises(RuntimeError, match="stopped before Future completed"):
        loop.run_until_complete(future)
    future.cancel()


def test_run_until_complete_of_another_loops_future(loop):
    other = new_event_loop()
    with pytest.raises(ValueError):
        loop.run_until_complete(other.create_future())
    other.close()


@pytest.mark.skipif(LOOP == "asyncio", reason="forgets the outer loop then")
def test_a_loop_does_not_run_within_itself_or_another(loop):
    other = new_event_loop()

    async def main():
        for inner in (loop, other):
            with pytest.raises(RuntimeError):
                inner.run_forever()
            coroutine = asyncio.sleep(0)
            with pytest.raises(RuntimeError):
                inner.run_until_complete(coroutine)
            coroutine.close()
        assert asyncio.get_running_loop() is loop

    loop.run_until_complete(main())
    loop.run_until_complete(asyncio.sleep(0))
    other.run_until_complete(asyncio.sleep(0))
    other.close()


def test_a_loop_runs_in_one_thread_at_a_time(loop):
    errors = []

    def run_again():
        try:
            loop.run_forever()
        except RuntimeError as error:
            errors.append(error)
        loop.call_soon_threadsafe(loop.stop)

    thread = threading.Thread(target=run_again)
    loop.call_soon(thread.start)
    loop.run_forever()
    thread.join()
    assert len(errors) == 1


def test_a_running_loop_cannot_be_closed(loop):
    async def main():
        with pytest.raises(RuntimeError):
            loop.close()

    loop.run_until_complete(main())
    assert not loop.is_closed()


def test_close_is_idempotent():
    loop = new_event_loop()
    loop.close()
    loop.close()
    assert loop.is_closed() and not loop.is_running()


@pytest.mark.parametrize("name", USES)
def test_use_after_close(name):
    loop = new_event_loop()
    loop.close()
    with pytest.raises(RuntimeError):
        USES[name](loop)


def test_coroutine_methods_after_close():
    """None of them crashes or hangs; they cannot be awaited on the loop, so another one drives them."""
    import socket

    loop = new_event_loop()
    loop.close()
    left, right = socket.socketpair()
    left.setblocking(False)

    async def attempt(make):
        with pytest.raises((RuntimeError, OSError)):
            await make()

    other = new_event_loop()
    for make in (
        lambda: loop.create_server(asyncio.Protocol, "127.0.0.1", 0),
        lambda: loop.create_connection(asyncio.Protocol, "127.0.0.1", 1),
        lambda: loop.create_connection(asyncio.Protocol, sock=left),
        lambda: loop.create_datagram_endpoint(asyncio.DatagramProtocol, ("127.0.0.1", 0)),
        lambda: loop.getaddrinfo("localhost", 80),
        lambda: loop.sock_recv(left, 10),
        lambda: loop.sock_connect(left, "/nowhere"),
        lambda: loop.sock_accept(left),
        lambda: loop.subprocess_exec(asyncio.SubprocessProtocol, "true"),
    ):
        other.run_until_complete(attempt(make))
    other.close()
    left.close()
    right.close()


def test_close_with_everything_scheduled():
    loop = new_event_loop()
    ran = []
    loop.call_soon(ran.append, 1)
    loop.call_later(0, ran.append, 2)
    loop.call_later(100, ran.append, 3)
    loop.call_soon_threadsafe(ran.append, 4)
    future = loop.create_future()
    future.add_done_callback(ran.append)
    loop.close()
    gc.collect()
    assert ran == []


def test_close_with_a_pending_task():
    """asyncio's own warning tells of it."""
    result = run_script(
        """
        loop = new_event_loop()
        async def forever():
            await loop.create_future()
        task = loop.create_task(forever())
        loop.call_soon(loop.stop)
        loop.run_forever()
        loop.close()
        del task
        gc.collect()
        """
    )
    assert "Task was destroyed but it is pending" in result.stderr


def test_a_loop_that_is_not_closed_warns():
    with pytest.warns(ResourceWarning, match="unclosed event loop"):
        loop = new_event_loop()
        repr(loop)
        del loop
        gc.collect()


def test_the_memory_of_a_closed_loop_is_given_back():
    loop = new_event_loop()
    loop.run_until_complete(asyncio.sleep(0))
    alive = weakref.ref(loop)
    loop.close()
    del loop
    gc.collect()
    assert alive() is None


def test_a_loop_that_its_own_handles_hold():
    """Cycles through the ready queue, timers, watchers and tasks are the garbage collector's."""
    loop = new_event_loop()
    loop.call_soon(print, loop)
    loop.call_later(1000, print, loop)
    loop.attribute = loop
    loop.create_future().add_done_callback(loop.attribute.call_soon)
    alive = weakref.ref(loop)
    with pytest.warns(ResourceWarning):
        del loop
        gc.collect()
    gc.collect()  # the warning held the loop, and since 3.15 weak references outlive the finalizers
    assert alive() is None


def test_resurrection():
    """What a finalizer brings back to life can be used, or says that it cannot: its sockets may be closed by then."""
    kept = []

    class Loop(type(new_event_loop())):
        def __del__(self):
            kept.append(self)

    loop = Loop()
    loop.call_soon(print)
    del loop
    gc.collect()
    loop = kept.pop()
    assert not loop.is_closed()
    future = loop.create_future()
    loop.call_later(0.001, future.set_result, 5)
    try:
        assert loop.run_until_complete(future) == 5
    except ValueError as error:
        assert "descriptor" in str(error)
    with contextlib.suppress(ValueError):
        loop.close()
    del loop, future
    gc.collect()
    kept.clear()


def test_a_callback_whose_finalizer_uses_the_loop_as_it_closes():
    loop = new_event_loop()
    errors = []

    class Late:
        def __call__(self):
            pass

        def __del__(self):
            for use in USES.values():
                try:
                    use(loop)
                except RuntimeError as error:
                    errors.append(error)
            loop.close()
            loop.stop()

    loop.call_soon(Late())
    loop.call_later(100, Late())
    loop.close()
    gc.collect()
    assert len(errors) == 2 * len(USES)


def test_subclasses(loop):
    class Counting(type(loop)):
        calls = 0

        def call_soon(self, *arguments, **keywords):
            type(self).calls += 1
            return super().call_soon(*arguments, **keywords)

    mine = Counting()
    mine.run_until_complete(asyncio.sleep(0))
    assert Counting.calls >= 1
    assert "Counting" in repr(mine)
    mine.close()


def test_attributes_can_be_set(loop):
    loop.mine = 5
    assert loop.mine == 5
    weakref.ref(loop)


def test_repr_tells_the_state(loop):
    assert "running=False" in repr(loop) and "closed=False" in repr(loop) and "debug=False" in repr(loop)
    other = new_event_loop()
    other.close()
    assert "closed=True" in repr(other)


def test_one_loop_for_each_thread():
    results = []

    def work(number):
        loop = new_event_loop()

        async def main():
            for _ in range(50):
                await asyncio.sleep(0)
                await loop.run_in_executor(None, time.monotonic)
            return number

        results.append(loop.run_until_complete(main()))
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == list(range(8))


def test_a_loop_moves_to_another_thread(loop):
    assert loop.run_until_complete(asyncio.sleep(0, 1)) == 1
    results = []
    thread = threading.Thread(target=lambda: results.append(loop.run_until_complete(asyncio.sleep(0.001, 2))))
    thread.start()
    thread.join()
    assert results == [2]
    assert loop.run_until_complete(asyncio.sleep(0, 3)) == 3


def test_ten_thousand_loops():
    """Made, run and closed: no descriptor stays, and hardly any memory."""
    result = run_script(
        """
        import resource
        def descriptors():
            return len(os.listdir("/proc/self/fd"))
        def resident():
            with open("/proc/self/statm") as file:
                return int(file.read().split()[1]) * resource.getpagesize()
        def make(count):
            for _ in range(count):
                loop = new_event_loop()
                loop.call_soon(loop.stop)
                loop.call_later(1000, print)
                loop.run_forever()
                loop.close()
        make(2000)
        before = descriptors(), resident()
        make(10_000)
        print(descriptors() - before[0], resident() - before[1])
        """,
        timeout=200,  # seconds: sanitizers on a busy machine
    )
    descriptors, growth = map(int, result.stdout.split())
    assert descriptors == 0
    assert growth < 4 << 20


def test_a_thousand_loops_at_once():
    resource = pytest.importorskip("resource")
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    count = min(300, (soft - 100) // 10)
    loops = [new_event_loop() for _ in range(count)]
    for number, loop in enumerate(loops):
        assert loop.run_until_complete(asyncio.sleep(0, number)) == number
    for loop in loops:
        loop.close()


def test_no_descriptor_left_for_a_loop():
    """An OSError, and everything that was opened is closed again."""
    run_script(
        """
        import errno, resource
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        opened = len(os.listdir("/proc/self/fd"))
        for room in range(0, 12):
            resource.setrlimit(resource.RLIMIT_NOFILE, (3 + room, hard))
            made = []
            try:
                while True:
                    made.append(new_event_loop())
            except OSError as error:
                assert error.errno == errno.EMFILE, error
            for loop in made:
                loop.close()
            made.clear()
            gc.collect()
            resource.setrlimit(resource.RLIMIT_NOFILE, (100, hard))
            assert len(os.listdir("/proc/self/fd")) == opened, os.listdir("/proc/self/fd")
        """,
        options=("-W", "ignore"),
    )


def test_async_generators_are_closed(loop):
    closed = []

    async def numbers(name):
        try:
            while True:
                yield 1
                await asyncio.sleep(0)
        finally:
            await asyncio.sleep(0)
            closed.append(name)

    async def main():
        left = numbers("shut down")
        await left.__anext__()
        dropped = numbers("dropped")
        await dropped.__anext__()
        del dropped
        gc.collect()
        await asyncio.sleep(0.01)
        assert closed == ["dropped"]
        return left

    generator = loop.run_until_complete(main())
    loop.run_until_complete(loop.shutdown_asyncgens())
    assert closed == ["dropped", "shut down"]
    del generator


def test_async_generator_hooks_are_given_back(loop):
    import sys

    before = sys.get_asyncgen_hooks()
    loop.run_until_complete(asyncio.sleep(0))
    assert sys.get_asyncgen_hooks() == before


CTRL_C = """
    async def main():
        print("running", flush=True)
        try:
            {wait}
        finally:
            print("cleaned up", flush=True)
    try:
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            runner.run(main())
    except KeyboardInterrupt:
        print("KeyboardInterrupt")
        sys.exit(130)
"""
WAITS = {
    "sleeping": "await asyncio.sleep(100)",
    "busy with tasks": "while True: await asyncio.sleep(0)",
    "in Python": "while True: time.monotonic()",
    "waiting for a descriptor": "await asyncio.get_running_loop().sock_recv(left, 1)",
}


@pytest.mark.parametrize("wait", WAITS)
def test_ctrl_c(wait):
    """As under asyncio.run(): the main task is cancelled, cleans up, and KeyboardInterrupt comes out."""
    source = CTRL_C.replace("{wait}", WAITS[wait])
    sockets = "\n    left, right = socket.socketpair(); left.setblocking(False)"
    process = start_script(sockets + source, stdin=subprocess.DEVNULL)
    output = Output(process.stdout)
    output.wait_for("running")
    time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    if wait == "in Python":
        time.sleep(0.2)  # a task that never yields cannot be cancelled: the second one interrupts it
        process.send_signal(signal.SIGINT)
    assert process.wait(20) == 130, process.stderr.read()
    text = output.join()
    assert "cleaned up" in text and "KeyboardInterrupt" in text
    process.stderr.close()


def test_ctrl_c_in_run_forever():
    """Without a Runner, KeyboardInterrupt comes out of run_forever() itself, and the loop can go on."""
    process = start_script(
        """
        loop = new_event_loop()
        loop.call_soon(lambda: print("running", flush=True))
        loop.call_later(1000, print)
        try:
            loop.run_forever()
        except KeyboardInterrupt:
            print("KeyboardInterrupt", loop.is_running(), loop.run_until_complete(asyncio.sleep(0, 5)))
        loop.close()
        """
    )
    output = Output(process.stdout)
    output.wait_for("running")
    time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 0, process.stderr.read()
    assert "KeyboardInterrupt False 5" in output.join()
    process.stderr.close()


def test_a_python_signal_handler_runs_while_the_loop_waits():
    """One set by signal.signal() runs at once, not when the next event comes."""
    process = start_script(
        """
        loop = new_event_loop()
        signal.signal(signal.SIGUSR1, lambda *_: (print("handled", flush=True), loop.stop()))
        loop.call_soon(lambda: print("running", flush=True))
        loop.call_later(1000, print)
        loop.run_forever()
        loop.close()
        """
    )
    output = Output(process.stdout)
    output.wait_for("running")
    time.sleep(0.05)
    process.send_signal(signal.SIGUSR1)
    output.wait_for("handled", 10)
    if LOOP == "asyncio":
        process.kill()
    assert process.wait(20) == (0 if LOOP != "asyncio" else -9)
    output.join()
    process.stderr.close()


@only_bolide
def test_a_subclass_that_does_not_call_init():
    """Whatever is missing then, nothing crashes."""
    run_script(
        """
        import bolide
        class Broken(bolide.Loop):
            def __init__(self):
                pass
        loop = Broken()
        for name in dir(loop):
            if name.startswith("__") or name in ("_run", "run_forever"):
                continue
            try:
                value = getattr(loop, name)
                if callable(value):
                    value()
            except Exception:
                pass
        try:
            loop.run_forever()
        except Exception:
            pass
        del loop
        gc.collect()
        """,
        options=("-W", "ignore"),
    )
