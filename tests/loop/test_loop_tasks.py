"""create_task(), task factories, eager tasks, and what is no native coroutine."""

import asyncio
import collections.abc
import contextvars
import sys

import pytest
from support.loops import only_bolide, with_loop


class CoroutineLike(collections.abc.Coroutine):
    """As the request objects of aiohttp: a coroutine by its methods alone."""

    def __init__(self, coroutine):
        self._coroutine = coroutine

    def send(self, value):
        return self._coroutine.send(value)

    def throw(self, *args):
        return self._coroutine.throw(*args)

    def close(self):
        return self._coroutine.close()

    def __await__(self):
        return (yield from self._coroutine.__await__())


async def double(value):
    await asyncio.sleep(0)
    return 2 * value


@with_loop
async def test_create_task():
    loop = asyncio.get_running_loop()
    task = loop.create_task(double(1), name="doubling")
    assert task.get_name() == "doubling"
    assert task.get_loop() is loop
    assert task in asyncio.all_tasks()
    assert await task == 2
    variable = contextvars.ContextVar("variable", default=0)
    context = contextvars.copy_context()
    context.run(variable.set, 5)

    async def read():
        return variable.get()

    assert await loop.create_task(read(), context=context) == 5
    assert await loop.create_task(read()) == 0


@with_loop
async def test_what_is_no_native_coroutine():
    loop = asyncio.get_running_loop()
    assert await loop.create_task(CoroutineLike(double(2))) == 4
    assert await asyncio.ensure_future(CoroutineLike(double(4))) == 8
    assert await asyncio.wait_for(CoroutineLike(double(5)), 20) == 10
    assert await asyncio.gather(CoroutineLike(double(6)), double(7)) == [12, 14]


@with_loop
async def test_what_is_no_coroutine_at_all():
    loop = asyncio.get_running_loop()
    for wrong in (5, None, double, loop.create_future()):
        with pytest.raises(TypeError):
            await loop.create_task(wrong)
    coroutine = double(1)
    with pytest.raises(TypeError):
        await loop.create_task(coroutine, no_such_argument=1)
    coroutine.close()


@with_loop
async def test_a_task_factory():
    loop = asyncio.get_running_loop()
    made = []

    def factory(loop, coroutine, **options):
        made.append(options)
        return asyncio.Task(coroutine, loop=loop, **options)

    assert loop.get_task_factory() is None
    loop.set_task_factory(factory)
    try:
        assert loop.get_task_factory() is factory
        task = loop.create_task(double(1), name="named")
        assert await task == 2
        assert task.get_name() == "named"
        assert await asyncio.create_task(double(2), context=contextvars.copy_context()) == 4
        async with asyncio.TaskGroup() as group:
            inner = group.create_task(double(3), name="in a group")
        assert inner.result() == 6 and inner.get_name() == "in a group"
        assert len(made) == 3
    finally:
        loop.set_task_factory(None)
    with pytest.raises(TypeError):
        loop.set_task_factory(5)
    assert await loop.create_task(double(1)) == 2


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks are new in CPython 3.12")
@with_loop
async def test_the_eager_task_factory():
    loop = asyncio.get_running_loop()
    steps = []

    async def steps_of(name, waits):
        steps.append(f"{name} begins")
        if waits:
            await asyncio.sleep(0)
        steps.append(f"{name} ends")
        return name

    loop.set_task_factory(asyncio.eager_task_factory)
    try:
        quick = asyncio.create_task(steps_of("quick", False), name="quick")
        assert quick.done() and quick.result() == "quick"
        slow = loop.create_task(steps_of("slow", True), name="slow")
        assert not slow.done()
        steps.append("here")
        assert await slow == "slow"
        async with asyncio.TaskGroup() as group:
            inner = group.create_task(steps_of("inner", True), name="inner")
        assert inner.result() == "inner"
        assert await asyncio.gather(double(1), double(2)) == [2, 4]
        async with asyncio.timeout(20):
            assert await asyncio.wait_for(double(3), 20) == 6
    finally:
        loop.set_task_factory(None)
    assert steps[:5] == ["quick begins", "quick ends", "slow begins", "here", "slow ends"]


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks are new in CPython 3.12")
@pytest.mark.parametrize("debug", [False, True])
@only_bolide
@with_loop
async def test_eager_start_of_the_method(debug):
    """Asyncio's own loops take it since CPython 3.13.3."""

    async def step():
        return "eager"

    loop = asyncio.get_running_loop()
    loop.set_debug(debug)
    task = loop.create_task(step(), eager_start=True, name="eager")
    assert task.done() and task.result() == "eager" and task.get_name() == "eager"
    assert await loop.create_task(step(), eager_start=False) == "eager"


@pytest.mark.skipif(sys.version_info < (3, 14), reason="eager_start is an argument of create_task() since CPython 3.14")
@with_loop
async def test_eager_start():
    loop = asyncio.get_running_loop()
    steps = []

    async def step():
        steps.append(1)

    task = loop.create_task(step(), eager_start=True, name="eager")
    assert task.done() and steps == [1] and task.get_name() == "eager"
    task = asyncio.create_task(step(), eager_start=False)
    assert not task.done() and steps == [1]
    await task
    async with asyncio.TaskGroup() as group:
        assert group.create_task(step(), eager_start=True).done()


def test_a_task_before_the_loop_runs(loop):
    """Nothing is lost, and nothing starts early."""
    steps = []

    async def step():
        steps.append(asyncio.get_running_loop())

    task = loop.create_task(step())
    assert steps == []
    loop.run_until_complete(task)
    assert steps == [loop]


def test_the_done_callback_of_asyncio(loop):
    """By asyncio's own callback on the task of run_until_complete(), libraries find the root task."""
    from asyncio.base_events import _run_until_complete_cb

    async def main():
        callbacks = [callback for callback, _ in asyncio.current_task()._callbacks]
        assert callbacks == [_run_until_complete_cb]

    loop.run_until_complete(main())
