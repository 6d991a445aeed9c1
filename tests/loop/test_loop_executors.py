"""run_in_executor() with threads, processes and interpreters, and the default executor's life."""

import asyncio
import concurrent.futures
import contextvars
import multiprocessing
import os
import threading

import pytest
from support.loops import run_script, with_loop


def work(number: int) -> tuple[int, int]:
    """In a thread, a process or an interpreter."""
    return number * 2, os.getpid()


def fail() -> None:
    """The same."""
    raise ZeroDivisionError("in a worker")


@with_loop
async def test_the_default_executor():
    loop = asyncio.get_running_loop()
    assert await loop.run_in_executor(None, work, 21) == (42, os.getpid())
    assert await loop.run_in_executor(None, threading.get_ident) != threading.get_ident()
    with pytest.raises(ZeroDivisionError, match="in a worker"):
        await loop.run_in_executor(None, fail)
    results = await asyncio.gather(*(loop.run_in_executor(None, work, index) for index in range(500)))
    assert [double for double, _ in results] == [2 * index for index in range(500)]


@with_loop
async def test_to_thread_keeps_the_context():
    variable = contextvars.ContextVar("variable", default=0)
    variable.set(5)
    assert await asyncio.to_thread(variable.get) == 5


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_processes(loop, method):
    """For the method fork see test_loop_fork.py."""
    context = multiprocessing.get_context(method)

    async def main():
        with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as pool:
            results = await asyncio.gather(*(loop.run_in_executor(pool, work, index) for index in range(20)))
            assert [double for double, _ in results] == [2 * index for index in range(20)]
            assert os.getpid() not in {pid for _, pid in results}
            with pytest.raises(ZeroDivisionError, match="in a worker"):
                await loop.run_in_executor(pool, fail)

    loop.run_until_complete(asyncio.wait_for(main(), 60))


@pytest.mark.skipif(
    not hasattr(concurrent.futures, "InterpreterPoolExecutor"), reason="interpreter pools are new in CPython 3.14"
)
def test_interpreters(loop):
    async def main():
        with concurrent.futures.InterpreterPoolExecutor(2) as pool:
            assert await loop.run_in_executor(pool, pow, 2, 10) == 1024
            results = await asyncio.gather(*(loop.run_in_executor(pool, divmod, index, 7) for index in range(20)))
            assert results == [divmod(index, 7) for index in range(20)]
            with pytest.raises(Exception, match="zero"):
                await loop.run_in_executor(pool, divmod, 1, 0)

    loop.run_until_complete(asyncio.wait_for(main(), 60))


@with_loop
async def test_an_executor_of_ones_own():
    loop = asyncio.get_running_loop()
    names = []
    with concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="mine") as executor:
        await loop.run_in_executor(executor, lambda: names.append(threading.current_thread().name))
        loop.set_default_executor(executor)
        await loop.run_in_executor(None, lambda: names.append(threading.current_thread().name))
    assert all(name.startswith("mine") for name in names) and len(names) == 2
    with pytest.raises(RuntimeError):
        await loop.run_in_executor(executor, work, 1)
    with pytest.raises(TypeError):
        loop.set_default_executor(object())


@with_loop
async def test_cancelling_does_not_wait_for_the_thread():
    loop = asyncio.get_running_loop()
    release, done = threading.Event(), threading.Event()

    def wait():
        release.wait(30)
        done.set()

    future = loop.run_in_executor(None, wait)
    await asyncio.sleep(0.01)
    future.cancel()
    with pytest.raises(asyncio.CancelledError):
        await future
    release.set()
    assert await asyncio.to_thread(done.wait, 30)


def test_the_loop_wakes_up_for_each_result(loop):
    """It waits for nothing else."""

    async def main():
        for index in range(200):
            assert await loop.run_in_executor(None, abs, -index) == index

    loop.run_until_complete(asyncio.wait_for(main(), 40))


def test_shutdown_waits_for_the_threads(loop):
    finished = threading.Event()

    async def main():
        started = threading.Event()

        def last():
            started.set()
            finished.set()

        loop.run_in_executor(None, last)
        await loop.shutdown_default_executor()
        assert finished.is_set()
        with pytest.raises(RuntimeError, match="shutdown"):
            loop.run_in_executor(None, work, 1)
        await loop.shutdown_default_executor()  # once more does nothing

    loop.run_until_complete(main())


def test_shutdown_with_a_timeout():
    run_script("""
    import warnings
    if sys.version_info >= (3, 13):  # 3.12 joins the thread all the same
        release = threading.Event()
        async def main():
            loop = asyncio.get_running_loop()
            loop.run_in_executor(None, release.wait, 40)
            await asyncio.sleep(0.01)
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                await loop.shutdown_default_executor(0.05)
            assert [warning.category for warning in caught] == [RuntimeWarning], caught
            release.set()
        loop = new_event_loop()
        loop.run_until_complete(asyncio.wait_for(main(), 30))
        loop.close()
    """)


def test_debug_mode_refuses_what_is_no_function(loop):
    async def coroutine_function():
        pass

    loop.set_debug(True)
    with pytest.raises(TypeError):
        loop.run_in_executor(None, coroutine_function)
    with pytest.raises(TypeError):
        loop.run_in_executor(None, object())
