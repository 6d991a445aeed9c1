"""call_soon, call_later, call_at, call_soon_threadsafe and their handles."""

import asyncio
import contextvars
import gc
import random
import socket
import sys
import threading
import time
import weakref

import pytest
from support.loops import LOOP, only_bolide


def run_once(loop):
    """Run what is ready now."""
    loop.call_soon(loop.stop)
    loop.run_forever()


def test_call_soon_keeps_the_order(loop):
    seen = []
    for number in range(1000):
        loop.call_soon(seen.append, number)
    run_once(loop)
    assert seen == list(range(1000))


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 5, 8, 100])
def test_arguments_are_passed(loop, count):
    seen = []
    arguments = tuple(object() for _ in range(count))
    loop.call_soon(lambda *given: seen.append(given), *arguments)
    loop.call_later(0, lambda *given: (seen.append(given), loop.stop()), *arguments)
    loop.run_forever()
    assert seen == [arguments, arguments]


def test_what_a_callback_schedules_runs_in_the_next_turn(loop):
    seen = []

    def first():
        seen.append("first")
        loop.call_soon(seen.append, "of the first")

    loop.call_soon(first)
    loop.call_soon(seen.append, "second")
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert seen == ["first", "second"]
    run_once(loop)
    assert seen == ["first", "second", "of the first"]


def test_a_chain_of_call_soon_does_not_starve_timers_and_descriptors(loop):
    left, right = socket.socketpair()
    seen = set()

    def spin():
        if seen != {"timer", "reader"}:
            loop.call_soon(spin)
        else:
            loop.stop()

    loop.add_reader(left, lambda: (seen.add("reader"), loop.remove_reader(left)))
    right.send(b"x")
    loop.call_later(0.001, seen.add, "timer")
    loop.call_soon(spin)
    loop.run_forever()
    left.close()
    right.close()


def test_timers_are_never_early_and_in_order(loop):
    seen = []
    delays = [random.Random(5).random() / 20 for _ in range(300)]

    def expire(when):
        seen.append(when)
        assert loop.time() >= when

    start = loop.time()
    for delay in delays:
        when = start + delay
        loop.call_at(when, expire, when)
    loop.call_at(start + 0.06, loop.stop)
    loop.run_forever()
    assert seen == sorted(start + delay for delay in delays)


def test_timers_of_one_deadline_run_in_the_order_of_registration(loop):
    if LOOP == "asyncio":
        pytest.skip("asyncio's heap does not promise it")
    seen = []
    when = loop.time() + 0.01
    for number in range(100):
        loop.call_at(when, seen.append, number)
    loop.call_at(when, loop.stop)
    loop.run_forever()
    assert seen == list(range(100))


@pytest.mark.parametrize("delay", [0, -1, -1e300, 0.0, True, float("-inf")])
def test_a_delay_that_is_over_runs_on_the_next_turn(loop, delay):
    loop.call_later(delay, loop.stop)
    loop.run_forever()


def test_far_timers_do_not_hold_anything_up(loop):
    handles = [loop.call_later(delay, pytest.fail) for delay in (1e6, 1e10, 1e15, 1e300, float("inf"))]
    loop.call_later(0.001, loop.stop)
    loop.run_forever()
    for handle in handles:
        handle.cancel()


@pytest.mark.parametrize("how", ["call_soon", "call_later", "call_at", "call_soon_threadsafe"])
def test_a_cancelled_callback_does_not_run(loop, how):
    seen = []
    first = {"call_later": (0,), "call_at": (loop.time(),)}.get(how, ())
    handle = getattr(loop, how)(*first, seen.append, 1)
    assert not handle.cancelled()
    handle.cancel()
    handle.cancel()
    assert handle.cancelled()
    loop.call_later(0.005, loop.stop)
    loop.run_forever()
    assert seen == []


def test_a_callback_may_cancel_the_next_ones(loop):
    seen = []
    handles = []
    loop.call_soon(lambda: [handle.cancel() for handle in handles])
    handles += [loop.call_soon(seen.append, number) for number in range(10)]
    handles += [loop.call_later(0, seen.append, number) for number in range(10)]
    loop.call_later(0.002, loop.stop)
    loop.run_forever()
    assert seen == []


def test_a_callback_may_cancel_itself(loop):
    handles = []
    handles.append(loop.call_soon(lambda: handles[0].cancel()))
    run_once(loop)
    assert handles[0].cancelled()


