"""Signals beside those of asyncio's own loop: arguments, errors, and who is told of them by signal.set_wakeup_fd()."""

import asyncio
import functools
import os
import signal
import socket
import threading

import pytest
from support.loops import not_uvloop
from support.side_by_side import check

pytestmark = not_uvloop


@pytest.fixture(autouse=True)
def as_before():
    """Leave the handling of signals as it was."""
    handlers = {sig: signal.getsignal(sig) for sig in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT)}
    yield
    signal.set_wakeup_fd(-1)
    for sig, handler in handlers.items():
        signal.signal(sig, handler)


def run_for(loop, seconds=0.05):
    loop.call_later(seconds, loop.stop)
    loop.run_forever()


def kill(sig=signal.SIGUSR1):
    os.kill(os.getpid(), sig)


@pytest.mark.parametrize("closed", [False, True])
def test_arguments(closed):
    signals = [signal.SIGUSR1, int(signal.SIGUSR1), "SIGUSR1", None, 1.5, 0, -1, 64, 65, 1000, signal.SIGKILL, 32, True]

    async def coroutine_function():
        pass

    def scenario(loop, notes):
        if closed:
            loop.close()
        for sig in signals:
            notes(sig)
            notes.call(loop.add_signal_handler, sig, print)
            notes.call(loop.remove_signal_handler, sig)
        for callback in (None, 5, len, functools.partial(print, 1), coroutine_function):
            notes.call(loop.add_signal_handler, signal.SIGUSR1, callback)
        notes.call(loop.remove_signal_handler, signal.SIGUSR1)
        notes(signal.getsignal(signal.SIGUSR1))
        loop.close()
        notes(signal.set_wakeup_fd(-1))

    check(scenario)


def test_handlers_that_change():
    def scenario(loop, notes):
        loop.add_signal_handler(signal.SIGUSR1, notes, "first")
        loop.add_signal_handler(signal.SIGUSR1, notes, "second")
        kill()
        run_for(loop)
        loop.add_signal_handler(signal.SIGUSR1, lambda: notes(loop.remove_signal_handler(signal.SIGUSR1)))
        kill()
        run_for(loop)
        notes(signal.getsignal(signal.SIGUSR1))
        loop.add_signal_handler(signal.SIGINT, notes, "interrupted")
        kill(signal.SIGINT)
        run_for(loop)
        loop.remove_signal_handler(signal.SIGINT)
        notes(signal.getsignal(signal.SIGINT) is signal.default_int_handler)
        loop.add_signal_handler(signal.SIGUSR2, lambda: 1 / 0)
        kill(signal.SIGUSR2)
        run_for(loop)

    assert check(scenario)[0] == "second"


@pytest.mark.parametrize("when", ["before the run", "during it"])
def test_a_signal_between_two_runs(when):
    """The loop's handler is called in the second, whenever it was added."""

    def scenario(loop, notes):
        if when == "before the run":
            loop.add_signal_handler(signal.SIGUSR1, notes, "called")
        else:
            loop.call_soon(loop.add_signal_handler, signal.SIGUSR1, notes, "called")
        run_for(loop, 0.01)
        kill()
        run_for(loop)

    assert check(scenario) == ["called"]


@pytest.mark.parametrize("when", ["before the run", "during it"])
def test_a_handler_removed_during_the_run_leaves_no_descriptor_behind(when):
    def scenario(loop, notes):
        if when == "before the run":
            loop.add_signal_handler(signal.SIGUSR1, notes, "called")
        else:
            loop.call_soon(loop.add_signal_handler, signal.SIGUSR1, notes, "called")
        loop.call_soon(loop.remove_signal_handler, signal.SIGUSR1)
        run_for(loop, 0.01)
        notes(signal.set_wakeup_fd(-1))

    assert check(scenario) == ["-1"]


@pytest.fixture
def pair():
    left, right = socket.socketpair()
    with left, right:
        left.setblocking(False)
        right.setblocking(False)
        yield left, right


def received(sock):
    try:
        return sock.recv(100)
    except BlockingIOError:
        return b""


@pytest.mark.parametrize("when", ["before the run", "during it"])
def test_a_wakeup_fd_of_the_programs_own(pair, when):
    """Twisted's reactor on a loop learns so of the end of children."""

    def scenario(loop, notes):
        left, right = pair
        signal.signal(signal.SIGUSR1, lambda *_: notes("handled"))
        if when == "before the run":
            signal.set_wakeup_fd(left.fileno())
        else:
            loop.call_soon(signal.set_wakeup_fd, left.fileno())
        loop.call_later(0.01, kill)
        run_for(loop)
        notes(received(right) == bytes([signal.SIGUSR1]))
        kill()
        notes(received(right) == bytes([signal.SIGUSR1]))
        run_for(loop, 0.01)
        notes(received(right), signal.set_wakeup_fd(-1) == left.fileno())

    assert check(scenario) == ["handled", "True", "handled", "True", "b'' True"]


def test_a_wakeup_fd_that_is_closed_during_the_run(pair):
    def scenario(loop, notes):
        sock = pair[0].dup()
        sock.setblocking(False)
        signal.set_wakeup_fd(sock.fileno())
        loop.call_soon(sock.close)
        run_for(loop, 0.01)
        signal.set_wakeup_fd(-1)
        notes("went on")

    check(scenario)


def test_other_threads():
    def scenario(loop, notes):
        def work():
            notes.call(loop.add_signal_handler, signal.SIGUSR1, print)
            notes.call(loop.remove_signal_handler, signal.SIGUSR1)
            other = type(loop)()
            notes.call(other.add_signal_handler, signal.SIGUSR1, print)
            notes.call(other.run_until_complete, asyncio.sleep(0))
            other.close()

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()

    check(scenario)
