"""The ways to make bolide's loop asyncio's: run(), new_event_loop(), install(), EventLoopPolicy, loop factories."""

import asyncio
import sys

import pytest
from support.loops import only_bolide, run_script

import bolide

pytestmark = only_bolide


def test_run():
    async def main(value):
        assert type(asyncio.get_running_loop()) is bolide.Loop
        await asyncio.sleep(0)
        return value

    assert bolide.run(main(5)) == 5

    async def is_debug():
        return asyncio.get_running_loop().get_debug()

    assert bolide.run(is_debug(), debug=True) is True
    assert bolide.run(is_debug(), debug=False) is False


def test_run_refuses_what_asyncio_refuses():
    with pytest.raises((ValueError, TypeError)):
        bolide.run(5)

    async def main():
        inner = asyncio.sleep(0)
        try:
            bolide.run(inner)
        finally:
            inner.close()

    with pytest.raises(RuntimeError):
        bolide.run(main())


def test_run_cleans_up():
    """Tasks are cancelled, generators closed, threads joined, as by asyncio.run()."""
    steps = []

    async def generator():
        try:
            yield 1
        finally:
            await asyncio.sleep(0)
            steps.append("generator")

    async def background():
        try:
            await asyncio.sleep(60)
        finally:
            steps.append("task")

    async def main():
        task = asyncio.create_task(background())
        async for _ in generator():
            break
        await asyncio.to_thread(steps.append, "thread")
        return asyncio.get_running_loop(), task

    loop, task = bolide.run(main())
    assert task.cancelled()
    assert loop.is_closed()
    assert sorted(steps) == ["generator", "task", "thread"]


@pytest.mark.parametrize("factory", [bolide.new_event_loop, bolide.Loop])
def test_loop_factories(factory):
    async def main():
        assert isinstance(asyncio.get_running_loop(), bolide.Loop)

    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main())
    if sys.version_info >= (3, 12):
        asyncio.run(main(), loop_factory=factory)


def test_install_is_silent():
    """No warning, not even where policies are deprecated; every way of asyncio's then leads to bolide."""
    done = run_script(
        """
        import bolide, threading
        bolide.install()

        async def main():
            return type(asyncio.get_running_loop())

        assert asyncio.run(main()) is bolide.Loop
        with asyncio.Runner() as runner:
            assert runner.run(main()) is bolide.Loop
        loop = asyncio.new_event_loop()
        assert type(loop) is bolide.Loop
        asyncio.set_event_loop(loop)
        assert asyncio.get_event_loop() is loop
        loop.close()
        kinds = []
        thread = threading.Thread(target=lambda: kinds.append(asyncio.run(main())))
        thread.start()
        thread.join()
        assert kinds == [bolide.Loop]
        """,
        options=("-W", "error"),
    )
    assert done.stderr == ""


def test_the_policy():
    """asyncio.set_event_loop_policy() warns itself since 3.14; the policy does not."""
    run_script(
        """
        import bolide, warnings
        policy = bolide.EventLoopPolicy()
        with warnings.catch_warnings():
            if sys.version_info >= (3, 14):
                warnings.simplefilter("ignore", DeprecationWarning)
            asyncio.set_event_loop_policy(policy)
            assert asyncio.get_event_loop_policy() is policy

        async def main():
            return type(asyncio.get_running_loop())

        assert asyncio.run(main()) is bolide.Loop
        loop = policy.new_event_loop()
        assert type(loop) is bolide.Loop
        policy.set_event_loop(loop)
        assert policy.get_event_loop() is loop
        loop.close()
        """,
        options=("-W", "error"),
    )


def test_without_it_asyncio_keeps_its_own():
    run_script("""
    import bolide
    async def main():
        return type(asyncio.get_running_loop())
    assert asyncio.run(main()) is not bolide.Loop
    """)


def test_locks_and_queues_made_before_the_loop_runs():
    lock, queue, event = asyncio.Lock(), asyncio.Queue(), asyncio.Event()

    async def main():
        async with lock:
            await queue.put(1)
        waiting = asyncio.create_task(event.wait())
        await asyncio.sleep(0)
        event.set()
        await waiting
        return await queue.get()

    assert bolide.run(main()) == 1