def test_cancelling_random_timers(loop):
    rand = random.Random(7)
    seen, expected = [], set()
    start = loop.time()
    handles = {n: loop.call_at(start + rand.random() / 50, seen.append, n) for n in range(2000)}
    for number, handle in handles.items():
        if rand.random() < 0.5:
            handle.cancel()
        else:
            expected.add(number)
    loop.call_at(start + 0.03, loop.stop)
    loop.run_forever()
    assert set(seen) == expected and len(seen) == len(expected)


def test_a_cancelled_timer_lets_go_of_what_it_holds(loop):
    class Thing:
        pass

    thing = Thing()
    alive = weakref.ref(thing)
    handle = loop.call_later(100, print, thing)
    del thing
    handle.cancel()
    gc.collect()
    assert alive() is None


def test_when(loop):
    when = loop.time() + 100
    handle = loop.call_at(when, print)
    assert handle.when() == when
    handle.cancel()
    assert handle.when() == when


def test_timer_handles_compare_by_deadline(loop):
    early, late = loop.call_at(1e9, print), loop.call_at(2e9, print)
    assert early < late and late > early and early <= late and late >= early
    assert early != late and early == early
    assert len({early, late, early}) == 2
    with pytest.raises(TypeError):
        early < 5  # noqa: B015
    early.cancel()
    late.cancel()


def test_contexts_are_kept(loop):
    var = contextvars.ContextVar("var", default="none")
    seen = []

    def look(how):
        seen.append((how, var.get()))

    own = contextvars.copy_context()
    own.run(var.set, "own")
    var.set("copied")
    loop.call_soon(look, "soon")
    loop.call_later(0, look, "later")
    loop.call_at(0, look, "at")
    loop.call_soon_threadsafe(look, "threadsafe")
    loop.call_soon(look, "soon in own", context=own)
    loop.call_later(0, look, "later in own", context=own)
    loop.call_at(0, look, "at in own", context=own)
    loop.call_soon_threadsafe(look, "threadsafe in own", context=own)
    var.set("changed since")
    loop.call_later(0.002, loop.stop)
    loop.run_forever()
    assert len(seen) == 8
    for how, value in seen:
        assert value == ("own" if how.endswith("own") else "copied"), how


def test_a_callback_in_a_context_that_is_entered_already(loop, reports):
    """It cannot run, which is reported, and nothing else suffers."""
    context = contextvars.copy_context()
    seen = []

    def inside():
        loop.call_soon(seen.append, 1, context=context)
        run_once(loop)

    context.run(inside)
    run_once(loop)
    assert seen == ([1] if LOOP == "uvloop" else [])
    reports.clear()  # Python 3.12 and later call the handler in that context, which fails too


def test_get_context(loop):
    context = contextvars.copy_context()
    handle = loop.call_soon(print, context=context)
    if not hasattr(handle, "get_context"):
        pytest.skip("new in Python 3.12")
    assert handle.get_context() is context
    handle.cancel()


def test_an_exception_goes_to_the_handler_and_the_loop_goes_on(loop, reports):
    seen = []

    def fail(number):
        raise ValueError(number)

    handle = loop.call_soon(fail, 7)
    loop.call_soon(seen.append, "after")
    run_once(loop)
    assert seen == ["after"]
    context = reports.pop()
    assert context["exception"].args == (7,)
    assert context["handle"] is handle
    assert "fail" in context["message"]


def test_an_exception_handler_that_fails(loop, reports, caplog):
    """asyncio's default handler takes over, and tells of both."""

    def handler(loop, context):
        raise KeyError("of the handler")

    loop.set_exception_handler(handler)
    loop.call_soon(lambda: 1 / 0)
    run_once(loop)
    assert "Unhandled error in exception handler" in caplog.text
    assert "KeyError" in caplog.text


def test_the_default_exception_handler_logs(loop, caplog):
    loop.set_exception_handler(None)
    loop.call_soon(lambda: 1 / 0)
    run_once(loop)
    assert "Exception in callback" in caplog.text
    assert "ZeroDivisionError" in caplog.text


def test_get_exception_handler(loop):
    def handler(loop, context):
        pass

    loop.set_exception_handler(handler)
    assert loop.get_exception_handler() is handler
    with pytest.raises(TypeError):
        loop.set_exception_handler("no function")
    loop.set_exception_handler(None)
    assert loop.get_exception_handler() is None


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("how", ["call_soon", "call_later", "reader"])
def test_what_ends_a_program_ends_the_run(loop, kind, how):
    """It comes out of run_forever(), the loop can run again, and what was scheduled after it is not lost."""
    left, right = socket.socketpair()
    seen = []

    def end():
        loop.remove_reader(left)
        loop.call_soon(seen.append, "scheduled before the raise")
        raise kind

    if how == "call_soon":
        loop.call_soon(end)
    elif how == "call_later":
        loop.call_later(0.001, end)
    else:
        right.send(b"x")
        loop.add_reader(left, end)
    with pytest.raises(kind):
        loop.run_forever()
    assert not loop.is_running()
    run_once(loop)
    assert seen == ["scheduled before the raise"]
    left.close()
    right.close()


