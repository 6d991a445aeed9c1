"""add_signal_handler() and remove_signal_handler()."""

import asyncio
import contextvars
import os
import signal
import threading

import pytest
from support.loops import LOOP, run_script


async def until(condition, timeout: float = 20) -> None:
    """Turns of the loop until the condition holds."""
    async with asyncio.timeout(timeout):
        while not condition():
            await asyncio.sleep(0.001)


@pytest.fixture(autouse=True)
def untouched():
    """Every test leaves the handlers as they were."""
    numbers = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP, signal.SIGINT)
    before = [signal.getsignal(number) for number in numbers]
    yield
    assert [signal.getsignal(number) for number in numbers] == before


def test_a_handler_gets_its_arguments(loop):
    calls = []
    loop.add_signal_handler(signal.SIGUSR1, lambda *args: calls.append(args), 1, "two")

    async def main():
        for count in range(1, 4):
            os.kill(os.getpid(), signal.SIGUSR1)
            await until(lambda count=count: len(calls) == count)

    loop.run_until_complete(main())
    assert calls == [(1, "two")] * 3
    assert loop.remove_signal_handler(signal.SIGUSR1) is True
    assert loop.remove_signal_handler(signal.SIGUSR1) is False


def test_the_loop_wakes_up(loop):
    """A signal that comes while the loop waits for nothing else."""
    loop.add_signal_handler(signal.SIGUSR1, loop.stop)
    timer = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGUSR1))
    timer.start()
    loop.run_forever()
    timer.join()
    loop.remove_signal_handler(signal.SIGUSR1)


def test_several_signals_and_handlers_that_change(loop):
    calls = []
    loop.add_signal_handler(signal.SIGUSR1, calls.append, "old")
    loop.add_signal_handler(signal.SIGUSR1, calls.append, "one")
    loop.add_signal_handler(signal.SIGUSR2, calls.append, "two")

    async def main():
        os.kill(os.getpid(), signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGUSR2)
        await until(lambda: len(calls) == 2)
        assert sorted(calls) == ["one", "two"]
        loop.remove_signal_handler(signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGUSR2)
        await until(lambda: len(calls) == 3)

    loop.run_until_complete(main())
    assert calls[-1] == "two"
    loop.remove_signal_handler(signal.SIGUSR2)


def test_the_handler_runs_in_its_context(loop):
    variable = contextvars.ContextVar("variable", default="none")
    seen = []

    def register():
        variable.set("set")
        loop.add_signal_handler(signal.SIGUSR1, lambda: seen.append(variable.get()))

    contextvars.copy_context().run(register)

    async def main():
        os.kill(os.getpid(), signal.SIGUSR1)
        await until(lambda: seen)

    loop.run_until_complete(main())
    assert seen == ["set"]
    loop.remove_signal_handler(signal.SIGUSR1)


def test_an_exception_in_a_handler_is_reported(loop, reports):
    def fail():
        raise ZeroDivisionError

    loop.add_signal_handler(signal.SIGUSR1, fail)

    async def main():
        os.kill(os.getpid(), signal.SIGUSR1)
        await until(lambda: reports)

    loop.run_until_complete(main())
    assert isinstance(reports.pop()["exception"], ZeroDivisionError)
    loop.remove_signal_handler(signal.SIGUSR1)


@pytest.mark.parametrize("base", [Exception, BaseException])
def test_what_a_plain_handler_raises_leaves_the_run(loop, reports, base):
    """As a time limit by signal.alarm() does: the handler is signal.signal()'s, and the loop waits meanwhile."""

    class TimeIsUpError(base):
        pass

    def raise_it(*_):
        if loop.is_running():
            raise TimeIsUpError

    ended = threading.Event()

    def send():
        while not ended.wait(0.05):
            os.kill(os.getpid(), signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, raise_it)
    sender = threading.Thread(target=send)
    never = loop.create_future()
    loop.call_soon(sender.start)
    try:
        with pytest.raises(TimeIsUpError):
            loop.run_until_complete(never)
    finally:
        ended.set()
        sender.join()
        signal.signal(signal.SIGUSR1, before)
    reports.clear()  # of one that came while a callback ran
    loop.call_soon(never.set_result, "alive")
    assert loop.run_until_complete(never) == "alive"


def test_a_signal_between_two_runs_is_handled_in_the_second(loop):
    calls = []
    loop.add_signal_handler(signal.SIGUSR1, calls.append, 1)
    loop.run_until_complete(asyncio.sleep(0))
    loop.call_soon(os.kill, os.getpid(), signal.SIGUSR1)
    loop.call_soon(loop.stop)
    loop.run_forever()
    loop.run_until_complete(until(lambda: calls))
    loop.remove_signal_handler(signal.SIGUSR1)


def test_what_cannot_be_handled(loop):
    async def coroutine_function():
        pass

    for wrong, error in (
        (("USR1", print), TypeError),
        ((0, print), ValueError),
        ((10_000, print), ValueError),
        ((signal.SIGKILL, print), RuntimeError),
        ((signal.SIGSTOP, print), RuntimeError),
        ((signal.SIGUSR1, coroutine_function), TypeError),
    ):
        with pytest.raises(error):
            loop.add_signal_handler(*wrong)
    coroutine = coroutine_function()
    with pytest.raises(TypeError):
        loop.add_signal_handler(signal.SIGUSR1, coroutine)
    coroutine.close()
    for wrong, error in (("USR1", TypeError), (0, ValueError), (10_000, ValueError)):
        with pytest.raises(error):
            loop.remove_signal_handler(wrong)


def test_another_thread_has_no_signal_handlers(loop):
    errors = []

    def body():
        try:
            loop.add_signal_handler(signal.SIGUSR1, print)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    assert len(errors) == 1
    assert isinstance(errors[0], (RuntimeError, ValueError))


def test_sigint_instead_of_keyboard_interrupt(loop):
    """asyncio gives Ctrl-C back to Python when the handler is removed."""
    calls = []
    loop.add_signal_handler(signal.SIGINT, calls.append, 1)

    async def main():
        os.kill(os.getpid(), signal.SIGINT)
        await until(lambda: calls)

    loop.run_until_complete(main())
    loop.remove_signal_handler(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_closing_the_loop_removes_its_handlers(loop):
    loop.add_signal_handler(signal.SIGUSR1, print)
    loop.add_signal_handler(signal.SIGINT, print)
    loop.close()
    assert signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_storm_of_signals():
    """More than the wake-up pipe holds: none of the kinds is lost, and nothing is printed."""
    done = run_script("""
    calls = {signal.SIGUSR1: 0, signal.SIGUSR2: 0}
    def count(number):
        calls[number] += 1
    async def main():
        loop = asyncio.get_running_loop()
        for number in calls:
            loop.add_signal_handler(number, count, number)
        for _ in range(20_000):
            signal.raise_signal(signal.SIGUSR1)
        signal.raise_signal(signal.SIGUSR2)
        await asyncio.sleep(0.01)
        signal.raise_signal(signal.SIGUSR2)
        while not all(calls.values()):
            await asyncio.sleep(0.001)
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(asyncio.wait_for(main(), 40))
    """)
    assert LOOP == "asyncio" or done.stderr == ""


def test_children_do_not_inherit_the_handling():
    """A child process starts with the default, though the loop had taken the signal."""
    run_script("""
    async def main():
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, print)
        process = await asyncio.create_subprocess_exec("sleep", "60")
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == -signal.SIGTERM
        loop.remove_signal_handler(signal.SIGTERM)
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(asyncio.wait_for(main(), 40))
    """)
