"""Arguments, errors and messages that are to be those of asyncio's own loop, of whatever version."""

import asyncio
import io
import socket
import sys

import pytest
from support.loops import not_uvloop, only_bolide
from support.side_by_side import check

pytestmark = not_uvloop


class HasFileno:
    """An object whose fileno() gives, or raises, what it is told to."""

    def __init__(self, number):
        self.number = number

    def fileno(self):
        if isinstance(self.number, Exception):
            raise self.number
        return self.number

    def __repr__(self):
        return f"HasFileno({self.number!r})"


DESCRIPTORS = [
    *(-1, -5, -(2**40), -(2**70), 99999, 2**31 - 1, 2**31, 2**63, 2**70),
    *(1.5, "3", b"3", None, [], object),
    *(HasFileno(number) for number in (-1, 99999, 2**31, 2**70, "x", "99999", None, 99999.5, [])),
    *(HasFileno(kind("of fileno")) for kind in (ValueError, TypeError, AttributeError, KeyError, OSError)),
    HasFileno(HasFileno(3)),
]


@pytest.mark.parametrize("method", ["add_reader", "add_writer", "remove_reader", "remove_writer"])
@pytest.mark.parametrize("closed", [False, True])
def test_what_is_no_descriptor(method, closed):
    callback = [print] if method.startswith("add") else []

    def scenario(loop, notes):
        if closed:
            loop.close()
        for descriptor in DESCRIPTORS:
            notes(descriptor)
            notes.call(getattr(loop, method), descriptor, *callback)
        closed_socket = socket.socket()
        closed_socket.close()
        notes.call(getattr(loop, method), closed_socket, *callback)
        with open("/dev/null") as null:
            notes.call(getattr(loop, method), null, *callback)
        notes.call(getattr(loop, method), null, *callback)
        notes("StringIO")
        with pytest.raises(ValueError, match="Invalid file object"):
            getattr(loop, method)(io.StringIO(), *callback)

    assert len(check(scenario)) > 2 * len(DESCRIPTORS)


@pytest.mark.parametrize(
    "keywords", [{"bogus": 1}, {"name": "n", "bogus": 1}, {"bogus": 1, "more": 2}, {"eager_start": None, "bogus": 1}]
)
@pytest.mark.parametrize("debug", [False, True])
def test_keywords_that_create_task_does_not_have(keywords, debug):
    async def nothing():
        pass

    def scenario(loop, notes):
        coroutine = nothing()
        notes.call(loop.create_task, coroutine, **keywords)
        coroutine.close()

    check(scenario, debug)


@pytest.mark.parametrize("method", ["call_soon", "call_later", "call_at", "call_soon_threadsafe"])
def test_callbacks_that_debug_mode_refuses(method):
    async def coroutine_function():
        pass

    def scenario(loop, notes):
        for wrong in (5, None, coroutine_function):
            when = [loop.time()] if method == "call_at" else [5] if method == "call_later" else []
            notes.call(getattr(loop, method), *when, wrong)

    check(scenario, debug=True)


@pytest.mark.parametrize("debug", [False, True])
def test_handles_show_arguments_as_asyncio_does(debug):
    def work(*args):
        raise ValueError(*args)

    def scenario(loop, notes):
        notes(loop.call_soon(work, 5, "six"))
        loop.call_soon(loop.stop)
        loop.run_forever()
        handle = loop.call_at(5, work, 7)
        handle.cancel()
        notes(repr(handle).replace("when=5.0", "when=5"))

    notes = check(scenario, debug)
    assert ("'six'" in notes[0]) == (debug or sys.version_info < (3, 13))


def test_timer_handles_as_keys():
    def scenario(loop, notes):
        early, late = loop.call_at(loop.time() + 5, print), loop.call_at(loop.time() + 6, print)
        notes(early < late, early == late, early == early, hash(early) == hash(early.when()), len({early, late}))
        early.cancel()
        late.cancel()

    check(scenario)


def test_lookups_in_debug_mode():
    async def scenario(loop, notes):
        await loop.getaddrinfo("127.0.0.1", 80, type=socket.SOCK_STREAM)

    assert any("Get address info" in note for note in check(scenario, debug=True))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_lookups_after_the_executor_was_shut_down(host):
    async def scenario(loop, notes):
        await loop.shutdown_default_executor()
        await notes.wait(loop.getaddrinfo(host, 80))

    check(scenario)