def test_many_threads_schedule(loop):
    seen = []
    per_thread, threads = 2000, 4

    def work(number):
        for count in range(per_thread):
            loop.call_soon_threadsafe(seen.append, (number, count))
        loop.call_soon_threadsafe(done.append, number)
        loop.call_soon_threadsafe(lambda: loop.stop() if len(done) == threads else None)

    done = []
    running = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
    for thread in running:
        thread.start()
    loop.run_forever()
    for thread in running:
        thread.join()
    assert len(seen) == per_thread * threads
    for number in range(threads):
        assert [count for n, count in seen if n == number] == list(range(per_thread))


def test_a_thread_wakes_a_loop_that_waits(loop):
    """Again and again: no wake-up may be lost."""
    event = threading.Event()
    count = 0

    def answer():
        nonlocal count
        count += 1
        event.set()

    def work():
        for _ in range(2000):
            loop.call_soon_threadsafe(answer)
            assert event.wait(20)
            event.clear()
        loop.call_soon_threadsafe(loop.stop)

    thread = threading.Thread(target=work)
    thread.start()
    loop.run_forever()
    thread.join()
    assert count == 2000


def test_stop_from_a_thread(loop):
    thread = threading.Timer(0.01, loop.call_soon_threadsafe, (loop.stop,))
    thread.start()
    loop.run_forever()
    thread.join()


@pytest.mark.parametrize("name", ["call_soon", "call_soon_threadsafe", "call_later", "call_at"])
def test_arguments_by_keyword(loop, name):
    """As asyncio's signatures say."""
    if LOOP == "uvloop" and name != "call_soon":
        pytest.skip("uvloop takes these by position alone")
    seen = []
    keywords = {"callback": lambda: seen.append(1)}
    if name == "call_later":
        keywords["delay"] = 0
    elif name == "call_at":
        keywords["when"] = loop.time()
    getattr(loop, name)(**keywords)
    loop.call_later(0.002, loop.stop)
    loop.run_forever()
    assert seen == [1]


def test_wrong_arguments(loop):
    for call in (
        lambda: loop.call_soon(),
        lambda: loop.call_later(),
        lambda: loop.call_later(1),
        lambda: loop.call_at(1),
        lambda: loop.call_soon_threadsafe(),
        lambda: loop.call_later(None, print),
        lambda: loop.call_at(None, print),
        lambda: loop.call_later("soon", print),
        lambda: loop.call_soon(print, surprise=1),
    ):
        with pytest.raises(TypeError):
            call()


@only_bolide
def test_what_cannot_be_ordered_is_refused(loop):
    with pytest.raises(ValueError):
        loop.call_later(float("nan"), print)
    with pytest.raises(TypeError):
        loop.call_soon(print, context=5)


def test_something_that_cannot_be_called(loop, reports):
    loop.call_soon(5)
    run_once(loop)
    assert isinstance(reports.pop()["exception"], TypeError)


def test_handles_tell_what_they_are(loop):
    handle = loop.call_soon(test_handles_tell_what_they_are)
    timer = loop.call_later(100, test_handles_tell_what_they_are)
    assert "test_handles_tell_what_they_are" in repr(handle)
    assert "Handle" in repr(handle) and "TimerHandle" in repr(timer) and "when=" in repr(timer)
    handle.cancel()
    timer.cancel()
    assert "cancelled" in repr(handle) and "cancelled" in repr(timer)


@pytest.mark.skipif(LOOP == "uvloop", reason="not of its handles")
def test_handles_are_instances_of_asyncios(loop):
    """Programs, and what checks annotations at run time, ask for that."""
    timers = loop.call_later(100, print), loop.call_at(loop.time() + 100, print)
    for handle in (loop.call_soon(print), loop.call_soon_threadsafe(print), *timers):
        assert isinstance(handle, asyncio.Handle)
        assert isinstance(handle, asyncio.TimerHandle) == (handle in timers)
        handle.cancel()
        assert isinstance(handle, asyncio.Handle)


