"""run_until_complete() within a callback of the loop, which nest_asyncio asks for by a mark on the module asyncio."""

import asyncio
import gc
import socket
import threading

import pytest
from support.loops import new_event_loop, only_bolide, run_script

pytestmark = only_bolide


@pytest.fixture
def nesting(monkeypatch):
    monkeypatch.setattr(asyncio, "_nest_patched", True, raising=False)


async def five() -> int:
    await asyncio.sleep(0.001)
    return 5


def test_only_where_it_is_wanted(loop):
    async def main():
        coroutine = five()
        with pytest.raises(RuntimeError, match="already running"):
            loop.run_until_complete(coroutine)
        coroutine.close()
        with pytest.raises(RuntimeError, match="already running"):
            loop.run_forever()

    assert not hasattr(loop, "_nest_patched")
    loop.run_until_complete(main())


def test_within_a_task(loop, nesting):
    async def deeper():
        task = asyncio.current_task()
        assert loop.run_until_complete(five()) == 5
        assert asyncio.current_task() is task
        return await five() + loop.run_until_complete(five())

    async def main():
        task = asyncio.current_task()
        beside = loop.create_task(five())
        assert loop.run_until_complete(deeper()) == 10
        assert asyncio.current_task() is task and asyncio.get_running_loop() is loop
        return await beside

    assert hasattr(loop, "_nest_patched")
    assert loop.run_until_complete(main()) == 5


def test_within_tasks_in_python(loop, nesting):
    loop.set_task_factory(lambda loop, coroutine, **options: asyncio.tasks._PyTask(coroutine, loop=loop, **options))

    async def deeper():
        return loop.run_until_complete(five()) + await five()

    async def main():
        assert loop.run_until_complete(deeper()) == 10
        return await loop.create_task(five())

    assert loop.run_until_complete(main()) == 5


def test_within_a_callback(loop, nesting):
    results = []

    def callback():
        results.append(loop.run_until_complete(five()))
        loop.call_soon(loop.stop)

    loop.call_soon(callback)
    loop.run_forever()
    assert results == [5]
    assert not loop.is_running()


def test_what_was_ready_runs_once_and_in_order(loop, nesting):
    order = []

    async def main():
        for number in range(3):
            loop.call_soon(order.append, number)
        loop.call_soon(lambda: order.append(loop.run_until_complete(five())))
        for number in range(3, 6):
            loop.call_soon(order.append, number)
        await asyncio.sleep(0.05)

    loop.run_until_complete(main())
    assert order == [0, 1, 2, 3, 4, 5, 5]


def test_exceptions_and_cancellation(loop, nesting, reports):
    async def fail():
        await asyncio.sleep(0)
        raise KeyError("x")

    async def main():
        with pytest.raises(KeyError):
            loop.run_until_complete(fail())
        with pytest.raises(TimeoutError):
            loop.run_until_complete(asyncio.wait_for(loop.create_future(), 0.01))
        task = loop.create_task(asyncio.sleep(1000))
        loop.call_soon(task.cancel)
        with pytest.raises(asyncio.CancelledError):
            loop.run_until_complete(task)
        loop.call_soon(interrupt)
        with pytest.raises(KeyboardInterrupt):
            loop.run_until_complete(loop.create_future())
        return await five()

    def interrupt():
        raise KeyboardInterrupt

    assert loop.run_until_complete(main()) == 5


def test_stop_ends_the_run_around_it(loop, nesting):
    ended = []

    def callback():
        loop.call_soon(loop.stop)
        ended.append(loop.run_until_complete(five()))

    loop.call_soon(callback)
    loop.call_later(1000, print)
    loop.run_forever()
    assert ended == [5]


def test_another_loop(loop, nesting):
    other = new_event_loop()

    async def back():
        return loop.run_until_complete(five())

    async def main():
        task = asyncio.current_task()
        assert other.run_until_complete(five()) == 5
        assert other.run_until_complete(back()) == 5
        assert asyncio.get_running_loop() is loop and asyncio.current_task() is task
        return await five()

    assert loop.run_until_complete(main()) == 5
    other.close()


def test_input_and_output(loop, nesting):
    async def answer(reader, writer):
        writer.write((await reader.readline()).upper())
        writer.close()

    async def ask(address):
        reader, writer = await asyncio.open_connection(*address)
        writer.write(b"hello\n")
        line = await reader.read()
        writer.close()
        await writer.wait_closed()
        return line

    async def main():
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        address = server.sockets[0].getsockname()
        for _ in range(20):
            assert loop.run_until_complete(ask(address)) == b"HELLO\n"
            gc.collect()
        left, right = socket.socketpair()
        with left, right:
            left.setblocking(False)
            received = loop.create_task(loop.sock_recv(left, 10))
            threading.Timer(0.02, right.send, (b"x",)).start()
            assert loop.run_until_complete(received) == b"x"
        assert loop.run_until_complete(asyncio.to_thread(lambda: 7)) == 7
        server.close()
        await server.wait_closed()

    loop.run_until_complete(main())


def test_not_in_a_protocol(loop, nesting):
    """The poll is not reentrant, and neither is what calls a protocol."""
    raised = []

    class Nests(asyncio.Protocol):
        def connection_made(self, transport):
            self.transport = transport
            self.attempt()

        def data_received(self, data):
            self.attempt()
            loop.call_soon(done.set_result, loop.create_task(five()))

        def attempt(self):
            coroutine = five()
            with pytest.raises(RuntimeError, match="cannot be run again"):
                loop.run_until_complete(coroutine)
            coroutine.close()
            raised.append(asyncio.all_tasks(loop))

    async def main():
        nonlocal done
        done = loop.create_future()
        left, right = socket.socketpair()
        transport, _ = await loop.create_connection(Nests, sock=left)
        right.send(b"x")
        assert await (await done) == 5
        transport.close()
        right.close()

    done: asyncio.Future
    loop.run_until_complete(main())
    assert len(raised) == 2


def test_not_in_another_thread(loop, nesting):
    async def main():
        def elsewhere():
            coroutine = five()
            with pytest.raises(RuntimeError, match="already running"):
                loop.run_until_complete(coroutine)
            coroutine.close()
            with pytest.raises(RuntimeError):
                loop._run_turn()

        await asyncio.to_thread(elsewhere)

    loop.run_until_complete(main())
    with pytest.raises(RuntimeError):
        loop._run_turn()


def test_a_patch_of_asyncios_own_loop_does_not_reach_this_one():
    """nest_asyncio.apply() without a running loop puts its methods on asyncio's class, below this one."""
    run_script(
        """
        def broken(*args):
            raise AssertionError

        for name in ("run_forever", "run_until_complete", "_run_once", "_check_running"):
            setattr(asyncio.SelectorEventLoop, name, broken)
        asyncio.SelectorEventLoop._nest_patched = True
        asyncio._nest_patched = True
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            async def main():
                return runner.get_loop().run_until_complete(asyncio.sleep(0.001, 5))
            assert runner.run(main()) == 5
        """
    )