SOCKET_CALLS = {
    "sock_recv": [(5,), (-5,), ("x",), (None,)],
    "sock_recv_into": [(bytearray(5),), (b"read-only",), ("text",), (5,)],
    "sock_sendall": [(b"x",), ("text",), (5,), (None,)],
}


@pytest.mark.parametrize("method", SOCKET_CALLS)
@pytest.mark.parametrize("how", ["blocking", "closed", "not connected"])
def test_socket_operations_fail_when_they_are_awaited(method, how):
    async def scenario(loop, notes):
        for arguments in SOCKET_CALLS[method]:
            sock = socket.socket()
            sock.setblocking(how == "blocking")
            if how == "closed":
                sock.close()
            awaitable = getattr(loop, method)(sock, *arguments)  # raises nothing
            await notes.wait(awaitable)
            sock.close()

    check(scenario, debug=True)


def subclass(loop, **methods):
    made = type("Subclass", (type(loop),), methods)()
    made.slow_callback_duration = 60
    return made


def test_a_clock_of_a_subclass():
    def scenario(loop, notes):
        ahead = [0]
        parent = type(loop)
        other = subclass(loop, time=lambda self: parent.time(self) + ahead[0])
        other.call_later(10_000, notes, "10000 s later")
        other.call_at(other.time() + 20_000, notes, "20000 s later")

        def forward():
            ahead[0] += 15_000
            other.call_later(0.01, other.stop)

        other.call_soon(forward)
        other.run_forever()
        other.close()

    assert check(scenario) == ["10000 s later"]


def test_a_clock_of_a_subclass_before_the_first_run():
    def scenario(loop, notes):
        other = subclass(loop, time=lambda self: 100.0)
        notes(other.call_later(5, print).when())
        other.close()

    assert check(scenario) == ["105.0"]


def test_a_subclass_whose_clock_fails_at_once():
    def scenario(loop, notes):
        other = subclass(loop, time=property(lambda self: 1 / 0))
        notes.call(other.call_later, 5, print)
        other.close()

    assert check(scenario) == ["raised ZeroDivisionError division by zero"]


def test_a_clock_put_on_a_loop():
    def scenario(loop, notes):
        now = [50.0]
        loop.time = lambda: now[0]
        notes(loop.call_later(5, print).when())
        handle = loop.call_later(5, notes, "due")
        notes(handle.when())
        now[0] = 55.0
        loop.call_soon(lambda: loop.call_soon(loop.stop))
        loop.run_forever()
        del loop.time
        notes(abs(loop.call_later(5, print).when() - loop.time() - 5) < 5)

    assert check(scenario) == ["55.0", "55.0", "due", "True"]


def test_a_clock_that_fails():
    def scenario(loop, notes):
        def broken():
            raise ZeroDivisionError("broken")

        loop.call_later(5, print)
        loop.time = broken
        notes.call(loop.call_later, 5, print)
        notes.call(loop.run_forever)
        del loop.time

    check(scenario)


def test_methods_of_a_subclass_are_called():
    def scenario(loop, notes):
        parent = type(loop)

        def noting(name):
            def method(self, *args, **kwargs):
                notes(name, len(args), sorted(kwargs))
                return getattr(parent, name)(self, *args, **kwargs)

            return method

        names = ["call_soon", "call_at", "call_later", "create_task", "create_future", "call_exception_handler"]
        other = subclass(loop, **{name: noting(name) for name in names})
        other.set_exception_handler(lambda *_: None)

        async def main():
            notes("sleep")
            await asyncio.sleep(0.001)
            notes("timeout")
            async with asyncio.timeout(100):
                await asyncio.sleep(0)
            notes("task")
            await asyncio.create_task(asyncio.sleep(0), name="named")
            notes("failing")
            other.call_soon(lambda: 1 / 0)
            await asyncio.sleep(0)
            notes("later")
            other.call_later(100, print, 1, 2).cancel()

        other.run_until_complete(main())
        other.close()

    assert "call_at 4 ['context']" in check(scenario)


@only_bolide
def test_a_time_that_cancels_the_timers(loop):
    """Whatever such a method does: the loop looks again after it."""
    handles = [loop.call_later(1000, print)]

    def cancel():
        for handle in handles:
            handle.cancel()
        return 0.0

    loop.time = cancel
    loop.call_soon(loop.call_soon, loop.stop)
    loop.run_forever()
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert all(handle.cancelled() for handle in handles)