def test_handles_can_be_referred_to_weakly(loop):
    handle = loop.call_soon(print)
    reference = weakref.ref(handle)
    assert reference() is handle
    run_once(loop)
    del handle
    gc.collect()
    assert reference() is None


def test_handles_outlive_their_loop():
    from support.loops import new_event_loop

    loop = new_event_loop()
    handle, timer = loop.call_soon(print), loop.call_later(100, print)
    loop.close()
    del loop
    gc.collect()
    repr(handle), repr(timer)
    handle.cancel()
    timer.cancel()
    assert handle.cancelled() and timer.cancelled()


def test_time_is_the_monotonic_clock(loop):
    for _ in range(100):
        before = time.monotonic()
        assert before <= loop.time() <= time.monotonic()


def test_time_goes_on_within_a_turn(loop):
    """It is the exact clock, not what the loop read when the turn began."""
    if LOOP == "uvloop":
        pytest.skip("uvloop's time is that of the turn")
    before = loop.time()
    while loop.time() == before:
        pass


def test_sleep_is_precise_enough(loop):
    async def main():
        start = loop.time()
        await asyncio.sleep(0.01)
        assert loop.time() - start >= 0.01

    loop.run_until_complete(main())


@pytest.mark.skipif(
    LOOP != "bolide" and sys.version_info < (3, 12), reason="get_context() is new in asyncio's handles in CPython 3.12"
)
def test_the_contexts_of_many_handles_are_their_own(loop):
    variable = contextvars.ContextVar("variable", default="unset")
    seen = []

    def step(number):
        seen.append((number, variable.get()))
        variable.set(f"changed by {number}")

    variable.set("scheduled")
    handles = [loop.call_soon(step, number) for number in range(2000)]
    timers = [loop.call_later(1000, print) for _ in range(2000)]
    variable.set("later")
    gc.collect()
    contexts = [handle.get_context() for handle in handles[::7] + timers[::7]]
    assert all(context[variable] == "scheduled" for context in contexts)
    assert all(gc.is_tracked(context) for context in contexts)
    run_once(loop)
    assert seen == [(number, "scheduled") for number in range(2000)]
    assert handles[1999].get_context()[variable] == "changed by 1999"
    for timer in timers:
        timer.cancel()
    assert all(context[variable] == "scheduled" for context in contexts[len(handles[::7]) :])


def test_what_only_the_contexts_of_waiting_handles_hold_is_collected_with_the_loop():
    from support.loops import new_event_loop

    class Witness:
        pass

    variable = contextvars.ContextVar("variable")

    def crowd():
        loop = new_event_loop()
        witness = Witness()
        witness.loop = loop
        variable.set(witness)
        for _ in range(1000):
            loop.call_soon(print)
            loop.call_later(1000, print)
        return loop, weakref.ref(witness)

    loop, reference = contextvars.copy_context().run(crowd)
    gc.collect()
    assert reference() is not None
    loop.close()
    del loop
    gc.collect()
    assert reference() is None


def test_bursts_of_any_size_run_in_order(loop):
    for size in (1, 255, 256, 257, 1023, 1025, 5000, 150_000, 10):
        seen = []
        for number in range(size):
            loop.call_soon(seen.append, number)
        run_once(loop)
        assert seen == list(range(size))


@pytest.mark.skipif(sys.version_info < (3, 14), reason="since CPython 3.14 it is so in asyncio")
@pytest.mark.skipif(LOOP == "uvloop", reason="does not wait")
@pytest.mark.parametrize("method", ["cancel", "cancelled"])
def test_who_cancels_from_another_thread_waits_for_a_callback_that_runs(loop, method):
    started, asking, release, seen = threading.Event(), threading.Event(), threading.Event(), []

    def work():
        assert handle.cancelled() is False  # which waits for nothing in here
        started.set()
        assert release.wait(20)
        time.sleep(0.02)
        seen.append("ran")

    def ask():
        assert started.wait(20)
        asking.set()
        seen.append(getattr(handle, method)())
        loop.call_soon_threadsafe(loop.stop)

    def let_go():
        assert asking.wait(20)
        time.sleep(0.02)  # so that the other thread has asked by then; if not, nothing is shown
        release.set()

    handle = loop.call_soon_threadsafe(work)
    threads = [threading.Thread(target=target) for target in (ask, let_go)]
    for thread in threads:
        thread.start()
    loop.run_forever()
    for thread in threads:
        thread.join()
    assert seen == ["ran", None if method == "cancel" else False]
    assert handle.cancelled() == (method == "cancel")
